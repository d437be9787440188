"""Teach the chat model which of two answers is better (DPO or ORPO); without pairs, pass it on as it is."""

import math
import shutil

from lib.backends.launch import launched
from lib.pipeline.errors import SmeltError
from lib.pipeline.files import link_folder
from lib.pipeline.hashes import hash_path
from lib.pipeline.run import Run, stage


@launched
@stage
def main(run: Run) -> None:
    seed = run.param("seed")
    sft, data = run.dep("models/sft"), run.dep("data/preferences")
    if not (data / "train.jsonl").stat().st_size:
        if not run.follows:
            run.log("there are no preference pairs: models/chat is models/sft as it is")
            link_folder(sft, run.out("models/chat"))
            for name in ("train", "val"):
                run.out(f"reports/prefer/{name}.csv").write_text("step,tokens,loss\n", encoding="utf-8")
            run.metrics({"pairs": 0})
        return

    # Here, so that a line without pairs does not wait for them.
    import numpy as np
    import torch

    from lib.backends.precision import apply_precision, choose_precision
    from lib.backends.select import select_backend
    from lib.tokenizer.rendering import ChatRenderer
    from lib.trainers import adapters, bases, lora
    from lib.trainers.activations import checkpoint_activations
    from lib.trainers.engine import TorchEngine
    from lib.trainers.live import Meter
    from lib.trainers.loop import Task, Trainer
    from lib.trainers.optimizers import for_finetuning, remarks, resolve
    from lib.trainers.pairs import Pairs, read_pairs
    from lib.trainers.preferences import Preference
    from lib.trainers.schedules import schedule

    backend = select_backend()
    settings = resolve(run.param("prefer"), backend)

    # The pairs, in the model's own tokens
    renderer = ChatRenderer.from_folder(sft)
    model = bases.load(sft)
    longest = model.config.max_position_embeddings
    (train, too_long), (val, val_too_long) = (
        read_pairs(data / f"{split}.jsonl", renderer.encode, longest) for split in ("train", "val")
    )
    if not train or not val:
        raise SmeltError(
            f"data/preferences has {len(train)} pairs to train on and {len(val)} to validate with that fit into "
            f"{longest} tokens; both are needed. Left out: {too_long} and {val_too_long} that are too long"
        )
    train, val = Pairs(train, renderer.pad), Pairs(val, renderer.pad)

    # What is trained
    steps = math.ceil(settings.epochs * len(train) / settings.batch_rows)
    if settings.method == "qlora":
        bf16 = choose_precision(settings.precision, backend) == "bf16"
        lora.quantise(model, backend.device, torch.bfloat16 if bf16 else torch.float32)
    if settings.method != "full":
        model = lora.add_adapter(model, settings, seed)
    if settings.method == "qlora":
        model.to(backend.device)  # where its quantised layers are already
    trainable = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    run.log(
        f"{settings.loss}: {trainable:,} trainable parameters, {len(train)} pairs ({too_long} too long), {steps} steps"
    )
    for line in remarks(settings, backend):
        run.log(line)
    optimizers = for_finetuning(model, settings, backend)
    precision = apply_precision(model, backend, settings.precision)
    if settings.activation_checkpointing:
        checkpoint_activations(model)
    objective = Preference(model, settings.loss, settings.beta)
    engine = TorchEngine(backend, objective, optimizers, seed, precision, compiles=False, say=run.log)

    # The model as it comes is the reference
    if settings.loss == "dpo":
        for name, pairs in (("train", train), ("val", val)):
            pairs.refer_to(engine, run.scratch / f"reference_{name}.npy")

    decay_steps = round(steps * settings.decay_fraction) if settings.schedule == "wsd" else 0
    factor = schedule(settings.schedule, settings.warmup_steps, steps - decay_steps, decay_steps)
    identity = {
        "base": hash_path(sft),
        "pairs": hash_path(data),
        "seed": seed,
        "batch_rows": settings.batch_rows,
        "loss": settings.loss,
        "beta": settings.beta,
        "method": settings.method,
        "rank": settings.rank,
        "optimizer": settings.optimizer,
    }
    task = Task(
        train,
        val,
        settings.batch_rows,
        seed,
        steps,
        factor,
        identity,
        section="prefer",
        measure=objective.measure,
        patience=settings.patience,
    )
    trainer = Trainer(run, engine, settings, run.param("guards"), task, Meter(backend, flops_per_token=None))
    history = trainer.fit()
    trainer.finish()
    if run.follows:
        return

    chat = run.out("models/chat")
    if settings.method != "full":
        adapter = run.scratch / "adapter"
        adapters.save(model, sft, "models/sft", adapter)
        # Into the model as it came, not as it was held while training.
        tokens = val.rows(np.arange(min(2, len(val)))).inputs
        model = lora.merge(adapters.open_adapters(sft, {"default": adapter}), tokens)
    model.save_pretrained(chat)
    for file in sft.iterdir():  # tokenizer, template, generation settings: all but the weights
        if file.suffix != ".safetensors" and file.name not in ("config.json", "model.safetensors.index.json"):
            shutil.copyfile(file, chat / file.name)
    history.write(run)
    run.metrics(
        {
            "pairs": len(train),
            "too_long": too_long,
            "trainable_parameters": trainable,
            **trainer.report(),
            "loss": round(history.train[-1]["loss"], 4),
            **{f"val_{name}": round(trainer.kept[name], 4) for name in ("loss", "accuracy", "margin")},
        }
    )


if __name__ == "__main__":
    main()
