"""A tree held against what its parent image has (spec: against the parent)."""

from build_oci._native.lower import Lower
from build_oci._native.walk import Problem, Tree

class Diff:
    """Finds which entries of a tree the parent has already, and which names of the parent the tree has no longer.

    tree: a walked tree without errors. lower_table: the parent's names; any number of diffs may read it at once.
    epoch: the mtime that every entry will have, in seconds, or None.
    kernel: number of the SHA-256 kernel. preserve_hardlinks: names of one inode belong together.

    Making one compares names and metadata. Then `hash` every batch, from any threads, then `decide`; then a plan of the tree leaves out
    what is unchanged.
    """

    def __new__(cls, tree: Tree, lower_table: Lower, *, epoch: int | None, kernel: int, preserve_hardlinks: bool = True) -> Diff: ...
    def __len__(self) -> int:
        """How many batches of files there are whose content decides."""

    def hash(self, batch: int) -> Problem | None:
        """Hash the files of one batch. Releases the GIL. Returns what went wrong, if anything."""

    def decide(self) -> tuple[int, int]:
        """Mark what is unchanged in the tree and add whiteouts to it: how many of both."""

    def cancel(self) -> None:
        """Make every `hash`, now running or later, return soon with a problem of the kind `cancelled`."""
