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
    tokens, tokenizer, stable = run.dep("data/tokens"), run.dep("models/tokenizer"), run.dep("models/stable")

    steps = decay_steps(stable_steps(settings), decay.fraction)
    work = Pretraining(run, run.param("model"), settings, run.param("guards"), seed, tokens, tokenizer, steps)
    run.log(f"{steps} steps of {settings.batch_tokens} tokens" if steps else "no decay: the base is the stable model")
    history = work.trainer.fit(lambda: checkpoints.begin_anew(*checkpoints.read_result(stable)))
    work.trainer.finish()
    if run.follows:
        return

    huggingface.save(work.model, tokenizer, run.out("models/base"))
    work.write(run, history)


if __name__ == "__main__":
    main()
