"""One layer's stream, compressed: zstd, gzip, disabled.

The bytes depend on the data, the level and the codec library's version; never on the workers, the pool, the sizes of the writes or time.

docs/compression.md has speed and size of every level, measured.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from build_oci.work.pool import Pool, Task

Piece = bytes | bytearray | memoryview
Sink = Callable[[Piece], object]
_Packed = TypeVar("_Packed")
# What a block becomes: pieces of the stream.
_Pieces = Sequence[Piece]

DEFAULT_LEVELS = {"zstd": 3, "gzip": 5}


def load(compression: str) -> None:
    """Import the library that `encoder` needs for COMPRESSION; it does so itself otherwise."""
    for library in {"zstd": ["zstandard"], "gzip": ["deflate", "isal.isal_zlib"]}.get(compression, []):
        import_module(library)


class Encoder(Protocol):
    """Compresses one stream; for one thread at a time, and none of the pool's own: it waits for what the pool computes."""

    def write(self, data: Piece) -> None:
        """Takes DATA in; its memory may be reused as soon as this returns. An error in compressing it may come from a later call."""

    def add(self, block: memoryview, release: Callable[[], None]) -> None:
        """Takes in a whole block of at most `block_size` bytes; RELEASE is called, by any thread, once its memory may be reused.

        Where blocks end shows in the stream. One stream takes either blocks or what is written.
        """

    def poll(self) -> None:
        """Hands on what is ready, without waiting."""

    def finish(self) -> None:
        """Writes what is left and ends the stream; nothing may follow. An encoder that is dropped without this leaves nothing behind."""


def _level(compression: str, level: int | None) -> int:
    return DEFAULT_LEVELS.get(compression, 0) if level is None else level


def block_size(compression: str, level: int | None) -> int:
    """The bytes that COMPRESSION at LEVEL (None: the default) packs as one block: written streams are cut at its multiples."""
    if compression == "zstd" and _level(compression, level) <= _ZSTD_QUICK:
        return _ZSTD_BLOCK
    return _GZIP_TASK * _GZIP_BLOCK if compression == "gzip" else 1 << 20


def least_memory(compression: str, level: int | None) -> int:
    """The bytes that an encoder takes even where it is given less, of data that does not shrink."""
    if compression == "zstd":
        level = _level(compression, level)
        return 2 * _ZSTD_BLOCK + (2 << 20) if level <= _ZSTD_QUICK else (_ZSTD_JOBS + _ZSTD_JOBS_A_THREAD) * _zstd_job(level)
    return 2 * block_size(compression, level)


def encoder(
    compression: str, level: int | None, sink: Sink, *, pool: Pool, workers: int, epoch: int | None, memory: int = 300 << 20
) -> Encoder:
    """An encoder for COMPRESSION ("zstd", "gzip", "disabled") at LEVEL (None: the default); SINK gets the compressed bytes in order.

    SINK is called within write(), add(), poll() and finish() only, and may keep what it gets, but not of "disabled". POOL compresses
    the blocks, and WORKERS says how many threads it has: so many blocks are under way, as far as they and what comes out of them fit into
    MEMORY bytes, but at least one (see least_memory). EPOCH, in seconds, is the time in gzip's header. ValueError for another name.
    """
    level = _level(compression, level)
    if compression == "disabled":
        return _Disabled(sink)
    if compression == "zstd":
        return _Zstd(level, sink, pool, workers, memory) if level <= _ZSTD_QUICK else _SlowZstd(level, sink, workers, memory)
    if compression == "gzip":
        return _Gzip(level, sink, pool, workers, memory, epoch or 0)
    raise ValueError(f"unknown compression {compression!r}")


class _AsItComes:
    """Has no use for blocks."""

    def write(self, data: Piece) -> None:
        raise NotImplementedError

    def add(self, block: memoryview, release: Callable[[], None]) -> None:
        self.write(block)
        release()

    def poll(self) -> None:
        pass


class _Disabled(_AsItComes):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, data: Piece) -> None:
        self._sink(data)

    def finish(self) -> None:
        pass


class _Blocks(Generic[_Packed]):
    """A stream of blocks that are compressed in the pool, each of them on its own, and joined."""

    def __init__(self, sink: Sink, pool: Pool, size: int, most: int, header: bytes) -> None:
        """SIZE: of the blocks that what is written is cut into; MOST: how many are under way at once."""
        self._sink = sink
        self._pool = pool
        self._size = size
        self._most = most
        self._header = header
        self._in_flight: deque[Task[_Packed]] = deque()
        self._open = bytearray()  # the start of the next block

    def write(self, data: Piece) -> None:
        view = memoryview(data).cast("B")
        while len(view) >= (missing := self._size - len(self._open)):
            self._open += view[:missing]
            view = view[missing:]
            self._close()
        self._open += view

    def add(self, block: memoryview, release: Callable[[], None]) -> None:
        self._drain(self._most - 1)
        self._in_flight.append(self._pool.submit(self._pack_and_release, block, release))

    def poll(self) -> None:
        self._drain(self._most)

    def finish(self) -> None:
        if self._open:
            self._close()
        self._drain(0)
        self._write_header()
        self._sink(self._trailer())

    def _close(self) -> None:
        block, self._open = self._open, bytearray()
        self.add(memoryview(block), lambda: None)

    def _pack_and_release(self, block: memoryview, release: Callable[[], None]) -> _Packed:
        try:
            return self._pack(block)
        finally:
            release()

    def _drain(self, most: int) -> None:
        """Hands on what is ready, in order, and waits until at most MOST blocks are in flight."""
        while self._in_flight and (len(self._in_flight) > most or self._in_flight[0].done()):
            pieces = self._taken(self._in_flight.popleft().result())
            self._write_header()
            for piece in pieces:
                self._sink(piece)

    def _write_header(self) -> None:
        if self._header:
            self._sink(self._header)
            self._header = b""

    def _pack(self, block: memoryview) -> _Packed:
        """BLOCK, compressed so that it can follow any other; called by threads of the pool."""
        raise NotImplementedError

    def _taken(self, packed: _Packed) -> _Pieces:
        """What of a packed block goes into the stream; called in the order of the blocks."""
        raise NotImplementedError

    def _trailer(self) -> bytes:
        raise NotImplementedError


# Up to this level a layer is compressed in blocks of the pool's, above by threads of the library's own, for blocks would have to be so long
# (level 9: 32 MiB, level 17: more than 64) that they held too much memory and fed too few threads.
_ZSTD_QUICK = 4
# Matches are cut off at the ends of a block, so blocks are as long as it takes to stay below what the command makes of files that repeat
# each other over megabytes (/usr/include with level 3 and blocks of 4 MiB: 5 % more).
_ZSTD_BLOCK = 8 << 20
# Matches reach as far back as a block is long, and as every reader must allow for (RFC 8878, 3.1.1.1.2).
_ZSTD_WINDOW_LOG = 23
# Level 3: a quarter of zstd's own table for the short matches leaves room in a core's own cache for the long ones, 7 % of the time for 0.2
# to 1 % in size (9 archives, one thread).
_ZSTD_TABLES = {3: {"chain_log": 14}}


class _Zstd(_Blocks[_Pieces]):
    """One frame that tells no content size. It has no checksum either: readers of a layer hold blob and archive against their digests, and
    one more took 2 % of a build's time, and as much of theirs."""

    def __init__(self, level: int, sink: Sink, pool: Pool, workers: int, memory: int) -> None:
        import zstandard

        self._parameters = zstandard.ZstdCompressionParameters.from_level(
            level, window_log=_ZSTD_WINDOW_LOG, write_checksum=False, write_content_size=False, **_ZSTD_TABLES.get(level, {})
        )
        self._compressors: deque[Any] = deque()  # that nobody is using
        # A block and, of noise, as much as comes out of it.
        needs = 2 * _ZSTD_BLOCK + self._parameters.estimated_compression_context_size()
        super().__init__(sink, pool, _ZSTD_BLOCK, max(1, min(workers + 3, memory // needs)), _zstd_header(_ZSTD_WINDOW_LOG))

    def _pack(self, block: memoryview) -> _Pieces:
        from build_oci._native.zstd import continued

        try:
            compressor = self._compressors.pop()
        except IndexError:
            import zstandard

            compressor = zstandard.ZstdCompressor(compression_params=self._parameters)
        frame = compressor.compress(block)
        self._compressors.append(compressor)
        return continued(frame, block)

    def _taken(self, packed: _Pieces) -> _Pieces:
        return packed

    def _trailer(self) -> bytes:
        return b"\x01\0\0"  # a block of nothing that is the last


def _zstd_header(window_log: int) -> bytes:
    """RFC 8878, 3.1.1.1: magic, no sizes and no checksum, the window."""
    return b"\x28\xb5\x2f\xfd\x00" + bytes([window_log - 10 << 3])


# The library's own jobs are four windows long (8 MiB at level 6) and overlap by an eighth to a quarter of a window. Jobs half as long,
# which overlap by half a window, need less memory and feed more threads from a small layer. Shorter ones lose more than a level may where
# files repeat each other over megabytes (/usr/share/doc at level 8, whose matches reach further: 4 MiB 2.9 %, 8 MiB nothing). Hash tables
# above 2 MiEntries, more than a job can see, cost 0.1 % in size when left out. Above level 12 zstd does as it likes.
_ZSTD_JOB = 4 << 20
_ZSTD_LONG_JOB = 8 << 20
_ZSTD_FAR = 8  # from this level on they are that long
_ZSTD_OVERLAP_LOG = 8
# Memory in jobs, of noise: what the library has whatever its threads, and what each takes (8 MiB: 100 MiB for one, 240 for four).
_ZSTD_JOBS = 8
_ZSTD_JOBS_A_THREAD = 6
_ZSTD_HASH_LOG = 21
_ZSTD_OWN_WAYS = 13  # from this level on


def _zstd_job(level: int) -> int:
    return _ZSTD_JOB if level < _ZSTD_FAR else _ZSTD_LONG_JOB


class _SlowZstd(_AsItComes):
    """The same by the library's own threads, which cut the stream into jobs."""

    def __init__(self, level: int, sink: Sink, workers: int, memory: int) -> None:
        import zstandard

        job = _zstd_job(level)
        own: dict[str, int] = {}
        if level < _ZSTD_OWN_WAYS:
            plain = zstandard.ZstdCompressionParameters.from_level(level)
            own = {"job_size": job, "overlap_log": _ZSTD_OVERLAP_LOG, "hash_log": min(plain.hash_log, _ZSTD_HASH_LOG)}
        # At least 1: with no thread at all zstd compresses the stream as one job, into other bytes. One more than the workers, so that a
        # job waits whenever a thread is done.
        by_memory = (memory // job - _ZSTD_JOBS) // _ZSTD_JOBS_A_THREAD
        threads = max(1, min(workers + (workers > 1), 8 if level <= 6 else 4, by_memory))
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level, threads=threads, write_checksum=False, write_content_size=False, **own
        )
        self._stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        self._sink = sink

    def write(self, data: Piece) -> None:
        if compressed := self._stream.compress(data):
            self._sink(compressed)

    def finish(self) -> None:
        self._sink(self._stream.flush())


# Against 1 MiB, blocks of 256 KiB cost 0.6 % in size and of 512 KiB 0.2 %, of 4 MiB save 0.1 % (gzip 5 and 6 on 60 MB of binaries).
_GZIP_BLOCK = 1 << 20
_GZIP_TASK = 2  # blocks that one thread compresses, at most: so many at once are joined
_GZIP_TASKS_IN_FLIGHT = 24  # at most, whatever the workers: 96 MiB with what comes out of them

# Up to this level ISA-L, three times as fast for some percent more output; above, libdeflate.
# (ISA-L's level 3 is left alone: what it writes depends on the CPU it runs on.)
_GZIP_QUICK = 2
# Our level -> libdeflate's. Its levels find more than gzip's of the same name: each of these is the quickest that is not larger on a root
# file system, but from 7 on, where smaller is what was asked for. (On libraries or programs alone 3 is up to 2.1 %, 5 up to 0.9 % larger.)
_LIBDEFLATE_LEVELS = {3: 1, 4: 2, 5: 4, 6: 5, 7: 6, 8: 7, 9: 9}
# More than a compressor of these levels takes (libdeflate 1.26: 0.67 MB); `deflate` 0.9 reads at address 0 when it gets none.
_LIBDEFLATE_ROOM = 1 << 20


def _deflate_quickly(level: int, block: memoryview) -> bytes:
    from isal import isal_zlib

    # memLevel 8: 9 gives 0.3 % more, less is slower.
    stream = isal_zlib.compressobj(level, isal_zlib.DEFLATED, -15, 8)
    return stream.compress(block) + stream.flush(isal_zlib.Z_FULL_FLUSH)


def _deflate_well(level: int, blocks: Sequence[memoryview]) -> list[bytearray]:
    """BLOCKS, of which at most _GZIP_TASK are given."""
    import deflate

    from build_oci._native.deflate import go_on
    from build_oci._native.memory import check_room

    streams: list[bytearray] = []
    for block in blocks:
        check_room(_LIBDEFLATE_ROOM)
        streams.append(deflate.deflate_compress(block, _LIBDEFLATE_LEVELS[level]))
    if streams:
        go_on(*streams)
    return streams


def _deflate_not(block: memoryview) -> bytes:
    """BLOCK as deflate's blocks of bytes as they are."""
    parts = [block[at : at + 0xFFFF] for at in range(0, len(block), 0xFFFF)]
    # Not the last one, and stored; how many, and the same with each bit turned.
    heads = [b"\x00" + len(part).to_bytes(2, "little") + (len(part) ^ 0xFFFF).to_bytes(2, "little") for part in parts]
    return b"".join(piece for pair in zip(heads, parts, strict=True) for piece in pair)


def _deflate(level: int, blocks: Sequence[memoryview]) -> list[Piece]:
    """BLOCKS as raw deflate that does not look back, which anything can follow."""
    from build_oci._native.deflate import looks_packed

    if level <= _GZIP_QUICK:
        return [_deflate_quickly(level, block) for block in blocks]
    pieces: list[Piece] = []
    waiting: list[memoryview] = []  # two at once are made to go on in less time
    for block in blocks:
        # Packages, archives and pictures would cost libdeflate as much time as anything else, for nothing. A seventh of a root file system
        # with its package caches; 10 % of the time of its build with gzip 5.
        if looks_packed(block):
            pieces += [*_deflate_well(level, waiting), _deflate_not(block)]
            waiting = []
        else:
            waiting.append(block)
    return pieces + _deflate_well(level, waiting)


class _Deflated(NamedTuple):
    pieces: _Pieces
    crc: int
    size: int  # of what it was made of


class _Gzip(_Blocks[_Deflated]):
    """One member of deflate blocks that do not look back at each other, joined by full flushes."""

    def __init__(self, level: int, sink: Sink, pool: Pool, workers: int, memory: int, epoch: int) -> None:
        # RFC 1952: magic, deflate, no flags, mtime, XFL 0, OS 255 (unknown)
        header = b"\x1f\x8b\x08\x00" + (epoch % (1 << 32)).to_bytes(4, "little") + b"\x00\xff"
        size = _GZIP_TASK * _GZIP_BLOCK
        super().__init__(sink, pool, size, max(1, min(2 * workers + 2, _GZIP_TASKS_IN_FLIGHT, memory // (2 * size))), header)
        self._level = level
        self._crc = self._bytes = 0

    def _pack(self, block: memoryview) -> _Deflated:
        import deflate  # not ISA-L's, behind which libdeflate takes 4 % more time: it leaves the upper halves of vector registers in use

        parts = [block[at : at + _GZIP_BLOCK] for at in range(0, len(block), _GZIP_BLOCK)]
        return _Deflated(_deflate(self._level, parts), deflate.crc32(block), len(block))

    def _taken(self, packed: _Deflated) -> _Pieces:
        from isal import isal_zlib

        self._crc = isal_zlib.crc32_combine(self._crc, packed.crc, packed.size)
        self._bytes += packed.size
        return packed.pieces

    def _trailer(self) -> bytes:
        # A block of nothing that is the last, then checksum and size.
        return b"\x03\x00" + self._crc.to_bytes(4, "little") + (self._bytes % (1 << 32)).to_bytes(4, "little")
