"""The table of codecs: which there are, their levels, and how a stream is compressed, decompressed
and recognised.

The bytes depend on the data, the level and the codec library's version; never on the workers, the
pool, the sizes of the writes or time. docs/compression.md has speed and size of every level,
measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from build_oci.codec import gzip, stored, zstd
from build_oci.codec.blocks import Encoder, Sink, slices
from build_oci.records import NamedTuple
from build_oci.work.budget import Budget

if TYPE_CHECKING:
    from build_oci.work.pool import Pool

# Frames of zstd with metadata behind them: of a layer whose members are known
# (codec/chunked/encoder.py). To readers it is zstd.
CHUNKED = "zstd:chunked"
DEFAULT_LEVELS = {
    "zstd": zstd.DEFAULT_LEVEL,
    CHUNKED: zstd.DEFAULT_LEVEL,
    "gzip": gzip.DEFAULT_LEVEL,
    "disabled": None,
}
HIGHEST_LEVELS = {
    "zstd": zstd.HIGHEST_LEVEL,
    CHUNKED: zstd.HIGHEST_LEVEL,
    "gzip": gzip.HIGHEST_LEVEL,
}
_LIBRARIES = {"zstd": zstd.LIBRARIES, CHUNKED: zstd.LIBRARIES, "gzip": gzip.LIBRARIES}
_DECODERS: dict[str, Callable[[Iterable[bytes]], Iterator[bytes | memoryview]]] = {
    "zstd": zstd.decode,
    "gzip": gzip.decode,
    "disabled": slices,
}


def stream_codec(compression: str) -> str:
    """What a stream of unknown members is compressed with where layers are to be of COMPRESSION."""
    return "zstd" if compression == CHUNKED else compression


def load(compression: str) -> None:
    """Import the library that `encoder` needs for COMPRESSION; it does so itself otherwise."""
    for library in _LIBRARIES.get(compression, ()):
        import_module(library)


def _level(compression: str, level: int | None) -> int:
    return (DEFAULT_LEVELS.get(compression) or 0) if level is None else level


def block_size(compression: str, level: int | None) -> int:
    """The bytes that COMPRESSION at LEVEL (None: the default) packs as one block: written streams
    are cut at its multiples.
    """
    if compression == "zstd":
        return zstd.block_size(_level(compression, level))
    if compression == CHUNKED:
        from build_oci.codec.chunked.container import BLOCK

        return BLOCK
    return gzip.BLOCK_SIZE if compression == "gzip" else stored.BLOCK_SIZE


def least_memory(compression: str, level: int | None) -> int:
    """The bytes that an encoder takes even where it is given less, of data that does not shrink."""
    if compression == "zstd":
        return zstd.least_memory(_level(compression, level))
    if compression == CHUNKED:  # or plain zstd, for what cannot be expressed
        from build_oci.codec.chunked.container import BLOCK, BLOCKS_HELD

        return max(
            BLOCKS_HELD * BLOCK + (2 << 20),
            zstd.least_memory(_level(compression, level)),
        )
    return 2 * block_size(compression, level)


class Share(NamedTuple):
    """What one of several encoders of a stream may use: BUDGET where the pool compresses its
    blocks, MEMORY, in bytes, where not.
    """

    memory: int
    budget: Budget


def shares(codecs: Sequence[tuple[str, int | None]], memory: int, budget: Budget) -> list[Share]:
    """What the encoders of CODECS, pairs of compression and level, may use at once: BUDGET, of
    which MEMORY bytes are theirs alone.

    An encoder with threads of its own takes nothing from a budget: beside another one it has half
    of MEMORY, or the least it can do with, and the other what is left.
    """
    own = [
        compression == "zstd" and not zstd.uses_pool(_level(compression, level))
        for compression, level in codecs
    ]
    if len(codecs) < 2 or not any(own):
        return [Share(memory, budget) for _ in codecs]
    held = sum(
        max(least_memory(*codec), memory // 2)
        for codec, alone in zip(codecs, own, strict=True)
        if alone
    )
    rest = Share(memory, Budget(max(0, memory - held)))
    return [Share(held, budget) if alone else rest for alone in own]


def encoder(
    compression: str,
    level: int | None,
    sink: Sink,
    *,
    pool: Pool,
    workers: int,
    epoch: int | None,
    memory: int = 300 << 20,
    budget: Budget | None = None,
    chunked: Callable[..., Encoder] | None = None,
) -> Encoder:
    """An encoder for COMPRESSION ("zstd", "gzip", "disabled") at LEVEL (None: the default); SINK
    gets the compressed bytes in order.

    CHUNKED makes that of "zstd:chunked", which must know what it encodes: it is called with level,
    sink, pool, workers and budget, the last three by name.

    SINK is called within write(), add(), poll() and finish() only, and may keep what it gets, but
    not of "disabled". POOL compresses the blocks, and WORKERS says how many threads it has: so many
    blocks are under way, as far as they and what comes out of them fit into MEMORY bytes, but at
    least one (see least_memory). Where the pool compresses blocks, all encoders with one BUDGET
    share its bytes instead. EPOCH, in seconds, is the time in gzip's header. ValueError for another
    name.
    """
    if compression == CHUNKED and chunked:
        return chunked(level, sink, pool=pool, workers=workers, budget=budget or Budget(memory))
    level = _level(compression, level)
    if compression == "disabled":
        return stored.StoredEncoder(sink)
    if compression == "zstd":
        return zstd.encoder(
            level, sink, pool=pool, workers=workers, memory=memory, budget=budget or Budget(memory)
        )
    if compression == "gzip":
        return gzip.GzipEncoder(level, sink, pool, workers, budget or Budget(memory), epoch or 0)
    raise ValueError(f"unknown compression {compression!r}")


def decode(
    codec: str, chunks: Iterable[bytes], windows: Budget | None = None
) -> Iterator[bytes | memoryview]:
    """The plain bytes of CHUNKS, a stream in CODEC ("zstd", "gzip", "disabled"), in pieces of at
    most 1 MiB.

    A piece is valid until the next but one is asked for.

    Every gzip member and every zstd frame is read, skippable frames are skipped, zeros may follow
    the last gzip member. Needs the window of a zstd frame in memory, 128 MiB at most; a window
    above 8 MiB is taken from WINDOWS, which several readers share. ValueError if the stream is
    corrupt, ends early or is followed by something else, or for another CODEC.
    """
    if codec == "zstd":
        return zstd.decode(chunks, windows)
    if codec == "gzip":
        return gzip.decode(chunks)
    if codec == "disabled":
        return slices(chunks)
    raise ValueError(f"unknown compression {codec!r}")


SNIFFED = 512  # bytes at the start of a layer that tell its codec


def is_archive(start: bytes) -> bool:
    """Does START begin a plain tar archive: by the magic of its first header, or as an empty
    one?
    """
    return start[257:262] == b"ustar" or (
        len(start) >= SNIFFED and not start[:SNIFFED].strip(b"\0")
    )


def sniff_codec(start: bytes) -> str:
    """The compression of a layer that begins with START: "zstd", "gzip", "disabled"."""
    if is_archive(start):
        return "disabled"  # whatever its first name is
    if start.startswith(gzip.MAGIC):
        return "gzip"
    return (
        "zstd"
        if start.startswith(zstd.MAGIC) or (len(start) >= 4 and zstd.is_skippable(start[:4]))
        else "disabled"
    )
