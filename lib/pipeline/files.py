"""Files passed on from one output to another."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def link_folder(source: Path, target: Path) -> None:
    """Make `target` the same as `source`, without its bytes a second time: as hard links where the disk has them.

    Neither may be written to in place from then on. No stage does: outputs are made aside and renamed.
    """

    def link(file: str, to: str) -> None:
        try:
            os.link(os.path.realpath(file), to)  # what DVC checks out may be a symbolic link into its cache
        except OSError:  # another disk, or one without links
            shutil.copyfile(file, to)

    shutil.copytree(source, target, copy_function=link)
