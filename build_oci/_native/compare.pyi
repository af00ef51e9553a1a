"""Two images compared: which names differ and in what, and what makes a layer of the new image
new.
"""

from collections.abc import Callable, Iterator

from typing_extensions import disjoint_base

from build_oci._native.lower import TarReader

_Entry = tuple[int, int, int, int, int, int, bytes | None, int, bool]
"""Layer, mode with the type bits, size, uid, gid, mtime in nanoseconds, target of a link, device
number, is it a hard link?
"""

_Difference = tuple[bytes, int, int, _Entry | None, _Entry | None]
"""Path without a leading slash (empty for the root), what became of it, in what it differs, the old
and the new entry.

What became of it: 0 the same, 1 added, 2 removed, 3 changed; in a layer alone: 4 came from another
layer, 5 went to another layer or stays only there. In what: the sum of 1 type, 2 content, 4 target
of a symbolic link, 8 device number, 16 mode, 32 owner, 64 time, 128 extended attributes, 256 hard
links. An entry is None where that side has no member of the name, or where it lies in a layer that
was not added.
"""

@disjoint_base
class Comparison:
    """Two images, of which some layers may be left out because both have them. Names count as they
    stand in the archives.

    memory_limit: bytes that the table of names may take.
    old_complete, new_complete: are all layers of that image going to be added?

    For one thread at a time; a call releases the GIL.
    """

    def __new__(
        cls, *, memory_limit: int, old_complete: bool, new_complete: bool
    ) -> Comparison: ...
    def add(
        self, side: int, layer: int, reader: TarReader, check: Callable[[], None] | None = None
    ) -> None:
        """The layer number LAYER (0 is the lowest) of the old (SIDE 0) or the new (1) image; those
        of an image in rising order.

        CHECK is called again and again and may raise to stop this. ValueError beyond the limit.
        """

    def differences(
        self, *, everything: bool = False, check: Callable[[], None] | None = None
    ) -> Iterator[_Difference]:
        """What differs between the images, in no order. EVERYTHING: also what the new image has and
        what is the same.
        """

    def layer_differences(
        self, layer: int, counterpart: int | None, *, check: Callable[[], None] | None = None
    ) -> Iterator[_Difference]:
        """What the new image's layer LAYER has otherwise than the old image's layer COUNTERPART;
        whiteouts are names like others.
        """

    def counterpart(self, layer: int) -> int | None:
        """The old layer that the new layer LAYER has most in common with: by the sizes of the files
        that both name.
        """

    def same_order(self) -> bool:
        """After `layer_differences` has found nothing: do both archives name their members in the
        same order?
        """
