"""The layers of a walked tree, and their tar segments, in any order, from many threads
(docs/contract.md: layer-tar, hardlink-first-name, split-layers).
"""

from collections.abc import Callable
from typing import Literal, TypeAlias

from typing_extensions import Buffer, disjoint_base

from build_oci._native.lower import TarReader
from build_oci._native.unpack import AnyTree
from build_oci._native.walk import Problem

OWNER_NOBODY = 0xFFFFFFFF
"""Stands among the owners of a Partition for an entry that nobody owns."""

def component_digests(
    tree: AnyTree, owners: Buffer, count: int, *, kernel: int
) -> list[bytes | None]:
    """For each of COUNT components the SHA-256 of the headers of its entries, directories left out,
    at the time 0.

    owners: for each entry, in the order of `Tree.paths`, the number of its component, as 32-bit
    unsigned integers of this machine; others than those below `count` are nobody's. None where a
    file's digest is not known: after a packing, and after `Digests`, all are. Hard links count as
    files, before and after a partition. Raises ValueError where `owners` do not fit.
    """

Difference: TypeAlias = Literal[
    "new", "gone", "type", "content", "target", "mode", "owner", "mtime", "xattr", "device"
]
"""What of an entry differs. `new`: no archive has it at this place; `gone`: the archive has a
member there that the plan lacks.
"""

@disjoint_base
class Partition:
    """The entries of a walked tree, dealt out to layers.

    tree: a walked tree without errors; it must not be walked again. Of two partitions of one tree
    only the later may be used.
    owners: for each entry, in the order of `Tree.paths`, the number of its layer, below `layers`,
    or OWNER_NOBODY, as 32-bit unsigned integers of this machine. None: everything lies in layer 0.
    directories_last: one more layer follows, which holds every emitted directory as it is; in the
    others the time of directories is 0, unless there is an epoch.
    preserve_hardlinks: later names of one inode become links to the first that is emitted, and lie
    in its layer; else each is a file.

    A layer holds its entries, and before them the directories that lead to them. The owner of a
    directory counts only where it leads to nothing emitted; with `directories_last` such a one is
    only in the last layer. What nobody owns, and all whiteouts, lie in the first layer that holds
    anything. Entries that the parent has are left out; the root is in a layer in any case.

    Raises ValueError where the owners do not fit, MemoryError.
    """

    def __new__(
        cls,
        tree: AnyTree,
        owners: Buffer | None = None,
        layers: int = 1,
        *,
        directories_last: bool = False,
        preserve_hardlinks: bool = True,
    ) -> Partition: ...
    def __len__(self) -> int:
        """The number of layers, empty ones included, and that of the directories, if there is
        one.
        """

    def members(self, layer: int) -> int:
        """How many entries `layer` has; 0 where nothing of it is emitted."""

@disjoint_base
class Plan:
    """What one layer of a partition holds, in tar order, cut into segments that can be filled
    independently of each other.

    epoch: the mtime of every entry in seconds, or None for the files' own.
    kernel: number of the SHA-256 kernel, as `build_oci._native.sha256.kernel_id` gives it.
    segment_size: bytes, a multiple of 512; a file larger than that is cut into slices. It has no
    effect on the archive's bytes.
    """

    def __new__(
        cls,
        partition: Partition,
        layer: int = 0,
        *,
        epoch: int | None,
        kernel: int,
        segment_size: int,
    ) -> Plan: ...
    def __len__(self) -> int:
        """The number of segments; the last one is the end of the archive."""

    @property
    def members(self) -> int:
        """Entries in the archive."""

    @property
    def files(self) -> int:
        """Regular files with content of their own (hard links not counted)."""

    @property
    def content_size(self) -> int:
        """Bytes in these files."""

    @property
    def archive_size(self) -> int:
        """Bytes in the archive."""

    def size(self, index: int) -> int:
        """Bytes in segment `index`."""

    def recipe(self, take: Callable[[memoryview], object] | None = None) -> bytes | None:
        """The SHA-256 of all headers in order, which stands for all that the archive holds. None
        while a file's digest is not known. Releases the GIL.

        TAKE gets the headers, in pieces of some 128 KiB that are valid while it runs, and may
        raise.
        """

    def to_digest(self, index: int) -> int:
        """How many bytes `digest` must hash before segment `index` is filled: the large file that
        it starts, 0 for other segments.
        """

    def digest(self, *indexes: int) -> Problem | None:
        """Hash the large files that these segments start, side by side. Releases the GIL. Returns
        what went wrong, if anything.
        """

    def fill(self, index: int, into: Buffer) -> Problem | None:
        """Write segment `index` to the start of `into` (writable, at least `size` bytes). Releases
        the GIL.

        Returns what went wrong, if anything: a file that could not be read, or is no longer what
        the walk saw.
        """

    def difference(self, reader: TarReader, start: int = 0) -> int | tuple[Difference, bytes]:
        """The first entry, from number `start` on, that differs from the members that `reader` has
        read so far: in what, and its path.

        A number where there is none: that of the entry to go on with. Releases the GIL; not while
        the reader is fed.
        """

    def cancel(self) -> None:
        """Make every `fill` and `digest`, now running or later, return soon with a problem of the
        kind `cancelled`.
        """

    def restart(self) -> None:
        """Take `cancel` back."""

    def capsule(self) -> object:
        """The native plan, for other extensions; valid as long as this object lives."""

@disjoint_base
class ArchiveCheck:
    """An archive that streams by, held against `plan`, whose archive it is said to be
    (kernel/pack/archive_check.h).

    One thread at a time. Raises MemoryError.
    """

    def __new__(cls, plan: Plan) -> ArchiveCheck: ...
    @staticmethod
    def possible(plan: Plan) -> bool:
        """Was every file of `plan` hashed by `Digests`? No other plan can be checked so."""

    def feed(
        self, data: Buffer, other: ArchiveCheck | None = None, other_data: Buffer = b""
    ) -> None:
        """The next bytes of the archive, and of that of `other`; they are hashed side by side.
        Releases the GIL.
        """

    @property
    def holds(self) -> bool:
        """Is what was fed so far the start of the plan's archive?"""

    @property
    def complete(self) -> bool:
        """Is it all of that archive?"""

    @property
    def digest(self) -> bytes:
        """The SHA-256 of all that was fed."""
