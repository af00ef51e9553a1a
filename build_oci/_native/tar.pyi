"""Tar segments of a walked tree, in any order, from many threads (spec: tar, hard links)."""

from typing_extensions import Buffer, disjoint_base

from build_oci._native.walk import Problem, Tree

@disjoint_base
class Plan:
    """What a tree emits, in tar order, cut into segments that can be filled independently of each other.

    tree: a walked tree without errors; it must not be walked again.
    epoch: the mtime of every entry in seconds, or None for the files' own.
    kernel: number of the SHA-256 kernel, as `build_oci._native.sha256.kernel_id` gives it.
    segment_size: bytes, a multiple of 512; a file larger than that is cut into slices. It has no effect on the archive's bytes.
    preserve_hardlinks: later names of one inode become links to the first that is emitted; else each is a file.
    """

    def __new__(cls, tree: Tree, *, epoch: int | None, kernel: int, segment_size: int, preserve_hardlinks: bool = True) -> Plan: ...
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

    def to_digest(self, index: int) -> int:
        """How many bytes `digest` must hash before segment `index` is filled: the large file that it starts, 0 for other segments."""

    def digest(self, *indexes: int) -> Problem | None:
        """Hash the large files that these segments start, side by side. Releases the GIL. Returns what went wrong, if anything."""

    def fill(self, index: int, into: Buffer) -> Problem | None:
        """Write segment `index` to the start of `into` (writable, at least `size` bytes). Releases the GIL.

        Returns what went wrong, if anything: a file that could not be read, or is no longer what the walk saw.
        """

    def cancel(self) -> None:
        """Make every `fill` and `digest`, now running or later, return soon with a problem of the kind `cancelled`."""

    def restart(self) -> None:
        """Take `cancel` back."""

    def capsule(self) -> object:
        """The native plan, for other extensions; valid as long as this object lives."""
