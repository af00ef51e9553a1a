"""The codec zstd: one frame in, every frame out.

Levels, windows and memory of both directions are here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from build_oci.codec.blocks import PIECE, Blocks, Encoder, Piece, Pieces, Sink, StreamOnly

if TYPE_CHECKING:
    from build_oci.work.budget import Budget
    from build_oci.work.pool import Pool

DEFAULT_LEVEL = 3
HIGHEST_LEVEL = 22
LIBRARIES = ("zstandard",)
MAGIC = b"\x28\xb5\x2f\xfd"


def is_skippable(magic: bytes) -> bool:
    """Do these four bytes begin a skippable frame (RFC 8878, 3.1.2)?"""
    return magic[1:4] == b"\x2a\x4d\x18" and magic[0] & 0xF0 == 0x50


# Up to this level a layer is compressed in blocks of the pool's, above by threads of the library's
# own, for blocks would have to be so long (level 9: 32 MiB, level 17: more than 64) that they held
# too much memory and fed too few threads.
_LAST_BLOCK_LEVEL = 4
# Matches are cut off at the ends of a block, so blocks are as long as it takes to stay below what
# the command makes of files that repeat each other over megabytes (/usr/include with level 3 and
# blocks of 4 MiB: 5 % more).
_BLOCK_SIZE = 8 << 20
# Matches reach as far back as a block is long, and as every reader must allow for (RFC 8878,
# 3.1.1.1.2).
_WINDOW_LOG = 23
# Level 3: a quarter of zstd's own table for the short matches leaves room in a core's own cache for
# the long ones, 7 % of the time for 0.2 to 1 % in size (9 archives, one thread).
_TABLE_PARAMETERS = {3: {"chain_log": 14}}


# Compressors that nobody is using, by level: no more than a pool has threads, however many streams
# it compresses.
_spare_compressors: WeakKeyDictionary[Pool, dict[int, deque[Any]]] = WeakKeyDictionary()


class _BlockEncoder(Blocks[Pieces]):
    """One frame that tells no content size. It has no checksum either: readers of a layer hold blob
    and archive against their digests, and one more took 2 % of a build's time, and as much of
    theirs."""

    def __init__(self, level: int, sink: Sink, pool: Pool, workers: int, budget: Budget) -> None:
        import zstandard

        self._parameters = zstandard.ZstdCompressionParameters.from_level(
            level,
            window_log=_WINDOW_LOG,
            write_checksum=False,
            write_content_size=False,
            **_TABLE_PARAMETERS.get(level, {}),
        )
        self._compressors = _spare_compressors.setdefault(pool, {}).setdefault(level, deque())
        context = self._parameters.estimated_compression_context_size()
        super().__init__(
            sink, pool, _BLOCK_SIZE, workers + 3, _frame_header(_WINDOW_LOG), budget, context
        )

    def _pack(self, block: memoryview) -> Pieces:
        from build_oci._native.zstd import make_joinable

        try:
            compressor = self._compressors.pop()
        except IndexError:
            import zstandard

            compressor = zstandard.ZstdCompressor(compression_params=self._parameters)
        frame = compressor.compress(block)
        self._compressors.append(compressor)
        return make_joinable(frame, block)

    def _taken(self, packed: Pieces) -> Pieces:
        return packed

    def _trailer(self) -> bytes:
        return b"\x01\0\0"  # a block of nothing that is the last


def _frame_header(window_log: int) -> bytes:
    """RFC 8878, 3.1.1.1: magic, no sizes and no checksum, the window."""
    return b"\x28\xb5\x2f\xfd\x00" + bytes([window_log - 10 << 3])


# The library's own jobs are four windows long (8 MiB at level 6) and overlap by an eighth to a
# quarter of a window. Jobs half as long, which overlap by half a window, need less memory and feed
# more threads from a small layer. Shorter ones lose more than a level may where files repeat each
# other over megabytes (/usr/share/doc at level 8, whose matches reach further: 4 MiB 2.9 %, 8 MiB
# nothing). Hash tables above 2 MiEntries, more than a job can see, cost 0.1 % in size when left
# out. Above level 12 zstd does as it likes.
_JOB_SIZE = 4 << 20
_LONG_JOB_SIZE = 8 << 20
_FIRST_LONG_JOB_LEVEL = 8  # from this level on they are that long
_OVERLAP_LOG = 8
# Memory in jobs, of noise: what the library has whatever its threads, and what each takes (8 MiB:
# 100 MiB for one, 240 for four).
_JOBS_HELD = 8
_JOBS_HELD_PER_THREAD = 6
_LARGEST_HASH_LOG = 21
_FIRST_DEFAULT_PARAMETERS_LEVEL = 13  # from this level on


def _job_size(level: int) -> int:
    return _JOB_SIZE if level < _FIRST_LONG_JOB_LEVEL else _LONG_JOB_SIZE


class _LibraryThreadsEncoder(StreamOnly):
    """The same by the library's own threads, which cut the stream into jobs."""

    def __init__(self, level: int, sink: Sink, workers: int, memory: int) -> None:
        import zstandard

        job = _job_size(level)
        own: dict[str, int] = {}
        if level < _FIRST_DEFAULT_PARAMETERS_LEVEL:
            plain = zstandard.ZstdCompressionParameters.from_level(level)
            own = {
                "job_size": job,
                "overlap_log": _OVERLAP_LOG,
                "hash_log": min(plain.hash_log, _LARGEST_HASH_LOG),
            }
        # At least 1: with no thread at all zstd compresses the stream as one job, into other bytes.
        # One more than the workers, so that a job waits whenever a thread is done.
        by_memory = (memory // job - _JOBS_HELD) // _JOBS_HELD_PER_THREAD
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


def uses_pool(level: int) -> bool:
    """Does the pool compress blocks at LEVEL, or does the library with threads of its own?"""
    return level <= _LAST_BLOCK_LEVEL


def block_size(level: int) -> int:
    """The bytes that are packed as one block at LEVEL."""
    return _BLOCK_SIZE if uses_pool(level) else 1 << 20


def least_memory(level: int) -> int:
    """The bytes that an encoder takes even where it is given less, of data that does not shrink."""
    return (
        2 * _BLOCK_SIZE + (2 << 20)
        if uses_pool(level)
        else (_JOBS_HELD + _JOBS_HELD_PER_THREAD) * _job_size(level)
    )


def encoder(
    level: int, sink: Sink, *, pool: Pool, workers: int, memory: int, budget: Budget
) -> Encoder:
    """See build_oci.codec.table.encoder."""
    if uses_pool(level):
        return _BlockEncoder(level, sink, pool, workers, budget)
    return _LibraryThreadsEncoder(level, sink, workers, memory)


# ---- decompression

_LARGEST_WINDOW = 1 << 27
# Every reader must allow for as much (RFC 8878, 3.1.1.1.2), so it is not counted.
SMALL_WINDOW = 8 << 20
_LARGEST_BLOCK = 1 << 17  # the format's limit for a block, packed or not


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

    def take_while(self, step: Callable[[bytes, int], int]) -> bytes:
        """What of the chunk at hand STEP goes past, given the chunk and where in it to start.
        ValueError at the end.
        """
        if self.at_end():
            raise ValueError("the zstd stream is truncated")
        start, self._at = self._at, step(self._chunk, self._at)
        return self._chunk[start : self._at]

    def skip(self, size: int) -> None:
        while size:
            size -= len(self.some(min(size, PIECE)))

    def skip_zero_words(self) -> None:
        """Skip a run of words of three zero bytes, as far as this chunk and a few kilobytes hold
        it, but for the last word.
        """
        rest = self._chunk[self._at : self._at + 4096]
        zeros = len(rest) - len(rest.lstrip(b"\0"))
        self._at += max(0, zeros // 3 - 1) * 3


def decode(
    chunks: Iterable[bytes], windows: Budget | None = None, piece: int = PIECE
) -> Iterator[memoryview]:
    """See build_oci.codec.table.decode.

    A window above 8 MiB is taken from WINDOWS while its frame is read. PIECE: the most bytes of one
    piece.
    """
    import zstandard

    source = _Source(chunks)
    if source.at_end():
        raise ValueError("the zstd stream is truncated")
    decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW)
    buffers = [bytearray(piece), bytearray(piece)]
    first = True
    while not source.at_end():
        magic = source.exactly(4)
        if is_skippable(magic):
            source.skip(int.from_bytes(source.exactly(4), "little"))
        elif magic == MAGIC:
            try:
                frame: Any = _Frame(source)
                with (
                    _held(windows, frame.window),
                    decompressor.stream_reader(frame, read_size=PIECE) as reader,
                ):
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


@contextmanager
def _held(windows: Budget | None, size: int) -> Iterator[None]:
    """Hold SIZE bytes of WINDOWS, where there are more than every reader is granted."""
    if windows is None or size <= SMALL_WINDOW:
        yield
        return
    size = min(size, _LARGEST_WINDOW)  # the library refuses a larger one
    windows.take(size, block=True)
    try:
        yield
    finally:
        windows.give_back(size)


class _Frame:
    """One frame whose magic has been read from SOURCE (RFC 8878, 3.1.1), as a file that ends where
    the frame does.

    The blocks' headers alone are looked at: all else goes to the library as it came, whose decoder
    stops when the buffer that it is given is full.
    """

    def __init__(self, source: _Source) -> None:
        descriptor = source.exactly(1)
        single_segment, self._has_checksum = descriptor[0] >> 5 & 1, descriptor[0] >> 2 & 1
        size_of_content_size = (single_segment, 2, 4, 8)[descriptor[0] >> 6]
        size_of_dictionary_id = (0, 1, 2, 4)[descriptor[0] & 3]
        rest = source.exactly((1 - single_segment) + size_of_dictionary_id + size_of_content_size)
        content_size = int.from_bytes(rest[len(rest) - size_of_content_size :], "little")
        # RFC 8878, 3.1.1.1.2: the window's exponent and mantissa; a single segment is its own
        # window.
        self.window = (
            content_size if single_segment else (8 + (rest[0] & 7)) << (7 + (rest[0] >> 3))
        )
        self._source = source
        self._start = MAGIC + descriptor + rest
        self._left = 0  # bytes of the block at hand that have not been read
        self._is_last = False  # is it the last one?

    @property
    def ended(self) -> bool:
        """Has all of it been read?"""
        return self._is_last and not self._left

    def read(self, size: int) -> bytes:
        """The next bytes, as many as the chunk at hand holds; none at the end.

        ValueError where the stream ends before.
        """
        if self._start:
            start, self._start = self._start, b""
            return start
        while not self.ended:
            if found := self._source.take_while(self._step):
                return found
            # An empty raw block, or the header of one across the end of a chunk.
            header = self._source.exactly(3)
            if any(header):
                self._begin(int.from_bytes(header, "little"))
                return header
            # A frame may hold millions of empty blocks, so a run of them is skipped at once.
            self._source.skip_zero_words()
        return b""

    def _step(self, chunk: bytes, at: int) -> int:
        """Where in CHUNK, from AT on, an empty raw block follows, a header that is not whole, or
        the end.
        """
        end = len(chunk)
        while True:
            taken = min(self._left, end - at)
            self._left -= taken
            at += taken
            if self._is_last or self._left or end - at < 3:
                return at
            word = chunk[at] | chunk[at + 1] << 8 | chunk[at + 2] << 16
            if not word:
                return at
            self._begin(word)
            at += 3

    def _begin(self, word: int) -> None:
        """The block whose header is WORD follows (RFC 8878, 3.1.1.2.1)."""
        kind, of_block = word >> 1 & 3, word >> 3
        if of_block > _LARGEST_BLOCK or kind == 3:
            raise ValueError("the zstd stream is corrupt (bad block header)")
        self._left = 1 if kind == 1 else of_block
        if word & 1:
            self._is_last = True
            self._left += 4 * self._has_checksum
