"""One layer's stream, compressed (`encoder`) or decompressed (`decode`): zstd, gzip, disabled.

The bytes depend on the data, the level and the codec library's version; never on the workers, the pool, the sizes of the writes or time.

docs/compression.md has speed and size of every level, measured.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from build_oci.pool import Pool, Task

Sink = Callable[[memoryview | bytes], object]
# Blocks and whether the last of them ends the stream, to raw deflate that the next blocks can follow.
_Deflate = Callable[[Sequence[memoryview], bool], bytes]

DEFAULT_LEVELS = {"zstd": 3, "gzip": 5}

_PIECE = 1 << 20  # decode() never hands out more at once


def load(compression: str) -> None:
    """Import the library that `encoder` needs for COMPRESSION; it does so itself otherwise."""
    for library in {"zstd": ["zstandard"], "gzip": ["deflate", "isal.isal_zlib"]}.get(compression, []):
        import_module(library)


class Encoder(Protocol):
    """Compresses one stream; for one thread at a time, and none of the pool's own: it waits for what the pool computes."""

    def write(self, data: memoryview | bytes) -> None:
        """Takes DATA in; its memory may be reused as soon as this returns. An error in compressing it may come from a later call."""

    def finish(self) -> None:
        """Writes what is left and ends the stream; nothing may follow. An encoder that is dropped without this leaves nothing behind."""


def encoder(
    compression: str, level: int | None, sink: Sink, *, pool: Pool, workers: int, epoch: int | None, memory: int = 300 << 20
) -> Encoder:
    """An encoder for COMPRESSION ("zstd", "gzip", "disabled") at LEVEL (None: the default); SINK gets the compressed bytes in order.

    SINK is called within write() and finish() only, and keeps nothing of a memoryview that it gets. POOL compresses gzip's blocks and
    WORKERS says how many threads to count on (zstd brings its own, so many as work in MEMORY bytes, but at least one); EPOCH, in seconds,
    is the time in gzip's header. ValueError for another name.
    """
    if compression == "disabled":
        return _Disabled(sink)
    if compression == "zstd":
        return _Zstd(DEFAULT_LEVELS["zstd"] if level is None else level, sink, workers, memory)
    if compression == "gzip":
        return _Gzip(DEFAULT_LEVELS["gzip"] if level is None else level, sink, pool, workers, epoch or 0)
    raise ValueError(f"unknown compression {compression!r}")


class _Disabled:
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, data: memoryview | bytes) -> None:
        self._sink(data)

    def finish(self) -> None:
        pass


# zstd's own jobs are four windows long (8 MiB at level 3) and overlap by an eighth to a quarter of a window. Jobs half as long, which
# overlap by half a window, need less memory, feed more threads from a small layer, and come out smaller (0.9 % of a root file system at
# level 3). Shorter ones are quicker by 4 %, but lose more than a level may where files repeat each other over megabytes (/usr/share/doc: 2
# MiB jobs 2.4 % at level 3, 4 MiB 1.0 %; at level 8, whose matches reach further, 4 MiB 2.9 %, 8 MiB nothing). Hash tables above 2
# MiEntries, more than a job can see, cost 0.1 % in size when left out. Peak resident memory of a whole build, in MiB: level 3, 2 workers:
# 113, 8 workers: 166; level 6, 8 workers: 179; levels 8 and 12, 4 threads: 203 (with zstd's own settings 377 at 12). Above level 12 zstd
# does as it likes: with 2 threads 290 MiB at 15 and 380 at 19, and that comes on top of everything else.
_ZSTD_JOB = 4 << 20
_ZSTD_LONG_JOB = 8 << 20
_ZSTD_FAR = 8  # from this level on they are that long
_ZSTD_OVERLAP_LOG = 8
# Memory of a thread in jobs, with data that does not shrink: what it reads, what that overlaps with, what comes out, and what waits.
_ZSTD_JOBS_A_THREAD = 6
_ZSTD_HASH_LOG = 21
_ZSTD_OWN_WAYS = 13  # from this level on


def _zstd_job(level: int) -> int:
    return _ZSTD_JOB if level < _ZSTD_FAR else _ZSTD_LONG_JOB


def _zstd_threads(level: int, workers: int, memory: int) -> int:
    """At least 1: with no thread at all zstd compresses the stream as one job, into other bytes.

    One more than the workers, so that a job waits whenever a thread is done: 3 % of the time of a build (median of 13, 2 workers).
    """
    by_memory = memory // (_ZSTD_JOBS_A_THREAD * _zstd_job(level))
    return max(1, min(workers + (workers > 1), 8 if level <= 6 else 4, by_memory))


class _Zstd:
    """One frame that tells no content size. It has no checksum either: readers of a layer hold blob and archive against their digests, and
    one more took 2 % of a build's time, and as much of theirs."""

    def __init__(self, level: int, sink: Sink, workers: int, memory: int) -> None:
        import zstandard

        own: dict[str, int] = {}
        if level < _ZSTD_OWN_WAYS:
            plain = zstandard.ZstdCompressionParameters.from_level(level)
            own = {"job_size": _zstd_job(level), "overlap_log": _ZSTD_OVERLAP_LOG, "hash_log": min(plain.hash_log, _ZSTD_HASH_LOG)}
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level, threads=_zstd_threads(level, workers, memory), write_checksum=False, write_content_size=False, **own
        )
        self._stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        self._sink = sink

    def write(self, data: memoryview | bytes) -> None:
        if compressed := self._stream.compress(data):
            self._sink(compressed)

    def finish(self) -> None:
        self._sink(self._stream.flush())


# Against 1 MiB, blocks of 256 KiB cost 0.6 % in size and of 512 KiB 0.2 %, of 4 MiB save 0.1 % (gzip 5 and 6 on 60 MB of binaries).
_GZIP_BLOCK = 1 << 20
_GZIP_TASK = 2  # blocks that one thread compresses, at most: so many at once are joined
_GZIP_TASKS_IN_FLIGHT = 24  # at most, whatever the workers: some 75 MiB with what comes out of them

# Up to this level ISA-L, three times as fast for some percent more output; above, libdeflate.
# (ISA-L's level 3 is left alone: what it writes depends on the CPU it runs on.)
_GZIP_QUICK = 2
# Our level -> libdeflate's. Its levels find more than gzip's of the same name: each of these is the quickest that is not larger on a root
# file system, but from 7 on, where smaller is what was asked for. (On libraries or programs alone 3 is up to 2.1 %, 5 up to 0.9 % larger.)
_LIBDEFLATE_LEVELS = {3: 1, 4: 2, 5: 4, 6: 5, 7: 6, 8: 7, 9: 9}
# More than a compressor of these levels takes (libdeflate 1.26: 0.67 MB); `deflate` 0.9 reads at address 0 when it gets none.
_LIBDEFLATE_ROOM = 1 << 20


def _deflate_quickly(level: int, blocks: Sequence[memoryview], last: bool) -> bytes:
    from isal import isal_zlib

    # memLevel 8: 9 gives 0.3 % more, less is slower.
    compressed = b""
    for number, block in enumerate(blocks, 1):
        stream = isal_zlib.compressobj(level, isal_zlib.DEFLATED, -15, 8)
        end = isal_zlib.Z_FINISH if last and number == len(blocks) else isal_zlib.Z_FULL_FLUSH
        compressed += stream.compress(block) + stream.flush(end)
    return compressed


def _deflate_well(level: int, blocks: Sequence[memoryview], last: bool) -> bytes:
    import deflate

    from build_oci._native.deflate import check_room, continued

    streams = []  # always whole ones
    for block in blocks:
        check_room(_LIBDEFLATE_ROOM)
        streams.append(deflate.deflate_compress(block, _LIBDEFLATE_LEVELS[level]))
    end = bytes(streams.pop()) if last else b""
    parts: list[Any] = [part for stream, block in zip(streams, blocks, strict=False) for part in (stream, len(block))]
    return continued(*parts) + end if parts else end


class _Gzip:
    """One member of blocks that are cut from the stream at fixed offsets, deflated in the pool and joined by full flushes."""

    def __init__(self, level: int, sink: Sink, pool: Pool, workers: int, epoch: int) -> None:
        self._deflate = partial(_deflate_quickly if level <= _GZIP_QUICK else _deflate_well, level)
        self._sink = sink
        self._pool = pool
        self._most = min(2 * workers + 2, _GZIP_TASKS_IN_FLIGHT)
        self._in_flight: deque[Task[tuple[bytes, int, int]]] = deque()
        self._rest = bytearray()  # the start of the next task's blocks
        self._crc = self._size = 0
        # RFC 1952: magic, deflate, no flags, mtime, XFL 0, OS 255 (unknown)
        self._header = b"\x1f\x8b\x08\x00" + (epoch % (1 << 32)).to_bytes(4, "little") + b"\x00\xff"

    def write(self, data: memoryview | bytes) -> None:
        view = memoryview(data).cast("B")
        while len(view) >= (missing := _GZIP_TASK * _GZIP_BLOCK - len(self._rest)):
            self._rest += view[:missing]
            view = view[missing:]
            self._compress(last=False)
        self._rest += view

    def finish(self) -> None:
        self._compress(last=True)
        self._drain(0)
        self._sink(self._crc.to_bytes(4, "little") + (self._size % (1 << 32)).to_bytes(4, "little"))

    def _compress(self, *, last: bool) -> None:
        data, self._rest = self._rest, bytearray()
        self._drain(self._most - 1)
        self._in_flight.append(self._pool.submit(_deflate_blocks, self._deflate, data, last))

    def _drain(self, most: int) -> None:
        """Hands on what is ready, in order, and waits until at most MOST blocks are in flight."""
        from isal import isal_zlib

        while self._in_flight and (len(self._in_flight) > most or self._in_flight[0].done()):
            compressed, crc, size = self._in_flight.popleft().result()
            self._crc = isal_zlib.crc32_combine(self._crc, crc, size)
            self._size += size
            self._sink(self._header + compressed if self._header else compressed)
            self._header = b""


def _deflate_blocks(compress: _Deflate, data: bytearray, last: bool) -> tuple[bytes, int, int]:
    """DATA, cut into blocks, as raw deflate; its crc32 and its size."""
    from isal import isal_zlib

    blocks = [memoryview(data)[at : at + _GZIP_BLOCK] for at in range(0, len(data), _GZIP_BLOCK)]
    return compress(blocks or [memoryview(data)], last), isal_zlib.crc32(data), len(data)


def decode(codec: str, chunks: Iterable[bytes]) -> Iterator[bytes | memoryview]:
    """The plain bytes of CHUNKS, a stream in CODEC ("zstd", "gzip", "disabled"), in pieces of at most 1 MiB.

    A piece is valid until the next but one is asked for.

    Every gzip member and every zstd frame is read, skippable frames are skipped, zeros may follow the last gzip member. Needs the window
    of a zstd frame in memory, 128 MiB at most. ValueError if the stream is corrupt, ends early or is followed by something else, or for
    another CODEC.
    """
    decoders: dict[str, Callable[[Iterable[bytes]], Iterator[bytes | memoryview]]]
    decoders = {"zstd": _decode_zstd, "gzip": _decode_gzip, "disabled": _slices}
    if codec not in decoders:
        raise ValueError(f"unknown compression {codec!r}")
    return decoders[codec](chunks)


def _slices(chunks: Iterable[bytes], size: int = _PIECE) -> Iterator[bytes]:
    for chunk in chunks:
        if len(chunk) <= size:
            yield chunk
        else:
            yield from (chunk[at : at + size] for at in range(0, len(chunk), size))


def _decode_gzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    from isal import isal_zlib

    igzip: Any = isal_zlib
    member = igzip.decompressobj(31)
    padded = False
    # Short slices, because each call copies what it leaves of its input.
    for data in _slices(chunks, 1 << 17):
        while data:
            if member is None:
                padding = len(data) - len(data.lstrip(b"\0"))
                padded = padded or padding > 0
                data = data[padding:]
                if not data:
                    break
                if padded or data[0] != 0x1F:
                    raise ValueError("something that is not gzip follows the gzip stream")
                member = igzip.decompressobj(31)
            try:
                piece = member.decompress(data, _PIECE)
                data = member.unconsumed_tail
                while len(piece) == _PIECE and not member.eof:
                    yield piece
                    piece = member.decompress(data, _PIECE)
                    data = member.unconsumed_tail
            except igzip.error as error:
                raise ValueError(f"the gzip stream is corrupt ({error})") from error
            if piece:
                yield piece
            if member.eof:
                data, member = member.unused_data, None
    if member is not None:
        raise ValueError("the gzip stream is truncated")


_ZSTD_WINDOW = 1 << 27
_ZSTD_BLOCK = 1 << 17  # the format's limit for a block, packed or not


class _Source:
    """Bytes on demand from the chunks of a zstd stream."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._chunk = b""
        self._at = 0

    def at_end(self) -> bool:
        while self._at == len(self._chunk):
            if (chunk := next(self._chunks, None)) is None:
                return True
            self._chunk, self._at = chunk, 0
        return False

    def some(self, size: int) -> bytes:
        """Up to SIZE bytes, at least one unless SIZE is 0; ValueError at the end."""
        if size and self.at_end():
            raise ValueError("the zstd stream is truncated")
        found = self._chunk[self._at : self._at + size]
        self._at += len(found)
        return found

    def exactly(self, size: int) -> bytes:
        """SIZE bytes; ValueError if the stream ends before."""
        found = self.some(size)
        while len(found) < size:
            found += self.some(size - len(found))
        return found

    def skip(self, size: int) -> None:
        while size:
            size -= len(self.some(min(size, _PIECE)))


def _decode_zstd(chunks: Iterable[bytes]) -> Iterator[memoryview]:
    import zstandard

    source = _Source(chunks)
    if source.at_end():
        raise ValueError("the zstd stream is truncated")
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    buffers = [bytearray(_PIECE), bytearray(_PIECE)]
    first = True
    while not source.at_end():
        magic = source.exactly(4)
        if magic[1:] == b"\x2a\x4d\x18" and magic[0] & 0xF0 == 0x50:
            source.skip(int.from_bytes(source.exactly(4), "little"))
        elif magic == b"\x28\xb5\x2f\xfd":
            try:
                frame: Any = _Frame(source)
                with decompressor.stream_reader(frame, read_size=_PIECE) as reader:
                    while size := reader.readinto(buffers[0]):
                        yield memoryview(buffers[0])[:size]
                        buffers.reverse()
                if not frame.ended:
                    raise ValueError("the zstd stream is corrupt (a frame ends early)")
            except zstandard.ZstdError as error:
                raise ValueError(f"the zstd stream is corrupt ({error})") from error
        elif first:
            raise ValueError("this is not a zstd stream")
        else:
            raise ValueError("something that is not zstd follows the zstd stream")
        first = False


class _Frame:
    """One frame whose magic has been read from SOURCE (RFC 8878, 3.1.1), as a file that ends where the frame does.

    The library reads no further than it must to fill the buffer that it is given: so what comes out at once stays bounded.
    """

    def __init__(self, source: _Source) -> None:
        descriptor = source.exactly(1)
        single_segment, self._has_checksum = descriptor[0] >> 5 & 1, descriptor[0] >> 2 & 1
        size_of_content_size = (single_segment, 2, 4, 8)[descriptor[0] >> 6]
        size_of_dictionary_id = (0, 1, 2, 4)[descriptor[0] & 3]
        rest = source.exactly((1 - single_segment) + size_of_dictionary_id + size_of_content_size)
        self._source = source
        self._parts = [b"\x28\xb5\x2f\xfd" + descriptor + rest]
        self.ended = False  # has all of it been read?

    def read(self, size: int) -> bytes:
        """The next bytes, around SIZE of them; none at the end. ValueError where the stream ends before."""
        parts, self._parts = self._parts, []
        while size > 0 and not self.ended:
            header = self._source.exactly(3)
            word = int.from_bytes(header, "little")
            kind, of_block = word >> 1 & 3, word >> 3
            if of_block > _ZSTD_BLOCK or kind == 3:
                raise ValueError("the zstd stream is corrupt (bad block header)")
            parts += header, self._source.exactly(1 if kind == 1 else of_block)
            size -= of_block
            if word & 1:
                self.ended = True
                parts.append(self._source.exactly(4 * self._has_checksum))
        return b"".join(parts)
