"""The parallel walk of a root file system (docs/contract.md: layer-tar, xattr-bytes)."""

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, TypeAlias

from typing_extensions import disjoint_base

Kind: TypeAlias = Literal[
    "cancelled",
    "system",
    "changed",
    "length",
    "xattr-name",
    "xattrs-size",
    "type",
    "socket",
    "whiteout-name",
    "covers",
]
Problem: TypeAlias = tuple[Kind, int, str, bytes]
"""What went wrong, the errno where a call failed, the name of that call, the path below the root
(empty: the root itself).
"""

def believed_digest(fd: int, *, everywhere: bool) -> bytes | None:
    """The 32 bytes that the attribute `user.checksum.sha256` of the open file FD tells; None where
    there is none, or where it is not believed: without EVERYWHERE only on FUSE.
    """

@disjoint_base
class Paths:
    """The paths of all entries of a tree, in tar order, by their numbers.

    Below the root, without a slash at either end; that of the root is empty. One thread at a time,
    and as long as nobody compares the tree or makes a partition of it.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, number: int, /) -> bytes: ...
    def __iter__(self) -> Iterator[bytes]: ...
    def get(self, path: bytes) -> int | None:
        """The number of the entry that has just this PATH; None where there is none."""

    def find_lines(self, text: bytes, skip: int) -> list[int | None]:
        """The same for each line of TEXT without its end and its first SKIP bytes."""

    def head(self, number: int, most: int) -> bytes | None:
        """The first MOST bytes of the regular file NUMBER, or all if it has fewer. None where it is
        no file on disk, or cannot be read, or is not what the walk saw."""

    def close(self) -> None:
        """Close the directory that `head` was in last, which opens it again."""

class Listing(NamedTuple):
    """Every entry of a tree, numbered in tar order, for those who decide which layer it belongs
    to.
    """

    paths: Paths
    directories: bytes
    """1 for a directory, else 0."""
    sizes: memoryview[int]
    """Bytes of a regular file, else 0."""
    links: memoryview[int]
    """0, or a number that all names of one regular file have in common and no other entry has."""
    symlinks: dict[bytes, bytes]
    """The target of every symbolic link by its path."""
    components: dict[int, bytes]
    """The attribute `user.component` by the number of the entry; empty unless the walk takes
    instructions.
    """
    intervals: dict[int, bytes]
    """The attribute `user.update-interval`, likewise."""

@disjoint_base
class Tree:
    """The entries of one root file system: type, mode, owner, times, links, extended attributes,
    sorted, at most 400 bytes an entry.

    root: path of the directory; a symbolic link to one is followed, none inside it ever is.
    skip_xattrs: read no extended attributes at all.
    trust_checksums: believe `user.checksum.sha256` (64 lower-case hexadecimal digits): everywhere
    (True), nowhere (False), on FUSE (None). On FUSE it is asked for by name where it is not listed,
    also with skip_xattrs.
    owner: user and group of every entry, in place of their own.
    exclude: patterns as kernel/tree/exclude.h describes them, no slash at either end; what one
    matches is left out with all below it.
    take_instructions: `user.component` and `user.update-interval` are for `listing`, and not for
    the layer.
    """

    def __new__(
        cls,
        root: bytes,
        *,
        skip_xattrs: bool = False,
        trust_checksums: bool | None = None,
        owner: tuple[int, int] | None = None,
        exclude: Iterable[bytes] = (),
        take_instructions: bool = False,
    ) -> Tree: ...
    def run(self) -> None:
        """Read directories until none is left; call it from as many threads as shall work, once
        each. Releases the GIL.

        Raises MemoryError. What else went wrong is told by `problems`.
        """

    def stop(self) -> None:
        """Make every `run` return soon."""

    def __len__(self) -> int:
        """Entries found so far, the root included."""

    def problems(self) -> list[Problem]:
        """What the walk met, sorted by path; `socket` and `whiteout-name` are warnings. Only after
        every `run` has returned.
        """

    def paths(self) -> list[bytes]:
        """Every path in tar order: a directory, its files sorted by name, its subdirectories. Only
        after every `run` has returned.
        """

    def listing(self) -> Listing:
        """What is known of every entry, in the order of `paths`. Only after every `run` has
        returned.
        """

    def emitted(self) -> bytes:
        """A byte for each entry in the order of `paths`: 0 where `mark_unchanged` has found that
        the parent has it, else 1.
        """

    def unused(self) -> list[int]:
        """Which patterns of `exclude` matched nothing, by number. Only after every `run` has
        returned.
        """

    @property
    def digests_believed(self) -> int:
        """How many files have the digest that their attribute tells."""

    @property
    def sole_owner(self) -> int | None:
        """The user whom every entry belongs to on disk; None if there are several. Only after every
        `run` has returned.
        """

    @property
    def mode(self) -> int:
        """The permission bits of the root."""

    def capsule(self) -> object:
        """The native table for the other extensions; valid as long as this object lives."""

def entries_paths(capsule: object) -> list[bytes]:
    """As Tree.paths, of any native table of entries."""

def entries_listing(capsule: object, owner: object) -> Listing:
    """As Tree.listing, of any native table of entries; OWNER keeps it."""

def entries_emitted(capsule: object) -> bytes:
    """As Tree.emitted, of any native table of entries."""
