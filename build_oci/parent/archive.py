"""A layer's blob read to its end: decoded, verified, its members found; and its archive, where
that is kept.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from build_oci.codec.table import decode
from build_oci.errors import ParentError
from build_oci.oci.layout import output_error
from build_oci.oci.untrusted import ANEW, named
from build_oci.parent.lower import ArchiveSink, is_plain_archive
from build_oci.work.hashes import new_hash

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from build_oci.oci.untrusted import VerifiedBlob
    from build_oci.work.crew import Crew


class Archive:
    """The uncompressed archive of one layer, open for reading: a spool of ours (`is_ours`, which
    nobody else can write to), or somebody's blob. Closed with its last user.
    """

    def __init__(self, file: BinaryIO, path: str, *, start: int = 0, is_ours: bool) -> None:
        """FILE becomes this object's; the archive begins at START.

        PATH is for errors in writing.
        """
        self._file = file
        self._path = path
        self.start = start
        self.is_ours = is_ours

    def __del__(self) -> None:
        with suppress(OSError):
            self._file.close()

    def fileno(self) -> int:
        return self._file.fileno()

    def write(self, data: Buffer) -> None:
        """Append DATA. Raises OutputError."""
        try:
            self._file.write(data)
        except OSError as error:
            raise output_error(error, self._path) from None

    def flush(self) -> None:
        """Let readers of the descriptor see all that was written. Raises OutputError."""
        try:
            self._file.flush()
        except OSError as error:
            raise output_error(error, self._path) from None


class ReadGauge:
    """How much of an image's blobs has been read; several threads may read."""

    def __init__(
        self, total: int, read: Callable[[int, int], None], check: Callable[[], None]
    ) -> None:
        """CHECK raises once the build is being stopped."""
        self._check = check
        self._total = total
        self._read = read
        self._done = 0
        self._lock = threading.Lock()

    def watch(self, blob: Iterable[bytes]) -> Iterator[bytes]:
        for piece in blob:
            yield piece
            self.add(len(piece))

    def add(self, size: int) -> None:
        """SIZE more bytes are done. Raises what CHECK raises."""
        self._check()
        with self._lock:
            self._done += size
            self._read(self._done, self._total)


def read_archive(
    codec: str,
    blob: VerifiedBlob,
    path: Path,
    diff_id: str,
    workers: Crew,
    sink: ArchiveSink | None,
    write: Callable[[bytes | memoryview], None] | None = None,
    spool: Archive | None = None,
    gauge: ReadGauge | None = None,
) -> None:
    """Unpack BLOB, the file PATH, to its end and check its digest and its diff_id; SINK, WRITE and
    SPOOL get every piece of the archive, and GAUGE is told. Raises ParentError, OutputError.
    """
    pieces = blob_pieces(codec, blob, diff_id)
    if gauge is not None:
        pieces = gauge.watch(pieces)
    try:
        _read_archive(codec, pieces, path, diff_id, workers, sink, write, spool)
    except ParentError:
        if is_plain_archive(codec, blob.descriptor, diff_id):
            for _ in blob:  # is the blob at least what its name says?
                workers.check()
        raise


def blob_pieces(codec: str, blob: VerifiedBlob, diff_id: str) -> Iterator[bytes]:
    """The pieces of BLOB, for one who decodes them and holds the archive against DIFF_ID. What is
    not compressed is the archive, and so not hashed here too.
    """
    return blob.unhashed() if is_plain_archive(codec, blob.descriptor, diff_id) else iter(blob)


def _read_archive(
    codec: str,
    pieces: Iterator[bytes],
    path: Path,
    diff_id: str,
    workers: Crew,
    sink: ArchiveSink | None,
    write: Callable[[bytes | memoryview], None] | None,
    spool: Archive | None,
) -> None:
    algorithm, _, expected = diff_id.partition(":")
    digest = new_hash(algorithm)
    hashed = sink is not None and sink.digest() is not None
    # A reader hashes contents and archive in one pass, for little more than the archive's digest
    # alone takes.
    takers = [sink.feed if sink is not None and hashed else digest.update]
    if spool is not None:
        takers.append(spool.write)
    others: list[Callable[[bytes | memoryview], None]] = (
        [sink.feed] if sink is not None and not hashed else []
    )
    if write is not None:
        others.append(write)
    running: list[Future[None]] = []
    # Where every thread has an archive of its own to read, each does all of it alone: what it
    # decoded is in its core's cache then, and it waits for nobody.
    with (
        ThreadPoolExecutor(len(takers), "digests") as beside,
        workers.decoding() as has_help,
        named(path),
    ):
        for piece in decode(codec, _read_ahead(pieces, beside, has_help), workers.windows):
            workers.check()
            # One piece behind, which is as long as a piece is valid: the threads meet once a piece.
            for task in running:
                task.result()
            if has_help():
                running = [beside.submit(take, piece) for take in takers]
            else:
                running = []
                for take in takers:
                    take(piece)
            for read in others:
                read(piece)
        for task in running:
            task.result()
    found = ((sink.digest() if sink is not None and hashed else None) or digest.digest()).hex()
    if found != expected:
        raise ParentError(
            f"its archive has the digest {algorithm}:{found},"
            f" but the image's config says {diff_id}",
            where=str(path),
            hint=ANEW,
        )


def _read_ahead(
    pieces: Iterable[bytes], executor: Executor, has_help: Callable[[], bool]
) -> Iterator[bytes]:
    """PIECES, each of them fetched by a thread of EXECUTOR, if one helps, while the one before is
    in use.
    """
    iterator = iter(pieces)
    ahead: Future[bytes | None] | None = None
    while True:
        piece = ahead.result() if ahead else next(iterator, None)
        if piece is None:
            return
        ahead = executor.submit(next, iterator, None) if has_help() else None
        yield piece
