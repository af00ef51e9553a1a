"""apk (Alpine, Wolfi): one text file, a paragraph a package.

`P` names it, `o` its source package, `F` a directory, `R` a file in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from build_oci.split.sources.packages import Package, source_name
from build_oci.split.tree import TreeIndex

DATABASES = (b"lib/apk/db/installed", b"usr/lib/apk/db/installed")
_MOST_BYTES = 256 << 20


def packages(tree: TreeIndex, warn: Callable[[str], None]) -> Iterator[Package]:
    """The packages of the data base in their order there."""
    found = {index for path in DATABASES if (index := tree.find(path)) is not None}
    for index in sorted(found):
        yield from _read(tree, tree.paths[index])


def _read(tree: TreeIndex, path: bytes) -> Iterator[Package]:
    name = origin = b""
    directory = b""
    files: dict[int, None] = {}
    for number, line in enumerate(_with_end(tree.lines(path, _MOST_BYTES)), 1):
        if not line:
            if name:
                yield Package(source_name(tree, path, origin or name), files)
            elif files:
                raise tree.broken(path, f"the package that ends in line {number} has no name")
            name = origin = directory = b""
            files = {}
            continue
        if line[1:2] != b":":
            raise tree.broken(path, f"line {number} is not of the form `X:value`")
        key, value = line[:1], line[2:]
        if key == b"P":
            name = value
        elif key == b"o":
            origin = value
        elif key in (b"F", b"R"):
            directory = value if key == b"F" else directory
            entry = tree.find(value if key == b"F" or not directory else directory + b"/" + value)
            # Only what the tree has is remembered, so that no data base can name files beyond all
            # bounds.
            if entry is not None:
                files[entry] = None


def _with_end(lines: Iterator[bytes]) -> Iterator[bytes]:
    """LINES, and the empty one that ends the last paragraph even where the file leaves it out."""
    yield from lines
    yield b""
