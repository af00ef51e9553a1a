"""One layer's way into a blob: the diff_id of the archive, its compression, the digest of what comes out, side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from build_oci.compression import encoder
from build_oci.oci import LAYER_MEDIA_TYPES, Descriptor

if TYPE_CHECKING:
    from build_oci.config import Compression
    from build_oci.layout import Layout
    from build_oci.workers import Workers


class Layer(NamedTuple):
    """A layer in the layout: its blob, and the digest and size in bytes of the archive inside."""

    descriptor: Descriptor
    diff_id: str
    archive_size: int


def write_layer(
    archive: Generator[memoryview, None, None],
    layout: Layout,
    workers: Workers,
    *,
    compression: Compression,
    level: int | None,
    epoch: int | None,
    written: Callable[[int], None] = lambda size: None,
) -> Layer:
    """Compress ARCHIVE into a blob of LAYOUT while it is being made, and close it; WRITTEN is told how many bytes of it are.

    Raises OutputError, and what ARCHIVE raises.
    """
    size = 0
    with closing(archive), layout.blob() as blob:
        if compression == "disabled":
            # The blob is the archive: one digest serves for both.
            for piece in archive:
                blob.write(piece)
                size += len(piece)
                written(size)
            blob.finish()
            diff_id = blob.digest
        else:
            diff = hashlib.sha256()
            compressed = encoder(compression, level, blob.write, pool=workers.pool, workers=workers.count, epoch=epoch)
            with ThreadPoolExecutor(1, thread_name_prefix="diff_id") as beside:
                for piece in archive:
                    hashed = beside.submit(diff.update, piece)
                    try:
                        compressed.write(piece)
                    finally:
                        hashed.result()
                    size += len(piece)
                    written(size)
                compressed.finish()
            blob.finish()
            diff_id = f"sha256:{diff.hexdigest()}"
    return Layer(Descriptor(LAYER_MEDIA_TYPES[compression], blob.digest, blob.size), diff_id, size)
