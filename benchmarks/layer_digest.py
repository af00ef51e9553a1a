"""What a layer holds, as one digest."""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def unpacked(layer: Path) -> Iterator[Any]:
    """The archive in a layer, whatever its compression."""
    magic = layer.open("rb").read(4)
    if magic == b"\x28\xb5\x2f\xfd":
        import zstandard

        with layer.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
            yield stream
    elif magic[:2] == b"\x1f\x8b":
        with gzip.open(layer, "rb") as stream:
            yield stream
    else:
        with layer.open("rb") as stream:
            yield stream


def tree_in(layer: Path) -> str:
    """A digest of what a layer holds: names, types, modes, owners, links and content, whatever the
    order and the times.
    """
    found: dict[str, tuple[Any, ...]] = {}
    linked: dict[str, list[str]] = {}
    with (
        unpacked(layer) as stream,
        tarfile.open(fileobj=stream, mode="r|", errors="surrogateescape") as tar,
    ):
        for info in tar:
            name = os.path.normpath("/" + info.name)
            if info.islnk():
                linked.setdefault(os.path.normpath("/" + info.linkname), []).append(name)
                continue
            content = hashlib.sha256()
            if info.isreg() and (file := tar.extractfile(info)):
                while piece := file.read(1 << 20):
                    content.update(piece)
            kind = "file" if info.isreg() else str(info.type)
            found[name] = (
                kind,
                info.mode & 0o7777,
                info.uid,
                info.gid,
                info.linkname,
                content.hexdigest(),
            )
    # Which name of a file comes first is the archiver's choice.
    for first, others in linked.items():
        names = sorted([first, *others])
        for name in names:
            found[name] = (*found[first][:6], names)
    found.pop("/", None)
    return hashlib.sha256(
        repr(sorted(found.items())).encode("utf-8", "surrogateescape")
    ).hexdigest()
