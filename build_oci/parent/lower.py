"""What the layers of a parent hold when they are put on top of each other, found while they
are read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from build_oci.oci.recorded import recorded_headers
from build_oci.oci.untrusted import ENTRY_COST, LAYER_COST, named, unreadable
from build_oci.records import NamedTuple

if TYPE_CHECKING:
    from build_oci._native.lower import Lower, TarReader
    from build_oci.oci.untrusted import ReadDescriptor, VerifiedBlob

# For the table of a parent's names: far beyond any image (3 million entries), far below what a
# hostile one would take.
_TABLE_LIMIT = 1 << 30
# Within it, what members and the table made of them may take beside ENTRY_COST for each, over all
# parents that are in use: hostile ones have long names and thousands of directories in one name.
SLACK = 64 << 20
_READS = 256  # of a few kilobytes, between two looks at whether to stop


class ArchiveSink(NamedTuple):
    """Who takes in an archive piece by piece. digest: the SHA-256 of what was fed, None where it is
    not computed.
    """

    feed: Callable[[bytes | memoryview], None]
    digest: Callable[[], bytes | None]


def is_plain_archive(codec: str, descriptor: ReadDescriptor, diff_id: str) -> bool:
    """Is the blob of DESCRIPTOR the archive of that DIFF_ID itself, not compressed?"""
    return codec == "disabled" and descriptor.digest == diff_id


class TarReaders:
    """What the layers of one parent hold; they share one limit of memory with the table that is
    made of them.
    """

    def __init__(
        self, diff_ids: list[str], *, trust: bool, share: int = 1, whole: bool = False
    ) -> None:
        """TRUST believes checksum records in the archives.

        SHARE: how many parents are in use at the same time.

        WHOLE: large attributes are wanted, not only their digests.
        """
        from build_oci._native.lower import TarReader
        from build_oci.work.cpus import sha256_kernel

        self._new = partial(
            TarReader, kernel=sha256_kernel(), memory_limit=_TABLE_LIMIT, trust=trust, whole=whole,
            whole_names=False,
        )  # fmt: skip
        self._trust = trust
        self._readers = [self._new(digest=diff_id.startswith("sha256:")) for diff_id in diff_ids]
        self._slack = SLACK // share + LAYER_COST * len(diff_ids)
        self._lock = threading.Lock()
        self._counted = [(0, 0)] * len(diff_ids)  # bytes and members of each
        self._held = self._members = 0

    def feed(self, number: int, piece: bytes | memoryview) -> None:
        """The next piece of the archive of layer NUMBER; several threads may feed different layers.
        ValueError when it is refused.
        """
        self._readers[number].feed(piece)
        self._count(number)
        self.left()

    def digest(self, number: int) -> bytes | None:
        """The SHA-256 of what was fed of archive NUMBER, where its diff_id is one."""
        return self._readers[number].digest

    def sink(self, number: int) -> ArchiveSink:
        """What takes in the archive of layer NUMBER."""
        return ArchiveSink(partial(self.feed, number), partial(self.digest, number))

    def can_spare(self, descriptor: ReadDescriptor, codec: str, diff_id: str) -> bool:
        """May most of a blob go unread here, once it is known to be right: are records believed,
        and are there a header list or contents to be sought over?
        """
        is_archive = is_plain_archive(codec, descriptor, diff_id)
        return self._trust and (is_archive or recorded_headers(descriptor.annotations) is not None)

    def can_list(self, blob: VerifiedBlob, codec: str, diff_id: str) -> bool:
        """May the members in BLOB be taken from its header list: are records believed?

        What is not compressed must be the archive of that DIFF_ID.
        """
        return self._trust and (
            codec != "disabled" or is_plain_archive(codec, blob.descriptor, diff_id)
        )

    def headers_reader(self, number: int) -> Callable[[bytes | memoryview], None]:
        """What takes in the headers of layer NUMBER, without the contents, in place of its
        archive.
        """
        self._readers[number] = self._new(digest=False, headers=True)
        return partial(self.feed, number)

    def can_seek(self, blob: VerifiedBlob, codec: str, diff_id: str) -> bool:
        """May the contents in BLOB be sought over: is it known to be a plain archive of that
        DIFF_ID, whose records are believed?
        """
        return self._trust and blob.is_known and is_plain_archive(codec, blob.descriptor, diff_id)

    def seek_through(self, number: int, blob: VerifiedBlob, tell: Callable[[int], None]) -> None:
        """Read the members of layer NUMBER from BLOB, and as little else as they allow; TELL is
        told how many more bytes are done, and may raise. ParentError where it cannot be read,
        ValueError when it is refused.
        """
        reader = self._readers[number] = self._new(digest=False)
        at, size = 0, blob.descriptor.size
        while at < size:
            before = at
            try:
                at = reader.seek_through(blob.part.fd, blob.part.start, size, at, _READS)
            except OSError as error:
                raise unreadable(error.errno or 0, blob.path) from None
            self._count(number)
            self.left()
            tell(at - before)

    def finish(self, number: int) -> None:
        """That archive has ended. ValueError when it should not have."""
        self._readers[number].finish()
        self._count(number)

    def merge(self, wheres: list[Path], check: Callable[[], None]) -> Lower:
        """The layers on top of each other. ParentError naming one of WHERES."""
        from build_oci._native.lower import Lower

        lower = Lower(memory_limit=self.left())
        self.put_on(lower, wheres, check)
        return lower

    def put_on(self, lower: Lower, wheres: list[Path], check: Callable[[], None]) -> None:
        """Put the layers on top of LOWER. ParentError naming one of WHERES."""
        for reader, where in zip(self._readers, wheres, strict=True):
            check()
            with named(where):
                lower.apply(reader, check)

    def __getitem__(self, number: int) -> TarReader:
        return self._readers[number]

    def _count(self, number: int) -> None:
        reader = self._readers[number]
        held, members = now = reader.held, len(reader)
        with self._lock:
            before = self._counted[number]
            self._counted[number] = now
            self._held += held - before[0]
            self._members += members - before[1]

    def limit(self) -> int:
        """Bytes that a table of all members may take."""
        with self._lock:
            return min(_TABLE_LIMIT, self._slack + ENTRY_COST * self._members)

    def left(self) -> int:
        """Bytes of the limit that are left. ValueError where there are none."""
        left = self.limit() - self._held
        if left <= 0:
            raise ValueError(
                "the members of this image's layers need more memory than so many may have"
            )
        return left


def empty_table(limit: int = _TABLE_LIMIT) -> Lower:
    """A table of no names yet, which may take LIMIT bytes."""
    from build_oci._native.lower import Lower

    return Lower(memory_limit=min(limit, _TABLE_LIMIT))


def own_reader() -> TarReader:
    """What reads an archive that this build makes, and whose records are true."""
    from build_oci._native.lower import TarReader
    from build_oci.work.cpus import sha256_kernel

    return TarReader(
        kernel=sha256_kernel(), memory_limit=_TABLE_LIMIT, trust=True, whole_names=False
    )
