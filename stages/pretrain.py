"""Train the decoder from scratch on the packed tokens, up to where the learning rate begins to fall (`decay`)."""

from lib.pipeline.run import Run, stage
from lib.trainers import checkpoints, extension
from lib.trainers.pretraining import Pretraining


@stage
def main(run: Run) -> None:
    seed, given = run.param("seed"), run.param("pretrain")
    tokens, tokenizer = run.dep("data/tokens"), run.dep("models/tokenizer")

    work = Pretraining(run, run.param("model"), given, run.param("guards"), seed, tokens, tokenizer)
    run.log(
        f"{work.config.parameters:,} parameters, {work.steps} steps of {work.settings.batch_tokens} tokens, "
        f"{work.epochs:.2f} epochs"
    )
    history = work.trainer.fit(extension.start(run, given.extend_from, work.steps))

    checkpoints.write(run.out("models/stable"), *work.trainer.checkpoint())
    work.write(run, history)


if __name__ == "__main__":
    main()
