"""Teach a base model to answer conversations, by LoRA or in all its weights; write the adapter and the chat model."""

import math

import numpy as np
import torch

from lib.backends.launch import launched
from lib.backends.precision import choose_precision
from lib.backends.select import select_backend
from lib.model.huggingface import copy_tokenizer
from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_path
from lib.pipeline.run import Run, stage
from lib.tokenizer.rendering import ChatRenderer
from lib.trainers import adapters, base_tokenizer, bases, lora, unsloth
from lib.trainers.chat_data import read_examples
from lib.trainers.finetuning import finetuning_engine
from lib.trainers.live import Meter
from lib.trainers.loader import Conversations
from lib.trainers.loop import Task, Trainer
from lib.trainers.optimizers import remarks, resolve
from lib.trainers.schedules import schedule
from lib.trainers.text import Sampler


@launched
@stage
def main(run: Run) -> None:
    seed, backend = run.param("seed"), select_backend(mlx=True)
    settings = resolve(run.param("finetune"), backend)
    base = run.dep(settings.base)

    # The base, with its own tokenizer and template, and what it is to learn
    model = bases.load(base)
    tokenizer = run.scratch / "tokenizer"
    end = base_tokenizer.write(base, tokenizer)
    renderer, data = ChatRenderer.from_folder(tokenizer), run.dep("data/chat")
    longest = min(settings.context_length or math.inf, model.config.max_position_embeddings)
    examples, tally = read_examples([data / "train.jsonl", *data.glob("text.jsonl")], renderer, longest)
    held_out, val_tally = read_examples([data / "val.jsonl"], renderer, longest)
    train, val = (Conversations(found, renderer.pad) for found in (examples, held_out))
    if not len(train) or not len(val):
        raise SmeltError(
            f"data/chat has {len(train)} examples to train on and {len(val)} to validate with that fit into {longest} "
            f"tokens; both are needed. Left out: {dict(tally.dropped + val_tally.dropped)}"
        )

    # What of it is trained
    if settings.method == "qlora":
        bf16 = choose_precision(settings.precision, backend) == "bf16"
        lora.quantise(model, backend.device, torch.bfloat16 if bf16 else torch.float32)
    if settings.method != "full":
        model = lora.add_adapter(model, settings, seed)
    if unsloth.asked():
        model = unsloth.remake(model, base, longest, settings, seed, backend)
    trainable = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    steps = math.ceil(settings.epochs * len(train) / settings.batch_rows)
    steps = min(steps, settings.max_steps or steps)
    run.log(f"{settings.method} on {settings.base}: {trainable:,} trainable parameters")
    run.log(f"{len(train)} examples, {steps} steps")
    run.log(f"of {tally.rows} rows {tally.whole} whole, {tally.cut} cut, {tally.dropped.total()} dropped")

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
        "method": settings.method,
        "rank": settings.rank,
        "optimizer": settings.optimizer,
    }

    def question(prompt: str) -> list[int]:
        return renderer.prompt([{"role": "user", "content": prompt}])

    task = Task(
        train, val, settings.batch_rows, seed, steps, factor, identity, "finetune",
        sampler=Sampler(tokenizer, settings.samples, longest, question, end), patience=settings.patience,
    )  # fmt: skip
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
    run.report("samples.json", history.samples)
    run.metrics(
        {
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "trainable_parameters": trainable,
            "examples": len(train),
            "data": tally.metrics(),
            **trainer.report(),
            "val_loss_before": round(untrained, 4),
            "loss": round(history.train[-1]["loss"], 4),
            "val_loss": round(trainer.kept["loss"], 4),
        }
    )


if __name__ == "__main__":
    main()
