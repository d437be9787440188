"""Write the chat model as others run it, hf (transformers, vLLM, MLX) or gguf (llama.cpp), with its lineage inside."""

import json

from lib.export import gguf, huggingface
from lib.export.lineage import combine
from lib.pipeline.run import Run, stage


@stage
def main(run: Run) -> None:
    model = run.dep("models/chat")
    settings = run.param(f"export.{run.item}")
    stages = [
        json.loads(run.dep(f"reports/{name}/lineage.json").read_text())
        for name in ("mix", "pretrain", "decay", "finetune", "prefer")
    ]
    mixture = json.loads(run.dep("reports/mix/metrics.json").read_text())["mix"]["sources"]
    base = model / "base.json"  # where others made it
    lineage = combine(stages, mixture, json.loads(base.read_text()) if base.exists() else None)
    name, folder = run.param("export.name"), run.out(f"models/export/{run.item}")

    if run.item == "hf":
        huggingface.export(model, folder, name, settings.dtype, lineage)
        run.metrics({"bytes": sum(file.stat().st_size for file in folder.iterdir())})
    else:
        files = gguf.export(model, folder, name, settings.quantisations, lineage, run.workers)
        run.metrics({"files": {kind: {"bytes": path.stat().st_size} for kind, path in files.items()}})
    run.log(f"{', '.join(sorted(file.name for file in folder.iterdir()))}; licence: {lineage.licence}")


if __name__ == "__main__":
    main()
