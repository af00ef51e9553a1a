"""What all codecs share: the interface of an encoder, and a stream that is compressed block by
block in the pool.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from build_oci.work.budget import Budget
    from build_oci.work.pool import Pool, Task

Piece = bytes | bytearray | memoryview
Sink = Callable[[Piece], object]
Packed = TypeVar("Packed")
# What a block becomes: pieces of the stream.
Pieces = Sequence[Piece]

PIECE = 1 << 20  # no decoder hands out more at once


def slices(chunks: Iterable[bytes], size: int = PIECE) -> Iterator[bytes]:
    """CHUNKS, those longer than SIZE bytes cut."""
    for chunk in chunks:
        if len(chunk) <= size:
            yield chunk
        else:
            yield from (chunk[at : at + size] for at in range(0, len(chunk), size))


class Encoder(Protocol):
    """Compresses one stream; for one thread at a time, and none of the pool's own: it waits for
    what the pool computes.

    annotations: what the layer's descriptor must carry, once the stream is finished.
    """

    annotations: Mapping[str, str]

    def write(self, data: Piece) -> None:
        """Takes DATA in; its memory may be reused as soon as this returns.

        An error in compressing it may come from a later call.
        """

    def add(self, block: memoryview, release: Callable[[], None]) -> None:
        """Takes in a whole block of at most `block_size` bytes; RELEASE is called, by any thread,
        once its memory may be reused.

        Where blocks end shows in the stream. One stream takes either blocks or what is written.
        """

    def poll(self) -> None:
        """Hands on what is ready, without waiting."""

    def relieve(self) -> bool:
        """Waits for the oldest block under way and hands on what it became; False if there is
        none.
        """

    def drop(self) -> None:
        """Instead of finish(), where the stream is given up: waits for what is under way and gives
        its memory back.
        """

    def finish(self) -> None:
        """Writes what is left and ends the stream; nothing may follow."""


class StreamOnly:
    """An encoder that takes a stream only: a block is written to it and released at once."""

    annotations: Mapping[str, str] = MappingProxyType({})

    def write(self, data: Piece) -> None:
        raise NotImplementedError

    def add(self, block: memoryview, release: Callable[[], None]) -> None:
        self.write(block)
        release()

    def poll(self) -> None:
        pass

    def relieve(self) -> bool:
        return False

    def drop(self) -> None:
        pass


class Blocks(Generic[Packed]):
    """A stream of blocks that are compressed in the pool, each of them on its own, and joined.

    Several streams share one budget. Whoever waits for it has no block under way himself, so that
    those who have are never waited for by one another.
    """

    annotations: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self,
        sink: Sink,
        pool: Pool,
        size: int,
        most: int,
        header: bytes,
        budget: Budget,
        context: int,
    ) -> None:
        """SIZE: of the blocks that what is written is cut into; MOST: how many are under way at
        once, at most; BUDGET: bytes that these may take, of which each takes its own size, as much
        for what comes out of it, and CONTEXT bytes for the compressor."""
        self._sink = sink
        self._pool = pool
        self._size = size
        self._most = most
        self._header = header
        self._budget = budget
        self._context = context
        # Each block with the bytes of the budget that it has taken.
        self._in_flight: deque[tuple[Task[Packed], int]] = deque()
        self._open = bytearray()  # the start of the next block

    def write(self, data: Piece) -> None:
        view = memoryview(data).cast("B")
        while len(view) >= (missing := self._size - len(self._open)):
            self._open += view[:missing]
            view = view[missing:]
            self._close()
        self._open += view

    def add(self, block: memoryview, release: Callable[[], None]) -> None:
        self._begin(partial(self._pack_and_release, block, release), len(block))

    def _begin(self, work: Callable[[], Packed], size: int) -> None:
        """Let the pool do WORK, which packs a block of SIZE bytes, once there is memory for it."""
        self._drain(self._most - 1)
        takes = 2 * size + self._context
        while not self._budget.take(takes, block=not self._in_flight):
            self.relieve()
        self._in_flight.append((self._pool.submit(work), takes))

    def poll(self) -> None:
        self._drain(self._most)

    def relieve(self) -> bool:
        if not self._in_flight:
            return False
        self._drain(len(self._in_flight) - 1)
        return True

    def drop(self) -> None:
        for task, taken in self._in_flight:
            task.wait()
            self._budget.give_back(taken)
        self._in_flight.clear()

    def finish(self) -> None:
        if self._open:
            self._close()
        self._drain(0)
        self._write_header()
        self._sink(self._trailer())

    def _close(self) -> None:
        block, self._open = self._open, bytearray()
        self.add(memoryview(block), lambda: None)

    def _pack_and_release(self, block: memoryview, release: Callable[[], None]) -> Packed:
        try:
            return self._pack(block)
        finally:
            release()

    def _drain(self, most: int) -> None:
        """Hands on what is ready, in order, and waits until at most MOST blocks are in flight."""
        while self._in_flight and (len(self._in_flight) > most or self._in_flight[0][0].done()):
            task, taken = self._in_flight.popleft()
            try:
                pieces = self._taken(task.result())
                self._write_header()
                for piece in pieces:
                    self._sink(piece)
            finally:
                self._budget.give_back(taken)

    def _write_header(self) -> None:
        if self._header:
            self._sink(self._header)
            self._header = b""

    def _pack(self, block: memoryview) -> Packed:
        """BLOCK, compressed so that it can follow any other; called by threads of the pool."""
        raise NotImplementedError

    def _taken(self, packed: Packed) -> Pieces:
        """What of a packed block goes into the stream; called in the order of the blocks."""
        raise NotImplementedError

    def _trailer(self) -> bytes:
        raise NotImplementedError
