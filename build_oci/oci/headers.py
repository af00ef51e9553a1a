"""The header list of a layer (recorded.py): which names the layer holds, without decoding it.

It is as untrusted as any blob until it has been held against the recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from build_oci._native.sha256 import Sha256
from build_oci.errors import ParentError
from build_oci.oci.recorded import recorded_headers, recorded_recipe
from build_oci.oci.untrusted import ReadDescriptor, Source, VerifiedBlob

if TYPE_CHECKING:
    from build_oci.oci.layout import Layout

# Bytes of a list that are hashed and parsed at once, while they are in a core's own cache.
PIECE = 128 << 10


class HeaderList:
    """The header list `blob`, open, of a layer that has this RECIPE."""

    def __init__(self, blob: VerifiedBlob, recipe: bytes) -> None:
        self.blob = blob
        self._recipe = recipe
        self._is_verified = False

    def read(
        self,
        pieces: Iterable[memoryview],
        feed: Callable[[memoryview], None],
        check: Callable[[], None],
    ) -> None:
        """Give the headers to FEED. PIECES: what the blob, read to its end, is decompressed to.
        Both may refuse it with a ValueError. Raises ParentError where the headers are not what the
        recipe stands for, and what CHECK raises, called meanwhile.
        """
        found = Sha256()
        try:
            for piece in pieces:
                check()
                found.update(piece)
                feed(piece)
        except ValueError as error:
            raise self._wrong(str(error)) from None
        if found.digest() != self._recipe:
            raise self._wrong("holds other headers than the recipe of its layer stands for")
        self._is_verified = True

    def carry(self, layout: Layout, check: Callable[[], None]) -> None:
        """Let LAYOUT have the blob, whose digest is right.

        Raises ParentError, OutputError, and what CHECK raises, called meanwhile.
        """
        if not self._is_verified:
            for _ in self.blob:
                check()
        layout.carry(self.blob.part, self.blob.path, self.blob.descriptor.digest, check)

    def _wrong(self, what: str) -> ParentError:
        return ParentError(
            what,
            where=str(self.blob.path),
            hint="remove this blob, or build without `trust`: then its layer is decoded",
        )


@contextmanager
def header_list(source: Source, annotations: Mapping[str, str]) -> Iterator[HeaderList | None]:
    """That of a layer with ANNOTATIONS; None where they name none, or SOURCE, which may be a copy,
    lacks it. Raises ParentError where it cannot be opened.
    """
    digest, recipe = recorded_headers(annotations), recorded_recipe(annotations)
    if digest is None or recipe is None or not source.has_blob(digest):
        yield None
        return
    with source.blob(ReadDescriptor("", digest, source.blob_size(digest), {}, {})) as blob:
        yield HeaderList(blob, recipe)
