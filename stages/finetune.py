"""Fine-tune the base model on conversations with LoRA; write the adapter alone and the merged chat model."""

import json
import math
import shutil
from pathlib import Path

from tokenizers import Tokenizer

from lib.backends.launch import launched
from lib.backends.select import select_backend
from lib.model.huggingface import copy_tokenizer
from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_path
from lib.pipeline.run import Run, stage
from lib.tokenizer.chat_template import END_OF_TURN, PAD, encode_chat
from lib.trainers import lora, unsloth
from lib.trainers.finetuning import finetuning_engine
from lib.trainers.live import Meter
from lib.trainers.loader import Conversations
from lib.trainers.loop import Task, Trainer
from lib.trainers.optimizers import remarks
from lib.trainers.schedules import schedule


def read_conversations(path: Path, tokenizer: Tokenizer, longest: int) -> tuple[Conversations, int]:
    """The conversations of a JSONL file that fit into `longest` tokens, and how many did not."""
    with open(path, encoding="utf-8") as lines:
        encoded = [encode_chat(tokenizer, json.loads(line)["messages"]) for line in lines]
    fitting = [(ids, mask) for ids, mask in encoded if len(ids) <= longest]
    return Conversations(fitting, tokenizer.token_to_id(PAD)), len(encoded) - len(fitting)


@launched
@stage
def main(run: Run) -> None:
    seed, settings = run.param("seed"), run.param("finetune")
    base = run.dep("models/base")

    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    model = lora.load_base(base)
    longest = model.config.max_position_embeddings
    (train, too_long), (val, _) = (
        read_conversations(run.dep("data/chat") / f"{split}.jsonl", tokenizer, longest) for split in ("train", "val")
    )
    if not len(train) or not len(val):
        raise SmeltError(
            f"data/chat has {len(train)} conversations to train on and {len(val)} to validate with that fit into "
            f"{longest} tokens; both are needed. Raise the counts in `chat`, or add documents"
        )
    steps = math.ceil(settings.epochs * len(train) / settings.batch_rows)
    model = lora.add_adapter(model, settings, seed)
    trainable = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    run.log(f"{trainable:,} trainable parameters, {len(train)} conversations ({too_long} too long), {steps} steps")

    backend = select_backend(mlx=True)
    if unsloth.asked():
        model = unsloth.remake(model, base, longest, settings, seed, backend)
    for line in remarks(settings, backend):
        run.log(line)
    engine = finetuning_engine(backend, model, settings, seed, run.log)
    decay_steps = round(steps * settings.decay_fraction) if settings.schedule == "wsd" else 0
    factor = schedule(settings.schedule, settings.warmup_steps, steps - decay_steps, decay_steps)
    identity = {
        "base": hash_path(base),
        "chat": hash_path(run.dep("data/chat")),
        "seed": seed,
        "batch_rows": settings.batch_rows,
        "rank": settings.rank,
        "optimizer": settings.optimizer,
    }
    task = Task(train, val, settings.batch_rows, seed, steps, factor, identity, section="finetune")
    trainer = Trainer(run, engine, settings, run.param("guards"), task, Meter(backend, flops_per_token=None))
    untrained, _ = trainer.validate()
    history = trainer.fit()
    trainer.finish()
    if run.follows:
        return

    adapter = run.out("models/adapter")
    lora.save_adapter(model, "models/base", adapter)
    chat = run.out("models/chat")
    lora.merge(base, adapter).save_pretrained(chat)
    shutil.copyfile(base / "generation_config.json", chat / "generation_config.json")
    copy_tokenizer(base, chat, end=END_OF_TURN)
    history.write(run)
    run.metrics(
        {
            "trainable_parameters": trainable,
            "examples": len(train),
            "too_long": too_long,
            **trainer.report(),
            "val_loss_before": round(untrained, 4),
            "loss": round(history.train[-1]["loss"], 4),
            "val_loss": round(history.val[-1]["loss"], 4),
        }
    )


if __name__ == "__main__":
    main()
