"""Fine-tune the base model on conversations with LoRA; write the adapter alone and the merged chat model."""

import math
import shutil

from lib.backends.launch import launched
from lib.backends.precision import apply_precision
from lib.backends.select import select_backend
from lib.model.huggingface import copy_tokenizer
from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_path
from lib.pipeline.run import Run, stage
from lib.tokenizer.rendering import ChatRenderer
from lib.trainers import lora
from lib.trainers.activations import checkpoint_activations
from lib.trainers.chat_data import read_examples
from lib.trainers.engine import TorchEngine
from lib.trainers.live import Meter
from lib.trainers.loader import Conversations
from lib.trainers.loop import Task, Trainer
from lib.trainers.objectives import Chat, sees_neighbours
from lib.trainers.optimizers import for_finetuning, remarks
from lib.trainers.schedules import schedule


@launched
@stage
def main(run: Run) -> None:
    seed, settings = run.param("seed"), run.param("finetune")
    base = run.dep("models/base")

    renderer = ChatRenderer.from_folder(base)
    model = lora.load_base(base)
    longest, data = model.config.max_position_embeddings, run.dep("data/chat")
    packed = not sees_neighbours(model)
    files = [data / "train.jsonl", *data.glob("text.jsonl")]
    examples, tally = read_examples(files, renderer, longest)
    held_out, val_tally = read_examples([data / "val.jsonl"], renderer, longest)
    train, val = (Conversations(found, renderer.pad, packed) for found in (examples, held_out))
    if not len(train) or not len(val):
        raise SmeltError(
            f"data/chat has {len(train)} examples to train on and {len(val)} to validate with that fit into {longest} "
            f"tokens; both are needed. Left out: {dict(tally.dropped + val_tally.dropped)}"
        )
    steps = math.ceil(settings.epochs * len(train) / settings.batch_rows)
    model = lora.add_adapter(model, settings, seed)
    trainable = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    run.log(f"{trainable:,} trainable parameters, {len(train)} examples, {steps} steps")
    run.log(f"of {tally.rows} rows {tally.whole} whole, {tally.cut} cut, {tally.dropped.total()} dropped")
    if not packed:
        run.log("this model sees its neighbours in a packed row, so every example has a row of its own")

    backend = select_backend()
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

    lora.save_adapter(model, "models/base", run.out("models/adapter"))
    chat = run.out("models/chat")
    lora.merge(model).save_pretrained(chat)
    shutil.copyfile(base / "generation_config.json", chat / "generation_config.json")
    copy_tokenizer(base, chat, end=renderer.template.ends[0])
    history.write(run)
    run.metrics(
        {
            "trainable_parameters": trainable,
            "examples": len(train),
            "packed": packed,
            "data": tally.metrics(),
            **trainer.report(),
            "val_loss_before": round(untrained, 4),
            "loss": round(history.train[-1]["loss"], 4),
            "val_loss": round(history.val[-1]["loss"], 4),
        }
    )


if __name__ == "__main__":
    main()
