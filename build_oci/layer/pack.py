"""A walked tree as a stream of tar segments: packed in parallel, delivered in order, a bounded
number of them in memory.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from build_oci._native.memory import uninitialised_bytearray
from build_oci._native.tar import Partition, Plan
from build_oci.errors import printable
from build_oci.layer.walk import problem_error
from build_oci.records import NamedTuple
from build_oci.work.cpus import sha256_kernel
from build_oci.work.pool import SEGMENT

if TYPE_CHECKING:
    from build_oci._native.walk import Problem
    from build_oci.work.crew import Crew
    from build_oci.work.pool import Task

SEGMENT_SIZE = 1 << 20
_HEADERS_ROOM = 64 << 10
# Large files are hashed so far ahead of being packed: far enough that no header waits while a
# worker has nothing to do, and not so far that they have left the page cache when they are read
# again.
_DIGEST_AHEAD = 32 << 20
# As many of them as hold so many bytes are hashed by one call, side by side.
_DIGEST_TOGETHER = 8 << 20


class PlannedLayer(NamedTuple):
    """A layer that is to be packed. number: among those of the partition. components: their names,
    sorted; none where nothing is split.
    """

    plan: Plan
    number: int
    components: tuple[str, ...] = ()


def layer_name(planned: Sequence[PlannedLayer], number: int, path: str) -> str:
    """What users may call layer NUMBER of those PLANNED for the directory PATH."""
    if len(planned) == 1:
        return path
    name, components = f"{path}, layer {number + 1} of {len(planned)}", planned[number].components
    if not components:
        return name
    more = f" and {len(components) - 3} more" if len(components) > 3 else ""
    return f"{name} ({', '.join(printable(one) for one in components[:3])}{more})"


def plan_layers(
    partition: Partition,
    *,
    epoch: int | None,
    components: Callable[[int], tuple[str, ...]] = lambda number: (),
) -> list[PlannedLayer]:
    """The layers of PARTITION that hold anything, the lowest first; COMPONENTS says what is in the
    layer of a number.
    """
    kernel = sha256_kernel()
    return [
        PlannedLayer(
            Plan(partition, number, epoch=epoch, kernel=kernel, segment_size=SEGMENT_SIZE),
            number,
            components(number),
        )
        for number in range(len(partition))
        if partition.members(number)
    ]


def block_sizes(plan: Plan, most: int) -> Iterator[int]:
    """Bytes of the blocks that an archive is compressed in: runs of segments of at most MOST bytes,
    or one segment that is larger.

    Where blocks end shows in the compressed stream, so this depends on the archive alone.
    """
    size = 0
    for number in range(len(plan)):
        segment = plan.size(number)
        if size and size + segment > most:
            yield size
            size = 0
        size += segment
    if size:
        yield size


class Block:
    """A run of segments, one behind the other in memory, that is compressed as one.

    Its memory is used anew when all have released it.
    """

    def __init__(self, packer: Packer, buffer: bytearray) -> None:
        self.size = 0  # bytes of the archive
        self.buffer = buffer
        self._packer = packer
        self._lock = threading.Lock()
        self._users = 1

    def take(self, size: int) -> memoryview:
        """Room for the SIZE bytes that follow; it is to be released too."""
        self.hold()
        start, self.size = self.size, self.size + size
        return memoryview(self.buffer)[start : self.size]

    def hold(self) -> None:
        """Another user has come, which is to release it too."""
        with self._lock:
            self._users += 1

    @property
    def data(self) -> memoryview:
        return memoryview(self.buffer)[: self.size]

    def release(self) -> None:
        """One of its users is done with it. To be called once by each, from any thread."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
        self._packer.take_back(self)


class Segment(NamedTuple):
    """A piece of the archive: `data` holds it until the block is released.

    The block has come to its end with it if `is_last`.
    """

    number: int
    data: memoryview
    block: Block
    is_last: bool
    # None: the segment waits for a digest, and is filled when its turn comes.
    filled: Task[Problem | None] | None


class _Group(NamedTuple):
    """Large files of SIZE bytes in all that one call hashes; `last` is the segment of the headers
    of the last of them.
    """

    task: Task[Problem | None]
    size: int
    last: int


class Packer:
    """The segments of one plan, in order, and gathered in blocks: as many to a block as
    WORKERS.block_size has room for, at least one.
    """

    def __init__(self, plan: Plan, root: str, workers: Crew) -> None:
        self.plan = plan
        self.root = root
        self._workers = workers
        # Room for the headers of a file as large as a segment, where a block is one; a block with
        # more gets a buffer of its own.
        self._room = min(workers.block_size + _HEADERS_ROOM, plan.archive_size)
        self._open: Block | None = None  # more segments follow in it
        self._queue: deque[Segment] = deque()
        self._digests: deque[_Group] = deque()  # in the order in which their headers come
        self._to_digest = self._groups()

    def segments(
        self, relieve: Callable[[], bool] = lambda: False
    ) -> Generator[Segment, None, None]:
        """The archive, piece by piece; from its start at every call.

        What is not released in time holds up those that follow: memory is bounded.

        RELIEVE waits for the end of something else that was made of it, and holds memory; False if
        there is nothing. It is called before this waits for memory itself: so of several archives
        that are made at once none waits for another that waits for it.

        Raises TreeError when a file cannot be read or has changed since the walk, Cancelled when
        the build is stopped.
        """
        self.plan.restart()
        self._open = None
        self._digests.clear()
        self._to_digest = self._groups()
        with self._workers.stoppable(self.plan.cancel):
            try:
                following = 0
                while following < len(self.plan) or self._queue:
                    self._digest_ahead()
                    following = self._pack_ahead(following, relieve)
                    self._finish(self._queue[0])
                    yield self._queue.popleft()
            except BaseException:
                self._abandon()
                raise

    def take_back(self, block: Block) -> None:
        """Use the memory of BLOCK anew, for whichever image comes first."""
        if len(block.buffer) == self._workers.block_size + _HEADERS_ROOM:
            self._workers.spare.append(block.buffer)
        self._workers.budget.give_back(len(block.buffer))

    def _groups(self) -> Iterator[tuple[list[int], int]]:
        """The segments whose headers need the digest of a large file, in groups that are hashed
        together, and the bytes of their files.
        """
        group: list[int] = []
        size = 0
        for index in range(len(self.plan)):
            if more := self.plan.to_digest(index):
                group.append(index)
                size += more
                if size >= _DIGEST_TOGETHER:
                    yield group, size
                    group, size = [], 0
        if group:
            yield group, size

    def _digest_ahead(self) -> None:
        """Keep the next large files being hashed, in order: their slices are packed meanwhile, but
        their headers must wait.

        A large one keeps a thread for long; so, where there are several, one of them always stays
        free for what is more urgent.
        """
        while (
            sum(not group.task.done() for group in self._digests) < max(1, self._workers.count - 1)
            and sum(group.size for group in self._digests) < _DIGEST_AHEAD
            and (following := next(self._to_digest, None))
        ):
            indexes, size = following
            task = self._workers.pool.submit(self.plan.digest, *indexes, urgency=SEGMENT)
            self._digests.append(_Group(task, size, indexes[-1]))

    def _pack_ahead(self, following: int, relieve: Callable[[], bool]) -> int:
        """Start as many segments as the budget allows, at least one if none is under way; returns
        the first not started.
        """
        while following < len(self.plan):
            size = self.plan.size(following)
            block = self._open or self._new_block(size, relieve)
            if block is None:
                break
            data, number = block.take(size), following
            following += 1
            is_last = (
                following == len(self.plan)
                or block.size + self.plan.size(following) > self._workers.block_size
            )
            self._open = None if is_last else block
            filled = None
            if not self.plan.to_digest(number):
                filled = self._workers.pool.submit(self.plan.fill, number, data, urgency=SEGMENT)
            self._queue.append(Segment(number, data, block, is_last, filled))
        return following

    def _new_block(self, size: int, relieve: Callable[[], bool]) -> Block | None:
        """One with room for SIZE bytes at least.

        None if the budget has no more, and there is something to wait for meanwhile.
        """
        size = max(size, self._room)
        budget = self._workers.budget
        while not budget.take(size, block=False):
            if self._queue:
                return None
            if not relieve():
                budget.take(size, block=True)
                break
        if size == self._workers.block_size + _HEADERS_ROOM:
            with suppress(IndexError):
                return Block(self, self._workers.spare.pop())
        return Block(self, uninitialised_bytearray(size))

    def _finish(self, segment: Segment) -> None:
        if segment.filled is None:
            problem = self._digested(segment.number) or self.plan.fill(segment.number, segment.data)
        else:
            problem = segment.filled.result()
        if problem:
            raise problem_error(self.root, problem)

    def _digested(self, index: int) -> Problem | None:
        group = self._digests[0]
        if index == group.last:
            self._digests.popleft()
        return group.task.result()

    def _abandon(self) -> None:
        """After a failure: what is still under way ends soon, and keeps the memory that it writes
        to until then.
        """
        self.plan.cancel()
        self._queue.clear()
