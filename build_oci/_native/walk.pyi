"""The parallel walk of a root file system (spec: the layer, extended attributes)."""

from collections.abc import Iterable
from typing import Literal, TypeAlias

from typing_extensions import disjoint_base

Kind: TypeAlias = Literal["cancelled", "system", "changed", "length", "xattr-name", "type", "socket", "whiteout-name"]
Problem: TypeAlias = tuple[Kind, int, str, bytes]
"""What went wrong, the errno where a call failed, the name of that call, the path below the root (empty: the root itself)."""

@disjoint_base
class Tree:
    """The entries of one root file system: type, mode, owner, times, links, extended attributes, sorted, at most 400 bytes an entry.

    root: path of the directory; a symbolic link to one is followed, none inside it ever is.
    skip_xattrs: read no extended attributes at all.
    trust_checksums: believe `user.checksum.sha256` (64 lower-case hexadecimal digits): everywhere (True), nowhere (False), on FUSE (None).
        On FUSE it is asked for by name where it is not listed, also with skip_xattrs.
    owner: user and group of every entry, in place of their own.
    exclude: patterns as kernel/tree/exclude.h describes them, no slash at either end; what one matches is left out with all below it.
    """

    def __new__(
        cls,
        root: bytes,
        *,
        skip_xattrs: bool = False,
        trust_checksums: bool | None = None,
        owner: tuple[int, int] | None = None,
        exclude: Iterable[bytes] = (),
    ) -> Tree: ...
    def run(self) -> None:
        """Read directories until none is left; call it from as many threads as shall work, once each. Releases the GIL.

        Raises MemoryError. What else went wrong is told by `problems`.
        """

    def stop(self) -> None:
        """Make every `run` return soon."""

    def __len__(self) -> int:
        """Entries found so far, the root included."""

    def problems(self) -> list[Problem]:
        """What the walk met, sorted by path; `socket` and `whiteout-name` are warnings. Only after every `run` has returned."""

    def paths(self) -> list[bytes]:
        """Every path in tar order: a directory, its files sorted by name, its subdirectories. Only after every `run` has returned."""

    def unused(self) -> list[int]:
        """Which patterns of `exclude` matched nothing, by number. Only after every `run` has returned."""

    @property
    def digests_believed(self) -> int:
        """How many files have the digest that their attribute tells."""

    @property
    def sole_owner(self) -> int | None:
        """The user whom every entry belongs to on disk; None if there are several. Only after every `run` has returned."""

    @property
    def mode(self) -> int:
        """The permission bits of the root."""

    def capsule(self) -> object:
        """The native table for the other extensions; valid as long as this object lives."""
