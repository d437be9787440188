"""Make the input folders that are missing, the sources' and data/pairs: DVC takes a missing dependency for a mistake.

`make repro` and `make exp` run it first, so that a new source is one entry of params.yaml and nothing more. With
`--crawled` it also stops when a web source still has to be crawled: an experiment in a temporary workspace would keep
the pages there, and lose them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lib.params import load as parameters
from lib.params.sources import WebSource
from lib.sources import crawl

PAIRS = "data/pairs"  # what preferences.from: files reads


def make(root: Path) -> list[str]:
    """Make the missing folders below `root`; which ones comes back.

    Raises:
        ParamsError: params.yaml is not valid.
    """
    sources = parameters.load(root / "params.yaml").sources.values()
    missing = sorted({PAIRS, *(source.input for source in sources)})
    missing = [folder for folder in missing if not (root / folder).is_dir()]
    for folder in missing:
        (root / folder).mkdir(parents=True)
    return missing


def not_crawled(root: Path) -> list[str]:
    """Names of the web sources whose crawl is not complete."""
    sources = parameters.load(root / "params.yaml").sources
    web = {name: source for name, source in sources.items() if isinstance(source, WebSource)}
    return [name for name, source in web.items() if not crawl.is_complete(root / source.input, source)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lib.inputs", description="Make missing input folders of sources.")
    parser.add_argument("--crawled", action="store_true", help="stop when a web source still has to be crawled")
    crawled = parser.parse_args().crawled
    try:
        for folder in make(Path.cwd()):
            print(f"made the empty folder {folder}")
        if crawled and (names := not_crawled(Path.cwd())):
            first = " && ".join(f"make crawl SOURCE={name}" for name in names)
            sys.exit(f"inputs: error: an experiment in a workspace of its own needs the pages first: {first}")
    except parameters.ParamsError as error:
        sys.exit(f"inputs: error: {error}")
    except FileExistsError as error:
        sys.exit(f"inputs: error: {error.filename} is a file, but params.yaml names it as the input folder of a source")


if __name__ == "__main__":
    main()
