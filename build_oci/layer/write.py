"""One layer's way into a blob: the diff_id of the archive, its compression, the digest of what comes out, side by side."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from build_oci.compression import encoder
from build_oci.oci import LAYER_MEDIA_TYPES, Descriptor
from build_oci.pool import Strand

if TYPE_CHECKING:
    from build_oci.config import Compression
    from build_oci.layer.pack import Packer, Segment
    from build_oci.layout import Layout
    from build_oci.pool import Task
    from build_oci.workers import Workers


class Layer(NamedTuple):
    """A layer in the layout: its blob, and the digest and size in bytes of the archive inside."""

    descriptor: Descriptor
    diff_id: str
    archive_size: int


def write_layer(
    packer: Packer,
    layout: Layout,
    workers: Workers,
    *,
    compression: Compression,
    level: int | None,
    epoch: int | None,
    written: Callable[[int], None] = lambda size: None,
) -> Layer:
    """Compress the archive of PACKER into a blob of LAYOUT while it is being made; WRITTEN is told how many bytes of it are.

    Raises OutputError, and what PACKER raises.
    """
    size = 0
    with closing(packer.segments()) as segments, layout.blob() as blob:
        hashing = _Hashing(Strand(workers.pool))
        # What is stored as it is has one digest for both.
        plain = compression == "disabled"
        sink = blob.append if plain else blob.write
        compressed = encoder(compression, level, sink, pool=workers.pool, workers=workers.count, epoch=epoch)
        for segment in segments:
            compressed.write(segment.data)
            hashing.update(segment)
            size += segment.size
            written(size)
        compressed.finish()
        diff_id = hashing.hexdigest()
        blob.finish(diff_id if plain else None)
    return Layer(Descriptor(LAYER_MEDIA_TYPES[compression], blob.digest, blob.size), f"sha256:{diff_id}", size)


class _Hashing:
    """The SHA-256 of a stream of segments, by a thread beside ours, which releases them."""

    def __init__(self, strand: Strand) -> None:
        self._strand = strand
        self._hash: Any = hashlib.sha256()
        self._under_way: deque[Task[None]] = deque()

    def update(self, segment: Segment) -> None:
        """Take SEGMENT in. Raises what went wrong with one before."""
        self._under_way.append(self._strand.submit(self._take, segment))
        while self._under_way[0].done():
            self._under_way.popleft().result()
            if not self._under_way:
                break

    def hexdigest(self) -> str:
        for task in self._under_way:
            task.result()
        return str(self._hash.hexdigest())

    def _take(self, segment: Segment) -> None:
        try:
            self._hash.update(segment.data)
        finally:
            segment.release()
