"""Prints the files of a model folder with size and sha256, as TOML for sdq's catalog.

python manifest.py [FOLDER]      (the shipped weights unless a folder is named)
"""

import argparse
import hashlib
from pathlib import Path

import sdq_shapes

ENTRY = """\
[[files]]
path = "{path}"
size_bytes = {size}
sha256 = "{sha256}"
links = ["builtin:shapes/{path}"]
"""


def entries(folder: Path) -> list[str]:
    """One TOML table for every file under the folder, in the order of the paths."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        ENTRY.format(
            path=file.relative_to(folder).as_posix(),
            size=file.stat().st_size,
            sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        )
        for file in found
    ]


def main() -> None:
    """Command line: see the top of this file."""
    parser = argparse.ArgumentParser(description="Lists a model's files as TOML.")
    parser.add_argument("folder", nargs="?", type=Path, default=sdq_shapes.folder())
    print("\n".join(entries(parser.parse_args().folder)), end="")


if __name__ == "__main__":
    main()
