"""SHA-256 of streams by the threads of a pool, two side by side: that takes little longer than one.

Two streams with bytes waiting are most urgent. One alone is for a thread that has nothing else to
do, so that another has mostly come when its turn does; no thread waits for that.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from build_oci._native import sha256
from build_oci.errors import Cancelled
from build_oci.work.hashes import new_hash
from build_oci.work.pool import SPARE, STREAM

if TYPE_CHECKING:
    from build_oci.work.pool import Pool

# Bytes of one stream that may wait for another to go beside. A blob comes in bursts: this is a
# block of zstd's, as what is noise comes out.
_PATIENCE = 8 << 20
# Bytes that are hashed before the thread looks whether another stream or the end has come.
_STEP = 1 << 20


class Digest:
    """The SHA-256 of a stream, whose pieces are hashed one at a time, in the order in which they
    come.
    """

    __slots__ = (
        "_digests",
        "error",
        "is_complete",
        "is_taken",
        "is_waiting",
        "pieces",
        "size",
        "state",
    )

    def __init__(self, digests: Digests, state: Any) -> None:
        """STATE: with hashlib's update() and digest()."""
        self._digests = digests
        # The rest is for DIGESTS, under its lock.
        self.state = state
        self.pieces: deque[tuple[memoryview, Callable[[], None]]] = deque()
        self.size = 0  # of the pieces, in bytes
        self.is_waiting = False  # for a thread
        self.is_taken = False  # by a thread
        self.is_complete = False  # somebody waits for the digest
        self.error: BaseException | None = None

    def update(
        self, data: bytes | bytearray | memoryview, release: Callable[[], None] = lambda: None
    ) -> None:
        """Take DATA in; RELEASE is called, by any thread, once its memory may be used anew.

        Raises what went wrong with the pieces before, and Cancelled if the pool was.
        """
        if self.error is not None:
            release()
            raise self.error
        self._digests.add(self, memoryview(data), release)

    def finish(self) -> bytes:
        """The 32 bytes of the digest, once everything is hashed; nothing may follow.

        Raises what update() raises.
        """
        hashed = threading.Lock()
        hashed.acquire()
        self._digests.add(self, memoryview(b""), hashed.release, is_last=True)
        with hashed:
            pass
        if self.error is not None:
            raise self.error
        digest: bytes = self.state.digest()
        return digest


class Digests:
    """The streams that the threads of POOL hash."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        # While there are any, the pool has been told, or a thread is in run() and looks again.
        self._waiting: deque[Digest] = deque()
        self._at_once = 2 if sha256.in_pairs() else 1

    def new(self) -> Digest:
        return Digest(self, new_hash())

    def add(
        self,
        digest: Digest,
        data: memoryview,
        release: Callable[[], None],
        *,
        is_last: bool = False,
    ) -> None:
        """The next piece of DIGEST, see there."""
        with self._lock:
            was_waiting, was_urgent = digest.is_waiting, self._is_urgent()
            digest.pieces.append((data, release))
            digest.size += len(data)
            digest.is_complete = is_last
            if digest.is_taken:
                return
            if not was_waiting:
                digest.is_waiting = True
                self._waiting.append(digest)
            is_urgent = self._is_urgent()
        if not was_waiting or is_urgent > was_urgent:
            self._pool.put(self, STREAM if is_urgent else SPARE)

    def run(self, *, cancelled: bool) -> None:
        """Hash until at most one stream is left, and that may wait; for the pool."""
        taken = self._exchange([])
        while taken:
            try:
                if cancelled or self._pool.cancelled:
                    raise Cancelled("the build was stopped")
                self._hash(taken)
            except BaseException as error:
                for digest in taken:
                    self._fail(digest, error)
            taken = self._exchange(taken)

    def _is_urgent(self) -> bool:
        """Are there two, or is there one that is not to wait?"""
        return len(self._waiting) >= self._at_once or any(
            digest.is_complete or digest.size > _PATIENCE for digest in self._waiting
        )

    def _exchange(self, hashed: list[Digest]) -> list[Digest]:
        """Put HASHED back, and take what comes next. After others, one that may wait is left to the
        pool: its turn has not come.
        """
        with self._lock:
            for digest in hashed:
                digest.is_taken = False
                if digest.pieces:
                    digest.is_waiting = True
                    self._waiting.append(digest)
            taken: list[Digest] = []
            is_left = bool(hashed and self._waiting and not self._is_urgent())
            while self._waiting and len(taken) < self._at_once and not is_left:
                digest = self._waiting.popleft()
                digest.is_waiting, digest.is_taken = False, True
                taken.append(digest)
        if is_left:
            self._pool.put(self, SPARE)
        return taken

    def _hash(self, taken: list[Digest]) -> None:
        """Of the first pieces of TAKEN as much as all have."""
        firsts = [digest.pieces[0] for digest in taken]
        size = min(_STEP, *(len(data) for data, _ in firsts))
        parts = [data[:size] for data, _ in firsts]
        if len(taken) == 2:
            taken[0].state.update_pair(parts[0], taken[1].state, parts[1])
        else:
            taken[0].state.update(parts[0])
        for digest, (data, release) in zip(taken, firsts, strict=True):
            is_done = size == len(data)
            with self._lock:
                digest.size -= size
                if is_done:
                    digest.pieces.popleft()
                else:
                    digest.pieces[0] = data[size:], release
            if is_done:
                release()

    def _fail(self, digest: Digest, error: BaseException) -> None:
        """Let DIGEST end with ERROR: what waits is given up."""
        with self._lock:
            digest.error = digest.error or error
            pieces, digest.pieces, digest.size = digest.pieces, deque(), 0
        for _, release in pieces:
            release()
