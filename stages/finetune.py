"""Teach a base model to answer conversations, by LoRA or in all its weights; write the adapter and the chat model."""

import json
import math
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from lib.backends.launch import launched
from lib.backends.precision import apply_precision, choose_precision
from lib.backends.select import select_backend
from lib.model.huggingface import copy_tokenizer
from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_path
from lib.pipeline.run import Run, stage
from lib.tokenizer.chat_template import encode_chat
from lib.trainers import adapters, base_tokenizer, bases, lora
from lib.trainers.activations import checkpoint_activations
from lib.trainers.engine import TorchEngine
from lib.trainers.live import Meter
from lib.trainers.loader import Conversations
from lib.trainers.loop import Task, Trainer
from lib.trainers.objectives import Chat
from lib.trainers.optimizers import for_finetuning, remarks, resolve
from lib.trainers.schedules import schedule


def read_conversations(path: Path, folder: Path, longest: int) -> tuple[Conversations, int]:
    """The conversations of a JSONL file that fit into `longest` tokens, and how many did not."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    pad = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["pad_token"]
    with open(path, encoding="utf-8") as lines:
        encoded = [encode_chat(tokenizer, json.loads(line)["messages"]) for line in lines]
    fitting = [(ids, mask) for ids, mask in encoded if len(ids) <= longest]
    return Conversations(fitting, tokenizer.token_to_id(pad)), len(encoded) - len(fitting)


@launched
@stage
def main(run: Run) -> None:
    seed, backend = run.param("seed"), select_backend()
    settings = resolve(run.param("finetune"), backend)
    base = run.dep(settings.base)

    # The base, with its own tokenizer and template
    model = bases.load(base)
    tokenizer = run.scratch / "tokenizer"
    end = base_tokenizer.write(base, tokenizer)
    longest = model.config.max_position_embeddings
    (train, too_long), (val, _) = (
        read_conversations(run.dep("data/chat") / f"{split}.jsonl", tokenizer, longest) for split in ("train", "val")
    )
    if not len(train) or not len(val):
        raise SmeltError(
            f"data/chat has {len(train)} conversations to train on and {len(val)} to validate with that fit into "
            f"{longest} tokens; both are needed. Raise the counts in `chat`, or add documents"
        )

    # What of it is trained
    if settings.method == "qlora":
        bf16 = choose_precision(settings.precision, backend) == "bf16"
        lora.quantise(model, backend.device, torch.bfloat16 if bf16 else torch.float32)
    if settings.method != "full":
        model = lora.add_adapter(model, settings, seed)
    trainable = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    steps = math.ceil(settings.epochs * len(train) / settings.batch_rows)
    run.log(f"{settings.method} on {settings.base}: {trainable:,} trainable parameters")
    run.log(f"{len(train)} conversations ({too_long} too long), {steps} steps")

    for line in remarks(settings, backend):
        run.log(line)
    optimizers = for_finetuning(model, settings, backend)
    precision = apply_precision(model, backend, settings.precision)
    if settings.activation_checkpointing:
        checkpoint_activations(model)
    engine = TorchEngine(backend, Chat(model), optimizers, seed, precision, compiles=False, say=run.log)
    decay_steps = round(steps * settings.decay_fraction) if settings.schedule == "wsd" else 0
    factor = schedule(settings.schedule, settings.warmup_steps, steps - decay_steps, decay_steps)
    identity = {
        "base": hash_path(base),
        "chat": hash_path(run.dep("data/chat")),
        "seed": seed,
        "batch_rows": settings.batch_rows,
        "method": settings.method,
        "rank": settings.rank,
        "optimizer": settings.optimizer,
    }
    task = Task(
        train, val, settings.batch_rows, seed, steps, factor, identity, section="finetune", patience=settings.patience
    )
    trainer = Trainer(run, engine, settings, run.param("guards"), task, Meter(backend, flops_per_token=None))
    untrained, _ = trainer.validate()
    history = trainer.fit()
    trainer.finish()
    if run.follows:
        return

    # The adapter alone, and the chat model: both in one, and that is checked
    if settings.method == "full":
        adapters.save_none(run.out("models/adapter"))
    else:
        adapter = run.out("models/adapter")
        adapters.save(model, base, settings.base, adapter)
        # Into the base as it was given, not as it was held while training.
        model = lora.merge(
            adapters.open_adapters(base, {"default": adapter}), val.rows(np.arange(min(4, len(val)))).inputs
        )
    chat = run.out("models/sft")
    model.save_pretrained(chat)
    copy_tokenizer(tokenizer, chat, end)
    base_tokenizer.write_generation(base, chat)
    bases.write_card(base, settings.base, chat)

    history.write(run)
    run.metrics(
        {
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "trainable_parameters": trainable,
            "examples": len(train),
            "too_long": too_long,
            **trainer.report(),
            "val_loss_before": round(untrained, 4),
            "loss": round(history.train[-1]["loss"], 4),
            "val_loss": round(trainer.kept["loss"], 4),
        }
    )


if __name__ == "__main__":
    main()
