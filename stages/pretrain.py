"""Train the decoder from scratch on the packed tokens, up to where the learning rate begins to fall (`decay`)."""

from lib.backends.launch import launched
from lib.pipeline.run import Run, stage
from lib.trainers import checkpoints
from lib.trainers.pretraining import Pretraining


@launched
@stage
def main(run: Run) -> None:
    seed, settings = run.param("seed"), run.param("pretrain")
    tokens, tokenizer = run.dep("data/tokens"), run.dep("models/tokenizer")

    work = Pretraining(run, run.param("model"), settings, seed, tokens, tokenizer)
    config, trainer = work.config, work.trainer
    run.log(
        f"{config.parameters:,} parameters, {work.steps} steps of {settings.batch_tokens} tokens, "
        f"{work.epochs:.2f} epochs"
    )
    history = trainer.fit()
    state, record = trainer.checkpoint()
    trainer.finish()
    if run.follows:
        return

    checkpoints.write(run.out("models/stable"), state, record)
    history.write(run)
    run.metrics(
        {
            "parameters": config.parameters,
            "flops_per_token": config.flops_per_token,
            "tokens": trainer.tokens,
            "epochs": round(work.epochs, 3),
            "steps": work.steps,
            "loss": round(history.train[-1]["loss"], 4),
            "val_loss": round(history.val[-1]["loss"], 4),
        }
    )


if __name__ == "__main__":
    main()
