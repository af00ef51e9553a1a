"""An image as a stack (`layers`): on top of a parent or of nothing, directories that are added and
images whose layers are carried.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from build_oci.errors import TreeError, UsageError, counted
from build_oci.oci.untrusted import ENTRY_COST
from build_oci.parent.lower import SLACK, empty_table, own_reader
from build_oci.records import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from build_oci._native.lower import TarReader
    from build_oci._native.unpack import AnyTree
    from build_oci.config.model import StackItem
    from build_oci.parent.layers import ParentImage

_NAMED = 3  # of the names that two parts claim


class Addition(NamedTuple):
    """A tree that is being added, every file of it digested; `path` is for messages."""

    path: str
    tree: AnyTree


class Marked(NamedTuple):
    """How many entries of an addition are there already, and how many names it hides."""

    unchanged: int
    whiteouts: int


class OwnArchive:
    """Reads the archive of a layer while this build makes it, for what is put on top of it."""

    def __init__(self) -> None:
        self._reader: TarReader | None = None

    def begin(self) -> Callable[[memoryview], None]:
        """What is to be given the archive; it may begin anew."""
        self._reader = own_reader()
        return self._reader.feed

    def finish(self) -> TarReader:
        assert self._reader is not None
        self._reader.finish()
        return self._reader


class Below:
    """What lies below the next addition of a stack; grows with the stack.

    It is kept only where something is still to be added.
    """

    def __init__(
        self, images: Sequence[ParentImage], added: int, check: Callable[[], None]
    ) -> None:
        """For layers of IMAGES, those whose names were read, and of ADDED entries of this
        build's.
        """
        self._check = check
        left = sum(image.readers.left() for image in images if image.readers is not None)
        self._lower = empty_table(left + SLACK + ENTRY_COST * added)
        self._is_empty = True

    def put_image(self, image: ParentImage) -> None:
        """The layers of IMAGE, which has been read. Raises ParentError."""
        assert image.readers is not None
        image.readers.put_on(self._lower, image.wheres, self._check)
        self._is_empty = self._is_empty and not image.layers

    def put_layer(self, archive: OwnArchive) -> None:
        """A layer that this build made."""
        self._lower.apply(archive.finish(), self._check)
        self._is_empty = False

    def mark(
        self, item: StackItem, addition: Addition, *, epoch: int | None, preserve_hardlinks: bool
    ) -> Marked:
        """Mark in the tree of ADDITION what is there already, and hide what ITEM removes.

        Raises UsageError for a removed path that is not there, TreeError for an entry that would
        cover a directory, or a directory that would cover something else.
        """
        from build_oci._native.diff import mark_added

        if self._is_empty and not item.remove:
            return Marked(0, 0)  # the directory is the image, its root included
        removed = [os.fsencode(path) for path in item.remove]
        try:
            unchanged, whiteouts, problem = mark_added(
                addition.tree,
                self._lower,
                removed,
                epoch=epoch,
                preserve_hardlinks=preserve_hardlinks,
            )
        except LookupError as missing:
            raise UsageError(
                f"`/{item.remove[missing.args[0]]}` is not there to be removed",
                where=item.where,
                hint="name it as it stands in the image; symbolic links in a path are not followed",
            ) from None
        if problem:
            path = os.fsdecode(problem[3])
            raise TreeError(
                "is a directory in the image below and none here, or the other way round",
                where=os.path.join(addition.path, path),
                hint=(
                    "if it is a symbolic link there, add to what it leads to; else replace it:"
                    f" `remove: [/{path}]`"
                ),
            )
        return Marked(unchanged, whiteouts)


def warn_of_claims(
    parts: Sequence[tuple[str, ParentImage]], warn: Callable[[str], None], check: Callable[[], None]
) -> None:
    """Name what two of PARTS, each an image and where it comes from, both have and not both as a
    directory: only the upper one is seen.
    """
    for number, (above, upper) in enumerate(parts):
        for below, lower in parts[:number]:
            check()
            assert upper.lower is not None
            assert lower.lower is not None
            count, names = lower.lower.claimed_too(upper.lower)
            if count:
                shown = ", ".join(f"/{os.fsdecode(name)}" for name in names[:_NAMED]) + (
                    ", …" if count > _NAMED else ""
                )
                warn(f"{above}: {counted(count, 'name')} of it hide what {below} has: {shown}")


def nothing_to_add() -> AnyTree:
    """The tree of an item that only removes: a root."""
    from build_oci._native.unpack import ImageTree

    return ImageTree(empty_table(), [])
