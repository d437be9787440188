"""Write the chat model as others run it: hf (transformers, vLLM), adapter (peft, llama.cpp), gguf (llama.cpp), onnx
(onnxruntime) or mlx (mlx-lm), with its lineage inside. What is left of the model in each file is measured beside
transformers, and the model card says it."""

import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from lib.export import adapter, gguf, huggingface, model_card, parity, samples
from lib.export.lineage import combine
from lib.export.runtimes import LlamaCpp, Mlx, OnnxRuntime, Runtime, Transformers
from lib.pipeline.offline import stay_offline
from lib.pipeline.run import Run, stage


@stage
def main(run: Run) -> None:
    stay_offline()
    model, threads = run.dep("models/chat"), run.workers
    name, asked, settings = run.param("export.name"), run.param("export.parity"), run.param(f"export.{run.item}")
    folder, files = run.out(f"models/export/{run.item}"), {}
    if settings is None:
        run.log(f"export.{run.item} is null: not exported")
        model_card.write_none(folder, f"`export.{run.item}` is null in params.yaml.")
        run.metrics({"files": files})
        return

    # Where it comes from
    stages = [
        json.loads(run.dep(f"reports/{name}/lineage.json").read_text())
        for name in ("mix", "pretrain", "decay", "finetune", "prefer")
    ]
    mixture = json.loads(run.dep("reports/mix/metrics.json").read_text())["mix"]["sources"]
    about_base = model / "base.json"  # where others made it
    foreign = json.loads(about_base.read_text()) if about_base.exists() else None
    lineage = combine(stages, mixture, foreign)

    # The files, and what runs each
    window = samples.find_window(model)
    runtimes: dict[str, tuple[Path, Callable[[], Runtime] | None]] = {}
    if run.item == "hf":
        huggingface.export(model, folder, settings.dtype, lineage)
        runtimes[settings.dtype] = folder, partial(Transformers, folder, threads)
    elif run.item == "gguf":
        rows = samples.calibration(run.dep("data/mix/val"), model, settings.calibration_bytes)
        made = gguf.export(model, folder, name, settings.dtype, settings.quantisations, rows, lineage, threads)
        runtimes = {kind: (path, partial(LlamaCpp, path, window, threads)) for kind, path in made.items()}
    elif run.item == "onnx":
        from lib.export import onnx

        made = onnx.export(model, folder, settings.int8, lineage)
        runtimes = {kind: (path, partial(OnnxRuntime, path, threads)) for kind, path in made.items()}
    elif run.item == "mlx":
        from lib.export import mlx

        made = mlx.export(model, folder, name, settings.bits, settings.group_size, settings.dtype, lineage)
        runtimes = {kind: (path, partial(Mlx, path)) for kind, path in made.items()}
    else:
        tuned = run.dep("models/adapter")
        if not (tuned / adapter.WEIGHTS).exists():
            run.log("finetune.method is full: there is no adapter")
            model_card.write_none(folder, "`finetune.method` is full: every weight was trained, and hf has them all.")
            run.metrics({"files": files})
            return
        lineage = combine(stages[:-1], mixture, foreign)
        adapter.export(tuned, model, folder, lineage)
        runtimes["peft"] = folder / adapter.WEIGHTS, None
        if settings.gguf and (problem := adapter.why_not(tuned)):
            run.log(f"no GGUF file of the adapter: {problem}")
        elif settings.gguf:
            beside, base = folder / f"{name}-lora-F16.gguf", folder / f"{name}-base-F16.gguf"
            adapter.write_gguf(tuned, model, beside, name, lineage)
            runtimes["lora-F16"] = beside, None
            if settings.base and foreign is None:
                gguf.write(run.dep("models/base"), model, base, f"{name}-base", "F16", combine(stages[:3], mixture))
                # Together they are the chat model, unless preferences changed it afterwards.
                if not json.loads(run.dep("reports/prefer/metrics.json").read_text())["prefer"]["pairs"]:
                    runtimes["lora-F16"] = beside, partial(LlamaCpp, base, window, threads, beside)
                runtimes["base-F16"] = base, None

    # What is left of the model in them
    sample = samples.take(run.dep("data/mix/test"), run.dep("data/chat/test.jsonl"), model, asked)
    logits = run.scratch / "logits"
    logits.mkdir(exist_ok=True)
    reference = parity.Reference(Transformers(model, threads, "float32"), sample, logits)
    plain: parity.Reading | None = None
    seen = {}
    for variant, (path, runtime) in run.progress(list(runtimes.items()), len(runtimes), "file"):
        parts = path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.name}*")
        files[variant] = {"bytes": sum(part.stat().st_size for part in parts if part.is_file())}
        if runtime:
            reading, difference = reference.compare(runtime())
            plain = plain or reading
            files[variant] |= parity.metrics(sample, reading, reference, plain)
            seen[variant] = parity.observed(reading, difference)

    # What the card says
    languages: Counter[str] = Counter()
    for path in run.declared.data:
        if path.startswith("reports/clean/") and (source := path.split("/")[2]) in lineage.sources:
            languages.update(json.loads(run.dep(path).read_text())["clean"][source]["languages"])
    evaluated = json.loads(run.dep("reports/evaluate/chat/metrics.json").read_text())["evaluate"]["chat"]
    spoken = [code for code, number in languages.most_common() if number >= 0.01 * languages.total()]
    pii = {source: entry["pii"] for source, entry in stages[0]["params"]["sources"].items()}
    context = samples.context(model)
    model_card.write(folder, name, lineage, model_card.About(run.item, evaluated, spoken, pii, files, context))

    run.observed["variants"] = seen
    run.metrics({"files": files})
    sizes = ", ".join(f"{variant} {figures['bytes']:,} bytes" for variant, figures in files.items())
    run.log(f"{sizes}; licence: {lineage.licence}")


if __name__ == "__main__":
    main()
