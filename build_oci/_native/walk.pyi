"""The parallel walk of a root file system (spec: the layer, extended attributes)."""

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
    trust_checksums: believe `user.checksum.sha256` (64 lower-case hexadecimal digits).
    """

    def __new__(cls, root: bytes, *, skip_xattrs: bool = False, trust_checksums: bool = True) -> Tree: ...
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

    def capsule(self) -> object:
        """The native table for the other extensions; valid as long as this object lives."""
