"""The threads and the bytes in flight of one build, shared by all its images: first error wins,
everything else stops.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from build_oci.errors import Cancelled
from build_oci.work.budget import Budget

if TYPE_CHECKING:
    from concurrent.futures import Future

    from build_oci.work.digests import Digests
    from build_oci.work.pool import Pool, Task

# Blocks of file data in flight beside the one that each worker has: what is being filled, and what
# waits. More only cost memory, and time where they leave the CPU's caches.
BLOCKS_WAITING = 3
MOST_IN_FLIGHT = 72 << 20
# The memory promise in bytes; docs/internals/memory.md has the sum. Where `prefetch-limit-mb` is
# small, the promise is that and BESIDE_LIMIT.
PROMISED = 300 << 20
BESIDE_LIMIT = 128 << 20
EVERYTHING_ELSE = 80 << 20  # interpreter, libraries, heads of files, free pieces of the heap
# Bytes that the windows of all readers of zstd streams may take together, beside the 8 MiB that
# each may have: one of the largest.
LARGE_WINDOWS = 128 << 20
# Layers under way beside one for each worker: they are being opened or closed, or wait for memory.
LAYERS_WAITING = 2

Result = TypeVar("Result")


class Crew:
    """`count` threads for the work, a budget for the bytes, and a way to stop it all.

    A task of the pool never waits for another task: whoever coordinates (one thread an image) does
    the waiting.
    """

    def __init__(
        self,
        count: int,
        memory_limit: int,
        images: int = 1,
        block_size: int = 1 << 20,
        codec_least: int = 1 << 20,
    ) -> None:
        """IMAGES: how many may be under way at once, if there are threads and memory for them;
        MEMORY_LIMIT, in bytes, is for file data, which is handed on in blocks of BLOCK_SIZE bytes;
        CODEC_LEAST is what the compressor of one image takes in any case."""
        self.count = count
        self.block_size = block_size
        self._pool: Pool | None = None
        self._digests: Digests | None = None
        in_flight = (count + BLOCKS_WAITING) * (block_size + (block_size >> 4))
        self.budget = Budget(min(memory_limit, in_flight, MOST_IN_FLIGHT))
        self.windows = Budget(LARGE_WINDOWS)
        # Memory of blocks that nobody uses, and that no budget counts.
        self.spare: deque[bytearray] = deque()
        # The bytes that the compressors of one image may take: what is promised
        # (docs/internals/memory.md has the sum), less the data in flight and everything else.
        promised = min(memory_limit + BESIDE_LIMIT, PROMISED)
        memory = promised - max(self.budget.limit, block_size) - EVERYTHING_ELSE
        self.images_at_once = max(
            1, min(images, count, memory_limit // (2 * block_size), memory // codec_least)
        )
        self.codec_memory = memory // self.images_at_once
        self.codec_budget = Budget(memory)  # the same, for the compressors that share it
        # Layers of one image that are under way at once: a small one keeps no more than one thread
        # busy.
        self.layers_at_once = max(1, min(count + LAYERS_WAITING, self.codec_memory // codec_least))
        self._lock = threading.RLock()  # a signal handler may cancel in the midst of its holder
        self._decoders = 0
        self._stoppers: list[Callable[[], None]] = []
        self._cancelled = False

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.cancel()
        if self._pool is not None:
            self._pool.close()

    @property
    def pool(self) -> Pool:
        """The threads; started when they are first asked for, since an image without a layer needs
        none.
        """
        from build_oci.work.pool import Pool

        with self._lock:
            if self._pool is None:
                self._pool = Pool(self.count)
                self._pool.cancelled = self._cancelled
            return self._pool

    @property
    def digests(self) -> Digests:
        """The streams that the threads hash."""
        from build_oci.work.digests import Digests

        with self._lock:
            if self._digests is None:
                self._digests = Digests(self.pool)
            return self._digests

    def cancel(self) -> None:
        """Stop native work that is under way, and let every coordinator run into Cancelled."""
        with self._lock:
            self._cancelled = True
            if self._pool is not None:
                self._pool.cancelled = True
            stoppers = list(self._stoppers)
        for stop in stoppers:
            stop()
        self.budget.close()
        self.windows.close()
        self.codec_budget.close()

    def check(self) -> None:
        """Raise Cancelled once the build is being stopped."""
        if self._cancelled:
            raise Cancelled("the build was stopped")

    @contextmanager
    def stoppable(self, stop: Callable[[], None]) -> Iterator[None]:
        """Call STOP (from any thread) if the build is cancelled inside the block, or the block
        itself fails.
        """
        with self._lock:
            self._stoppers.append(stop)
            cancelled = self._cancelled
        try:
            if cancelled:
                stop()
            yield
        except BaseException:
            stop()
            raise
        finally:
            with self._lock:
                self._stoppers.remove(stop)

    @contextmanager
    def decoding(self) -> Iterator[Callable[[], bool]]:
        """Inside the block this thread decodes a stream, which cannot be divided. The function that
        it gets tells whether another thread would help it at the moment: whether there are fewer
        decoders than threads.
        """
        with self._lock:
            self._decoders += 1
        try:
            yield lambda: self._decoders < self.count
        finally:
            with self._lock:
                self._decoders -= 1

    def run_on_all(
        self, work: Callable[[], None], stop: Callable[[], None], meanwhile: Callable[[], None]
    ) -> None:
        """Call WORK once on each thread of the pool, and MEANWHILE here, and wait for all of them;
        STOP makes them return soon.
        """
        from build_oci.work.pool import SEGMENT

        with self.stoppable(stop):
            tasks: list[Task[None]] = [
                self.pool.submit(work, urgency=SEGMENT) for _ in range(self.count)
            ]
            meanwhile()
            for task in tasks:
                task.wait()
        for task in tasks:
            task.result()
        self.check()

    @contextmanager
    def concurrently(self, work: Callable[[], Result]) -> Iterator[Future[Result]]:
        """Run WORK, which coordinates and does no work of its own, beside the block.

        If either fails, the other is stopped.
        """
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1, thread_name_prefix="beside") as coordinator:
            future = coordinator.submit(work)
            try:
                yield future
            except BaseException as error:
                self.cancel()
                coordinator.shutdown()
                raise _reason(error, [future]) from None

    def each(
        self,
        work: Callable[[Any], Any],
        items: list[Any],
        *,
        at_once: int,
        size: Callable[[Any], int] | None = None,
    ) -> list[Any]:
        """[work(item) for item in items], by coordinators of their own, AT_ONCE of them side by
        side; the largest by SIZE first, so that none is left over at the end. The first error stops
        the others.
        """

        def unless_stopped(item: Any) -> Any:
            # WORK may take seconds before it looks itself, where there are thousands of items.
            self.check()
            return work(item)

        if len(items) < 2 or at_once < 2:
            return [unless_stopped(item) for item in items]
        from concurrent.futures import ThreadPoolExecutor, as_completed

        futures: list[Future[Any]] = []
        order = list(range(len(items)))
        if size is not None:
            order.sort(key=lambda number: -size(items[number]))
        with ThreadPoolExecutor(
            min(at_once, len(items)), thread_name_prefix="image"
        ) as coordinators:
            try:
                for number in order:
                    self.check()
                    futures.append(coordinators.submit(unless_stopped, items[number]))
                for future in as_completed(futures):
                    future.result()
            except BaseException as error:
                self.cancel()
                coordinators.shutdown(cancel_futures=True)
                raise _reason(error, futures) from None
        found = dict(zip(order, futures, strict=True))
        return [found[number].result() for number in range(len(items))]


def _reason(error: BaseException, futures: list[Future[Any]]) -> BaseException:
    """ERROR, or what ended one of FUTURES where ERROR only says that it was stopped: what stops the
    others may itself be slow to end.
    """
    if isinstance(error, Cancelled):
        reasons = [future.exception() for future in futures if not future.cancelled()]
        return next(
            (reason for reason in reasons if reason and not isinstance(reason, Cancelled)), error
        )
    return error
