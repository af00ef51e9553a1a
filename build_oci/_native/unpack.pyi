"""The tree that an image unpacks to, its contents left in the archives (docs/late-edits.md)."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from typing_extensions import disjoint_base

from build_oci._native.lower import Lower, TarReader
from build_oci._native.walk import Listing, Tree

class HasFileno(Protocol):
    def fileno(self) -> int: ...

@disjoint_base
class ImageTree:
    """The entries of one image, as a walk of the unpacked image would find them; for the other
    extensions what walk.Tree is.

    lower_table: the merged layers; it may go once this object is made.
    sources: for each layer, the bottom one first, its reader, the file of the uncompressed archive,
    where in it that begins, and whether nobody else can write to it; they are kept as long as this
    object.
    owner: user and group of every entry, in place of their own.
    take_instructions: as of walk.Tree.
    check: called again and again; may raise to stop this.

    Raises ValueError for what clients do not agree about, and for more than MEMORY_LIMIT bytes;
    MemoryError.
    """

    def __new__(
        cls,
        lower_table: Lower,
        sources: Sequence[tuple[TarReader, HasFileno, int, bool]],
        *,
        owner: tuple[int, int] | None = None,
        take_instructions: bool = False,
        memory_limit: int = ...,
        check: Callable[[], None] | None = None,
    ) -> ImageTree: ...
    def __len__(self) -> int:
        """Entries, the root included."""

    @property
    def digests_believed(self) -> int:
        """As of walk.Tree: none, for all contents were hashed."""

    def paths(self) -> list[bytes]:
        """Every path in tar order: a directory, its files sorted by name, its subdirectories."""

    def listing(self) -> Listing:
        """As of walk.Tree."""

    def emitted(self) -> bytes:
        """As of walk.Tree."""

    def open_file(self, path: bytes) -> int | None:
        """A descriptor for reading a copy of the regular file PATH, as `find` finds it; the caller
        closes it. None where there is none.

        The copy has no name and lies where temporary files go. Raises OSError.
        """

    def find(self, path: bytes) -> tuple[int, int, int] | None:
        """Of the regular file PATH: the number of its source, the offset of its content in the file
        of that, and its size; None where there is no such file. PATH has no slash at either end,
        and symbolic links are not followed."""

    def capsule(self) -> object:
        """The native table for the other extensions; valid as long as this object lives."""

AnyTree: TypeAlias = Tree | ImageTree
"""Of a directory or of an image: what packs, compares and divides entries takes either."""
