"""Train the decoder from scratch on the packed tokens, up to where the learning rate begins to fall (`decay`)."""

from lib.backends.launch import launched
from lib.pipeline.run import Run, stage
from lib.trainers import checkpoints, extension
from lib.trainers.pretraining import Pretraining


@launched
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
    state, record = work.trainer.checkpoint()
    work.trainer.finish()
    if run.follows:
        return

    checkpoints.write(run.out("models/stable"), state, record)
    work.write(run, history)


if __name__ == "__main__":
    main()
