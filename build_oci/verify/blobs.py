"""The blobs of a layout: are they what their names and descriptors say?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from build_oci.errors import ParentError
from build_oci.oci.untrusted import ReadDescriptor, Source, is_digest
from build_oci.verify.findings import Findings


class Blobs:
    """Looks at the blobs of one layout, each of them once.

    `size` counts the bytes read of those that are no layers.
    """

    def __init__(self, source: Source, findings: Findings, check: Callable[[], None]) -> None:
        """CHECK may raise to stop reading."""
        self.size = 0
        self._source = source
        self._findings = findings
        self._check = check
        self._sizes: dict[
            str, int | None
        ] = {}  # of the blobs that are referred to; None: there is none that can be read
        self._right: dict[
            str, bool
        ] = {}  # those read to their end that are no layers: are they what their names say?

    def is_missing(self, digest: str) -> bool:
        """Is there no such blob? What may be missing is not told."""
        return not self._source.has_blob(digest)

    def fitted(self, descriptor: ReadDescriptor) -> ReadDescriptor | None:
        """DESCRIPTOR with the size that the blob has, which is a mismatch where it said another;
        None if there is no such file.
        """
        size = self._size(descriptor.digest)
        if size is None:
            return None
        if size != descriptor.size:
            where = self._source.blob_path(descriptor.digest)
            self._findings.problem(
                where, f"has {size} bytes, but its descriptor says {descriptor.size}"
            )
        return descriptor._replace(size=size)

    def refer_to(self, digest: str) -> None:
        """Something refers to this blob, which may be missing."""
        if not self.is_missing(digest):
            self._size(digest)

    def _size(self, digest: str) -> int | None:
        if digest not in self._sizes:
            self._sizes[digest] = None
            with self._findings.caught():
                self._sizes[digest] = self._source.blob_size(digest)
        return self._sizes[digest]

    def is_right(self, descriptor: ReadDescriptor) -> bool:
        """Is the blob what DESCRIPTOR says? Read once."""
        fitted = self.fitted(descriptor)
        if fitted is None:
            return False
        if fitted.digest not in self._right:
            self._right[fitted.digest] = False
            with self._findings.caught(), self._source.blob(fitted) as blob:
                for piece in blob:
                    self._check()
                    self.size += len(piece)
                self._right[fitted.digest] = True
        return self._right[fitted.digest]

    def document(
        self, descriptor: ReadDescriptor, *, quietly: bool = False
    ) -> dict[str, Any] | None:
        """The JSON object in a blob.

        None where it is damaged or none; QUIETLY, the latter is no mismatch but an empty object.
        """
        fitted = self.fitted(descriptor)
        if fitted is None:
            return None
        if quietly and not self.is_right(fitted):
            return None
        try:
            return self._source.document(fitted)
        except ParentError as error:
            if quietly:
                return {}
            self._findings.refused(str(error))
            return None

    def unreferenced(self) -> None:
        """What lies in the folders of the blobs and nothing refers to: it must be what its name
        says all the same.
        """
        for algorithm in ("sha256", "sha512"):
            folder = f"blobs/{algorithm}"
            for name in sorted(self._source.names(folder)):
                if (digest := f"{algorithm}:{name}") not in self._sizes:
                    self._findings.note(
                        self._source.path / folder / name, "is referred to by nothing"
                    )
                    if is_digest(digest):
                        self._look_at(digest)

    def _look_at(self, digest: str) -> None:
        with self._findings.caught():
            size = self._source.blob_size(digest)
            self.is_right(ReadDescriptor("", digest, size, {}, {}))
