"""A walked tree as a stream of tar segments: packed in parallel, delivered in order, a bounded number of them in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, NamedTuple

from build_oci._native.tar import Plan
from build_oci.layer.tree import problem_error, sha256_kernel

if TYPE_CHECKING:
    from build_oci._native.walk import Problem, Tree
    from build_oci.workers import Workers

SEGMENT_SIZE = 1 << 20
# Room in a recycled buffer for the headers of a file as large as a segment; a segment with more gets a buffer of its own.
_HEADERS_ROOM = 64 << 10


def plan_layer(tree: Tree, *, epoch: int | None, preserve_hardlinks: bool) -> Plan:
    """Decide what goes where in the archive."""
    return Plan(tree, epoch=epoch, kernel=sha256_kernel(), segment_size=SEGMENT_SIZE, preserve_hardlinks=preserve_hardlinks)


class _Packed(NamedTuple):
    segment: int
    size: int
    buffer: bytearray
    filled: Future[Problem | None] | None  # None: filled when its turn comes


class Packer:
    """The segments of one plan, in order."""

    def __init__(self, plan: Plan, layer: str, workers: Workers) -> None:
        self._plan = plan
        self._layer = layer
        self._workers = workers
        self._spare: list[bytearray] = []
        self._queue: deque[_Packed] = deque()
        self._digests: dict[int, Future[Problem | None]] = {}
        self._to_digest = (index for index in range(len(plan)) if plan.needs_digest(index))

    def segments(self) -> Generator[memoryview, None, None]:
        """The archive, piece by piece; each piece is valid until the next is asked for.

        Raises TreeError when a file cannot be read or has changed since the walk, Cancelled when the build is stopped.
        """
        with self._workers.stoppable(self._plan.cancel):
            try:
                following = 0
                while following < len(self._plan) or self._queue:
                    self._digest_ahead()
                    following = self._pack_ahead(following)
                    packed = self._queue.popleft()
                    self._finish(packed)
                    yield memoryview(packed.buffer)[: packed.size]
                    self._recycle(packed)
            finally:
                self._abandon()

    def _digest_ahead(self) -> None:
        """Keep the next few large files being hashed, in order: their slices are packed meanwhile, but their headers must wait."""
        while len(self._digests) <= self._workers.count and (large := next(self._to_digest, None)) is not None:
            self._digests[large] = self._workers.pool.submit(self._plan.digest, large)

    def _pack_ahead(self, following: int) -> int:
        """Start as many segments as the budget allows, at least one if none is under way; returns the first not started."""
        while following < len(self._plan):
            size = self._plan.size(following)
            if not self._workers.budget.take(size, block=not self._queue):
                break
            fits = size <= SEGMENT_SIZE + _HEADERS_ROOM
            buffer = self._spare.pop() if fits and self._spare else bytearray(SEGMENT_SIZE + _HEADERS_ROOM if fits else size)
            filled = None if self._plan.needs_digest(following) else self._workers.pool.submit(self._plan.fill, following, buffer)
            self._queue.append(_Packed(following, size, buffer, filled))
            following += 1
        return following

    def _finish(self, packed: _Packed) -> None:
        if packed.filled is None:
            problem = self._digests.pop(packed.segment).result() or self._plan.fill(packed.segment, packed.buffer)
        else:
            problem = packed.filled.result()
        if problem:
            # What was taken for this segment is given back with the others.
            self._queue.appendleft(packed)
            raise problem_error(self._layer, problem)

    def _recycle(self, packed: _Packed) -> None:
        if len(packed.buffer) == SEGMENT_SIZE + _HEADERS_ROOM:
            self._spare.append(packed.buffer)
        self._workers.budget.give_back(packed.size)

    def _abandon(self) -> None:
        """Wait for what still writes to our buffers, after a failure."""
        self._plan.cancel()
        started = [packed.filled for packed in self._queue if packed.filled] + list(self._digests.values())
        # One that never began is not waited for: a pool that was shut down will not even tell that it was cancelled.
        wait([future for future in started if not future.cancel()])
        for packed in self._queue:
            self._workers.budget.give_back(packed.size)
        self._queue.clear()
