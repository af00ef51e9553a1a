"""Reading an OCI layout that nobody vouches for: every blob is held against its descriptor, every
document against its form.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from build_oci.errors import Cancelled, ParentError
from build_oci.oci.documents import to_json

# Manifests of real images are a few kilobytes; registries refuse more than 4 MiB.
MOST_DOCUMENT = 4 << 20
# Lists, objects and their items in one document: Python takes up to 100 bytes for each. An index of
# 10,000 images has 100,000.
MOST_VALUES = 500_000
# Between two pieces a reader looks whether the build is being stopped.
_PIECE = 1 << 18
_AGAIN = "the layout of this image is incomplete or damaged: copy or build it again"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")


class ReadDescriptor(NamedTuple):
    """A descriptor as some document holds it, with its digest and size checked for their form."""

    media_type: str
    digest: str
    size: int
    platform: dict[str, Any]
    annotations: dict[str, str]


class Source:
    """The layout in the directory `path`.

    trust_checksums: are blobs believed to be what the attribute `user.checksum.sha256` of their
    files tells, which spares reading them? None: on FUSE.
    """

    def __init__(self, path: Path, *, trust_checksums: bool | None = False) -> None:
        self.path = path
        self.trust_checksums = trust_checksums

    def is_there(self) -> bool:
        """Is there any of a layout: one of the names that each has?"""
        return any(
            os.path.lexists(self.path / name) for name in ("index.json", "oci-layout", "blobs")
        )

    def index(self) -> dict[str, Any]:
        """The document `index.json`. Raises ParentError."""
        path = self.path / "index.json"
        with opened(path) as fd:
            size = os.fstat(fd).st_size
            if size > MOST_DOCUMENT:
                raise ParentError(
                    f"has {size} bytes, which is too large for a document", where=str(path)
                )
            return parse_document(b"".join(_pieces(fd, path)), str(path))

    def blob_path(self, digest: str) -> Path:
        """Where the blob is; `digest` comes from a ReadDescriptor and so cannot point elsewhere."""
        algorithm, hexadecimal = digest.split(":")
        return self.path / "blobs" / algorithm / hexadecimal

    def document(self, descriptor: ReadDescriptor) -> dict[str, Any]:
        """The JSON document that DESCRIPTOR points to. Raises ParentError naming the blob."""
        path = self.blob_path(descriptor.digest)
        if descriptor.size > MOST_DOCUMENT:
            raise ParentError(
                f"is said to have {descriptor.size} bytes, which is too large for a document",
                where=str(path),
            )
        with self.blob(descriptor) as blob:
            return parse_document(b"".join(blob), str(path))

    @contextmanager
    def blob(self, descriptor: ReadDescriptor) -> Iterator[VerifiedBlob]:
        """The content of a blob, to be read to its end: the last piece is given only if size and
        digest are right.
        """
        path = self.blob_path(descriptor.digest)
        with opened(path) as fd:
            size = os.fstat(fd).st_size
            if size != descriptor.size:
                raise wrong_size(path, size, descriptor)
            yield VerifiedBlob(fd, path, descriptor, self._is_known(fd, descriptor))

    def _is_known(self, fd: int, descriptor: ReadDescriptor) -> bool:
        """Does the attribute of the file FD tell that it is the blob of DESCRIPTOR?"""
        if self.trust_checksums is False:
            return False
        from build_oci._native.walk import believed_digest

        told = believed_digest(fd, everywhere=self.trust_checksums is True)
        return told is not None and descriptor.digest == f"sha256:{told.hex()}"


def wrong_size(path: Path, size: int, descriptor: ReadDescriptor) -> ParentError:
    return ParentError(
        f"has {size} bytes, but its descriptor says {descriptor.size}", where=str(path), hint=_AGAIN
    )


class VerifiedBlob:
    """Iterates over the pieces of one blob; ends with ParentError if the whole is not what its
    descriptor says. is_known: is it, without being read?
    """

    def __init__(
        self, fd: int, path: Path, descriptor: ReadDescriptor, is_known: bool = False
    ) -> None:
        self.fd = fd
        self.start = 0  # where in the file it begins
        self.path = path
        self.descriptor = descriptor
        self.is_known = is_known

    def __iter__(self) -> Iterator[bytes]:
        algorithm = self.descriptor.digest.partition(":")[0]
        content = None if self.is_known else hashlib.new(algorithm)
        size = 0
        held = b""
        for piece in self._pieces():
            if held:
                yield held
            if content is not None:
                content.update(piece)
            size += len(piece)
            held = piece
        self.compare(size, content.hexdigest() if content is not None else None)
        if held:
            yield held

    def compare(self, size: int, digest: str | None) -> None:
        """Raise ParentError unless the descriptor tells this size in bytes, and this digest where
        there is one.
        """
        algorithm, _, expected = self.descriptor.digest.partition(":")
        if size != self.descriptor.size:
            raise wrong_size(self.path, size, self.descriptor)
        if digest is not None and digest != expected:
            raise ParentError(
                f"is damaged: its content has the digest {algorithm}:{digest}",
                where=str(self.path),
                hint=_AGAIN,
            )

    def most_bytes(self) -> int:
        """How many bytes to read to see that there are no more than the descriptor tells."""
        return self.descriptor.size + 1

    def _pieces(self) -> Iterator[bytes]:
        return _pieces(self.fd, self.path)


def verify_blobs(
    blobs: Sequence[VerifiedBlob],
    stoppable: Callable[[Callable[[], None]], AbstractContextManager[None]],
) -> None:
    """Hold all of BLOBS, whose digests are SHA-256, against their descriptors side by side, which
    takes less than one after the other. Those that are known are not read.

    STOPPABLE is Crew.stoppable. Raises ParentError, Cancelled.
    """
    from build_oci._native.sha256 import Files

    unknown = [blob for blob in blobs if not blob.is_known]
    files = Files([(blob.fd, blob.start, blob.most_bytes()) for blob in unknown])
    with stoppable(files.cancel):
        found = files.run()
    if found is None:
        raise Cancelled("the build was stopped")
    for blob, (error, size, digest) in zip(unknown, found, strict=True):
        if error:
            raise ParentError(f"cannot be read: {os.strerror(error)}", where=str(blob.path))
        blob.compare(size, digest.hex())


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of the regular file PATH, for reading. Raises ParentError."""
    try:
        # O_NONBLOCK: a FIFO in the file's place must not stop us.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ParentError("is missing", where=str(path), hint=_AGAIN) from None
    except OSError as error:
        raise ParentError(f"cannot be opened: {error.strerror}", where=str(path)) from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ParentError("is no regular file", where=str(path))
        yield fd
    finally:
        os.close(fd)


def _pieces(fd: int, path: Path) -> Iterator[bytes]:
    try:
        os.lseek(fd, 0, os.SEEK_SET)
        while piece := os.read(fd, _PIECE):
            yield piece
    except OSError as error:
        raise ParentError(f"cannot be read: {error.strerror}", where=str(path)) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")  # NaN and infinities, which Python reads


def parse_document(data: bytes, where: str) -> dict[str, Any]:
    """DATA as a JSON object. Raises ParentError."""
    if sum(map(data.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise ParentError("has too many values for a document", where=where)
    try:
        document = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
        # Half of a surrogate pair is no text, and parts of the document are going to be written
        # again.
        if _SURROGATE.search(data):
            to_json(document)
    except (ValueError, RecursionError):
        raise ParentError("is no JSON document", where=where) from None
    if not isinstance(document, dict):
        raise ParentError("is no JSON object", where=where)
    return document


def parse_descriptors(document: dict[str, Any], key: str, where: str) -> list[ReadDescriptor]:
    """The list of descriptors under KEY. Raises ParentError."""
    items = document.get(key)
    if not isinstance(items, list):
        raise ParentError(f"has no list “{key}”", where=where)
    return [
        parse_descriptor(item, f"{where}: {key}[{number}]") for number, item in enumerate(items)
    ]


def is_digest(text: str) -> bool:
    """Is TEXT a digest of a kind that is known, and so no path?"""
    return _DIGEST.fullmatch(text) is not None


def parse_descriptor(item: Any, where: str) -> ReadDescriptor:
    """ITEM as a descriptor. Raises ParentError, also for a digest that is none: it is going to be
    part of a path.
    """
    if not isinstance(item, dict):
        raise ParentError("is no descriptor", where=where)
    digest, size, media_type = item.get("digest"), item.get("size"), item.get("mediaType", "")
    if not isinstance(digest, str) or not is_digest(digest):
        raise ParentError(
            f"“{str(digest)[:200]}” is no digest (sha256 or sha512 and its hexadecimal digits)",
            where=where,
        )
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 63:
        raise ParentError(f"“{str(size)[:40]}” is no size", where=where)
    if not isinstance(media_type, str):
        raise ParentError("its mediaType is no string", where=where)
    platform, annotations = item.get("platform") or {}, item.get("annotations") or {}
    if not isinstance(platform, dict):
        raise ParentError("its platform is no object", where=where)
    if not isinstance(annotations, dict) or not all(
        isinstance(value, str) for value in annotations.values()
    ):
        raise ParentError("its annotations are no strings", where=where)
    return ReadDescriptor(media_type, digest, size, platform, annotations)
