"""Let the learning rate of a stable run fall to zero, and write the base model as a Hugging Face directory."""

from lib.backends.launch import launched
from lib.model import huggingface
from lib.pipeline.run import Run, stage
from lib.trainers import checkpoints
from lib.trainers.pretraining import Pretraining, stable_steps
from lib.trainers.schedules import decay_steps


@launched
@stage
def main(run: Run) -> None:
    seed, settings, decay = run.param("seed"), run.param("pretrain"), run.param("decay")
    tokens, tokenizer = run.dep("data/tokens"), run.dep("models/tokenizer")

    steps = decay_steps(stable_steps(settings), decay.fraction)
    work = Pretraining(run, run.param("model"), settings, seed, tokens, tokenizer, steps)
    trainer = work.trainer
    run.log(f"{steps} steps of {settings.batch_tokens} tokens" if steps else "no decay: the base is the stable model")
    state, record = checkpoints.read_whole(run.dep("models/stable"))
    history = trainer.fit(start=(state, {**record, "history": {}}))
    trainer.finish()
    if run.follows:
        return

    huggingface.save(work.model, tokenizer, run.out("models/base"))
    history.write(run)
    run.metrics(
        {
            "parameters": work.config.parameters,
            "flops_per_token": work.config.flops_per_token,
            "tokens": trainer.tokens,
            "epochs": round(work.epochs, 3),
            "steps": work.steps,
            "loss": round(history.train[-1]["loss"], 4) if steps else None,
            "val_loss": round(history.val[-1]["loss"], 4),
        }
    )


if __name__ == "__main__":
    main()
