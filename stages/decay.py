"""Let the learning rate of a stable run fall to zero, and write the base model as a Hugging Face directory."""

from lib.backends.launch import launched
from lib.model import huggingface
from lib.pipeline.run import Run, stage
from lib.trainers import checkpoints
from lib.trainers.pretraining import Pretraining


@launched
@stage
def main(run: Run) -> None:
    seed, given, fraction = run.param("seed"), run.param("pretrain"), run.param("decay").fraction
    tokens, tokenizer, stable = run.dep("data/tokens"), run.dep("models/tokenizer"), run.dep("models/stable")

    work = Pretraining(run, run.param("model"), given, run.param("guards"), seed, tokens, tokenizer, fraction)
    if work.decay_steps:
        run.log(f"{work.decay_steps} steps of {work.settings.batch_tokens} tokens")
    else:
        run.log("no decay: the base is what pretrain gave")
    history = work.trainer.fit(lambda: checkpoints.begin_anew(*checkpoints.read_result(stable)))
    work.trainer.finish()
    if run.follows:
        return

    huggingface.save(work.trained(), tokenizer, run.out("models/base"))
    work.write(run, history)


if __name__ == "__main__":
    main()
