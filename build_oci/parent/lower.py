"""What the layers of a parent hold when they are put on top of each other, scanned while they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from build_oci.errors import ParentError

if TYPE_CHECKING:
    from build_oci._native.lower import Lower, Scan

# For the table of a parent's names: far beyond any image (5 million entries), far below what a hostile one would take.
_TABLE_LIMIT = 1 << 30


class ArchiveReader(NamedTuple):
    """Who takes in an archive piece by piece. digest: the SHA-256 of what was fed, None where it is not computed."""

    feed: Callable[[bytes | memoryview], None]
    digest: Callable[[], bytes | None]


class Scans:
    """What the layers of one parent hold; they share one limit of memory with the table that is made of them."""

    def __init__(self, diff_ids: list[str], *, trust: bool) -> None:
        """TRUST believes checksum records in the archives."""
        from build_oci._native.lower import Scan
        from build_oci.layer.walk import sha256_kernel

        kernel = sha256_kernel()
        self._scans = [
            Scan(kernel=kernel, memory_limit=_TABLE_LIMIT, trust=trust, digest=diff_id.startswith("sha256:")) for diff_id in diff_ids
        ]

    def feed(self, number: int, piece: bytes | memoryview) -> None:
        """The next piece of the archive of layer NUMBER; several threads may feed different layers. ValueError when it is refused."""
        self._scans[number].feed(piece)
        self.left()

    def digest(self, number: int) -> bytes | None:
        """The SHA-256 of what was fed of archive NUMBER, where its diff_id is one."""
        return self._scans[number].digest

    def reader(self, number: int) -> ArchiveReader:
        """What reads the archive of layer NUMBER."""
        return ArchiveReader(partial(self.feed, number), partial(self.digest, number))

    def finish(self, number: int) -> None:
        """That archive has ended. ValueError when it should not have."""
        self._scans[number].finish()

    def merge(self, wheres: list[Path], check: Callable[[], None]) -> Lower:
        """The layers on top of each other. ParentError naming one of WHERES."""
        from build_oci._native.lower import Lower

        lower = Lower(memory_limit=self.left())
        self.put_on(lower, wheres, check)
        return lower

    def put_on(self, lower: Lower, wheres: list[Path], check: Callable[[], None]) -> None:
        """Put the layers on top of LOWER. ParentError naming one of WHERES."""
        for scan, where in zip(self._scans, wheres, strict=True):
            check()
            with named(where):
                lower.apply(scan, check)

    def __getitem__(self, number: int) -> Scan:
        return self._scans[number]

    def left(self) -> int:
        """Bytes of the limit that are left. ValueError where there are none."""
        left = _TABLE_LIMIT - sum(scan.held for scan in self._scans)
        if left <= 0:
            raise ValueError(f"the members of this image's layers need more than {_TABLE_LIMIT >> 20} MiB of memory")
        return left


def empty_table() -> Lower:
    """A table of no names yet."""
    from build_oci._native.lower import Lower

    return Lower(memory_limit=_TABLE_LIMIT)


def own_scan() -> Scan:
    """What reads an archive that this build makes, and whose records are true."""
    from build_oci._native.lower import Scan
    from build_oci.layer.walk import sha256_kernel

    return Scan(kernel=sha256_kernel(), memory_limit=_TABLE_LIMIT, trust=True)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """What a decoder or a scanner refuses is the fault of the blob PATH."""
    try:
        yield
    except ValueError as error:
        raise ParentError(str(error), where=str(path)) from None
