"""alpm (Arch Linux): a folder for each package with `desc` and `files`, in which a line `%KEY%`
begins a list that an empty line ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

from build_oci.split.sources.packages import Package, source_name
from build_oci.split.tree import TreeIndex

DATABASES = (b"var/lib/pacman/local", b"usr/lib/pacman/local")
_MOST_BYTES = 64 << 20


def packages(tree: TreeIndex, warn: Callable[[str], None]) -> Iterator[Package]:
    """The packages in the order of their folders' names; what lies in its folder belongs to a
    package as well.
    """
    real = {tree.real_directory(path) for path in DATABASES} - {None}
    for database in sorted(path for path in real if path is not None):
        records: dict[bytes, list[int]] = {}
        for index in tree.below(database):
            folder, slash, _ = tree.paths[index][len(database) + 1 :].partition(b"/")
            if slash:
                records.setdefault(folder, []).append(index)
        for folder, own in sorted(records.items()):
            base = database + b"/" + folder
            desc, files = base + b"/desc", base + b"/files"
            if tree.entry(desc) is None:
                raise tree.broken(base, "the record of a package has no `desc`")
            listed = _values(tree, files, b"%FILES%") if tree.entry(files) is not None else ()
            yield Package(_source(tree, desc), chain(own, map(tree.find, listed)))


def _source(tree: TreeIndex, desc: bytes) -> str:
    name = base = b""
    key = b""
    for line in tree.lines(desc, _MOST_BYTES):
        if key == b"%NAME%" and not name:
            name = line
        elif key == b"%BASE%" and not base:
            base = line
        key = line if line.startswith(b"%") else b""
    if not name:
        raise tree.broken(desc, "has no `%NAME%`")
    return source_name(tree, desc, base or name)


def _values(tree: TreeIndex, path: bytes, wanted: bytes) -> Iterator[bytes]:
    key = b""
    for number, line in enumerate(tree.lines(path, _MOST_BYTES), 1):
        if not line:
            key = b""
        elif not key:
            if not (line.startswith(b"%") and line.endswith(b"%")):
                raise tree.broken(path, f"line {number} belongs to no list")
            key = line
        elif key == wanted:
            yield line
