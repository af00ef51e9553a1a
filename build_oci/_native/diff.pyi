"""A tree held against what its parent image has (docs/contract.md: diff-unchanged)."""

from collections.abc import Sequence

from typing_extensions import disjoint_base

from build_oci._native.lower import Lower
from build_oci._native.unpack import AnyTree
from build_oci._native.walk import Problem

@disjoint_base
class Digests:
    """Gives every regular file of a tree its SHA-256, those that have none yet: `hash` every batch,
    from any threads, then `finish`.

    tree: a walked tree without errors.
    kernel: number of the SHA-256 kernel. threads: how many hash, for which the batches are cut.
    """

    def __new__(cls, tree: AnyTree, *, kernel: int, threads: int) -> Digests: ...
    def __len__(self) -> int:
        """How many batches of files there are."""

    def hash(self, batch: int) -> Problem | None:
        """Hash the files of one batch. Releases the GIL. Returns what went wrong, if anything."""

    def finish(self) -> None:
        """Once every batch has been hashed: give the further names of hard-linked files their
        digest as well.
        """

    def cancel(self) -> None:
        """Make every `hash`, now running or later, return soon with a problem of the kind
        `cancelled`.
        """

def mark_unchanged(
    tree: AnyTree, lower_table: Lower, *, epoch: int | None, preserve_hardlinks: bool = True
) -> tuple[int, int]:
    """Find which entries of a tree, all its files digested, the parent has already, and which names
    of it the tree has no longer.

    Marks the former in the tree, so that a plan leaves them out, and adds whiteouts for the latter;
    returns how many of both. Releases the GIL; any number of calls may share one lower_table.
    epoch: the mtime that every entry will have, in seconds, or None. preserve_hardlinks: names of
    one inode belong together.
    """

def mark_added(
    tree: AnyTree,
    lower_table: Lower,
    removed: Sequence[bytes] = (),
    *,
    epoch: int | None,
    preserve_hardlinks: bool = True,
) -> tuple[int, int, Problem | None]:
    """As mark_unchanged, for a tree that is only added: nothing goes but REMOVED, and a directory
    that is there keeps its metadata.

    removed: paths, components between slashes, none of them below another one. What the tree has
    there replaces what was there; of a directory nothing stays. Directories that whiteouts need are
    put into the tree.

    Returns how many entries are there already, how many whiteouts there are, and, if one entry is a
    directory on one side only, a problem of the kind `covers`. LookupError with the number of a
    removed path that is not there.
    """
