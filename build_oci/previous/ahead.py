"""Blobs of a trusted previous image, hashed before it is known which layers come out again: while
one thread finds that out, the others would have nothing to do. Until it knows, one thread of the
pool fewer than there are processors hashes, so that it has a processor for itself.

It changes nothing but the time. What is found says something only of a blob that is carried, and
only if its file is still the same by then.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from build_oci._native.sha256 import Files
from build_oci.errors import ParentError
from build_oci.oci.untrusted import Hashed, hashing, side_by_side
from build_oci.work.pool import SEGMENT, Task

if TYPE_CHECKING:
    from build_oci.oci.untrusted import FilePart, ReadDescriptor, Source, VerifiedBlob
    from build_oci.work.crew import Crew

_Seen: TypeAlias = tuple[int, ...]
_Found: TypeAlias = "dict[str, tuple[_Seen, Hashed]]"
"""By digest, of the blobs of a batch."""


def _seen(part: FilePart) -> _Seen:
    """What tells that PART is what it was: any change of a file sets its time of change."""
    found = os.fstat(part.fd)
    return (
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
        part.start,
    )


class _Batch:
    """Blobs that one task of the pool hashes, side by side."""

    def __init__(
        self, descriptors: list[ReadDescriptor], hash_all: Callable[[_Batch], _Found]
    ) -> None:
        self.descriptors = descriptors
        self.task = Task(partial(hash_all, self))
        self._files: Files | None = None
        self._is_stopped = False

    def stop(self) -> None:
        self._is_stopped = True
        if self._files is not None:
            self._files.cancel()

    def run(self, source: Source, workers: Crew) -> _Found:
        """For the pool. What cannot be opened is left to the one who carries it."""
        with ExitStack() as stack:
            blobs = []
            for descriptor in () if self._is_stopped else self.descriptors:
                with suppress(ParentError):
                    blobs.append(stack.enter_context(source.blob(descriptor)))
            blobs = [blob for blob in blobs if not blob.is_known]
            seen = [_seen(blob.part) for blob in blobs]
            self._files = hashing(blobs)
            if self._is_stopped:
                return {}
            with workers.stoppable(self._files.cancel):
                found = self._files.run() or ()
            return {
                blob.descriptor.digest: (known, Hashed(*one))
                for blob, known, one in zip(blobs, seen, found, strict=bool(found))
            }


class HashedAhead:
    """What is known of the blobs of SOURCE."""

    def __init__(self, source: Source, workers: Crew) -> None:
        self._source = source
        self._workers = workers
        self._batches: dict[str, _Batch] = {}
        self._waiting: deque[Task[_Found]] = deque()  # for the pool

    def begin(self, blobs: Iterable[ReadDescriptor]) -> None:
        """Hash BLOBS whenever a thread of the pool has nothing else to do."""
        wanted = {blob.digest: blob for blob in blobs}
        for descriptors in side_by_side(
            wanted.values(), lambda blob: blob.size, self._workers.count
        ):
            batch = _Batch(descriptors, self._run)
            self._batches.update(dict.fromkeys((blob.digest for blob in descriptors), batch))
            self._waiting.append(batch.task)
        self._submit(self._workers.count - 1)

    def _run(self, batch: _Batch) -> _Found:
        try:
            return batch.run(self._source, self._workers)
        finally:
            self._submit(1)

    def _submit(self, most: int) -> None:
        """Let the pool do MOST of those that wait."""
        with suppress(IndexError):
            for _ in range(most):
                self._workers.pool.put(self._waiting.popleft(), SEGMENT)

    def keep(self, digests: Collection[str]) -> None:
        """Nothing else than the blobs of these DIGESTS is of any use, and they are waited for."""
        kept = {id(self._batches[digest]) for digest in digests if digest in self._batches}
        for batch in self._batches.values():
            if id(batch) not in kept:
                batch.stop()
        self._submit(len(self._waiting))

    def find(self, blob: VerifiedBlob) -> Hashed | None:
        """What is known of BLOB, which is open; waits for the end of what is under way."""
        batch = self._batches.get(blob.descriptor.digest)
        if batch is None:
            return None
        self._submit(len(self._waiting))
        self._workers.check()
        batch.task.wait()
        self._workers.check()
        with suppress(Exception):
            seen, found = batch.task.result().get(blob.descriptor.digest, ((), None))
            return found if seen == _seen(blob.part) else None
        return None
