"""A walked tree as a stream of tar segments: packed in parallel, delivered in order, a bounded number of them in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, NamedTuple

from build_oci._native.tar import Plan
from build_oci.layer.tree import problem_error, sha256_kernel
from build_oci.pool import AHEAD, SEGMENT

if TYPE_CHECKING:
    from build_oci._native.walk import Problem, Tree
    from build_oci.pool import Task
    from build_oci.workers import Workers

SEGMENT_SIZE = 1 << 20
# Room in a recycled buffer for the headers of a file as large as a segment; a segment with more gets a buffer of its own.
_HEADERS_ROOM = 64 << 10
# Large files are hashed so far ahead of being packed: far enough that no header waits while a worker has nothing to do, and not so far
# that they have left the page cache when they are read again.
_DIGEST_AHEAD = 128 << 20
# As many of them as hold so many bytes are hashed by one call, two at a time.
_DIGEST_TOGETHER = 8 << 20


def plan_layer(tree: Tree, *, epoch: int | None, preserve_hardlinks: bool) -> Plan:
    """Decide what goes where in the archive."""
    return Plan(tree, epoch=epoch, kernel=sha256_kernel(), segment_size=SEGMENT_SIZE, preserve_hardlinks=preserve_hardlinks)


class Segment:
    """A piece of the archive: `data` holds it until it is released."""

    def __init__(self, packer: Packer, number: int, size: int, buffer: bytearray) -> None:
        self.number = number
        self.size = size
        self.buffer = buffer
        self.filled: Task[Problem | None] | None = None  # None: it waits for a digest, and is filled when its turn comes
        self._packer = packer

    @property
    def data(self) -> memoryview:
        return memoryview(self.buffer)[: self.size]

    def release(self) -> None:
        """Nobody reads it any more. To be called once, from any thread."""
        self._packer.take_back(self)


class _Group(NamedTuple):
    """Large files of SIZE bytes in all that one call hashes; `last` is the segment of the headers of the last of them."""

    task: Task[Problem | None]
    size: int
    last: int


class Packer:
    """The segments of one plan, in order."""

    def __init__(self, plan: Plan, layer: str, workers: Workers) -> None:
        self._plan = plan
        self._layer = layer
        self._workers = workers
        self._spare: deque[bytearray] = deque()
        self._queue: deque[Segment] = deque()
        self._digests: deque[_Group] = deque()  # in the order in which their headers come
        self._to_digest = self._groups()

    def segments(self) -> Generator[Segment, None, None]:
        """The archive, piece by piece. What is not released in time holds up those that follow: memory is bounded.

        Raises TreeError when a file cannot be read or has changed since the walk, Cancelled when the build is stopped.
        """
        with self._workers.stoppable(self._plan.cancel):
            try:
                following = 0
                while following < len(self._plan) or self._queue:
                    self._digest_ahead()
                    following = self._pack_ahead(following)
                    self._finish(self._queue[0])
                    yield self._queue.popleft()
            finally:
                self._abandon()

    def take_back(self, segment: Segment) -> None:
        """Use the memory of SEGMENT anew."""
        if len(segment.buffer) == SEGMENT_SIZE + _HEADERS_ROOM:
            self._spare.append(segment.buffer)
        self._workers.budget.give_back(segment.size)

    def _groups(self) -> Iterator[tuple[list[int], int]]:
        """The segments whose headers need the digest of a large file, in groups that are hashed together, and the bytes of their files."""
        group: list[int] = []
        size = 0
        for index in range(len(self._plan)):
            if more := self._plan.to_digest(index):
                group.append(index)
                size += more
                if size >= _DIGEST_TOGETHER:
                    yield group, size
                    group, size = [], 0
        if group:
            yield group, size

    def _digest_ahead(self) -> None:
        """Keep the next large files being hashed, in order: their slices are packed meanwhile, but their headers must wait.

        A large one keeps a thread for long; so, where there are several, one of them always stays free for what is more urgent.
        """
        while (
            sum(not group.task.done() for group in self._digests) < max(1, self._workers.count - 1)
            and sum(group.size for group in self._digests) < _DIGEST_AHEAD
            and (following := next(self._to_digest, None))
        ):
            indexes, size = following
            task = self._workers.pool.submit(self._plan.digest, *indexes, urgency=AHEAD)
            self._digests.append(_Group(task, size, indexes[-1]))

    def _pack_ahead(self, following: int) -> int:
        """Start as many segments as the budget allows, at least one if none is under way; returns the first not started."""
        while following < len(self._plan):
            size = self._plan.size(following)
            if not self._workers.budget.take(size, block=not self._queue):
                break
            segment = Segment(self, following, size, self._buffer(size))
            if not self._plan.to_digest(following):
                segment.filled = self._workers.pool.submit(self._plan.fill, following, segment.buffer, urgency=SEGMENT)
            self._queue.append(segment)
            following += 1
        return following

    def _buffer(self, size: int) -> bytearray:
        # The budget counts what is in them: none may be much larger than that.
        if not SEGMENT_SIZE // 2 < size <= SEGMENT_SIZE + _HEADERS_ROOM:
            return bytearray(size)
        return self._spare.pop() if self._spare else bytearray(SEGMENT_SIZE + _HEADERS_ROOM)

    def _finish(self, segment: Segment) -> None:
        if segment.filled is None:
            problem = self._digested(segment.number) or self._plan.fill(segment.number, segment.buffer)
        else:
            problem = segment.filled.result()
        if problem:
            raise problem_error(self._layer, problem)

    def _digested(self, index: int) -> Problem | None:
        group = self._digests[0]
        if index == group.last:
            self._digests.popleft()
        return group.task.result()

    def _abandon(self) -> None:
        """After a failure: what is still under way ends soon, and keeps the memory that it writes to until then."""
        self._plan.cancel()
        self._spare.clear()
        for segment in self._queue:
            self._workers.budget.give_back(segment.size)
        self._queue.clear()
