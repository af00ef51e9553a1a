"""Reading an OCI layout that nobody vouches for: every blob is held against its descriptor, every
document against its form.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from build_oci.errors import Cancelled, ParentError
from build_oci.oci.documents import to_json
from build_oci.records import NamedTuple
from build_oci.work.hashes import Hash, new_hash

if TYPE_CHECKING:
    from build_oci._native.sha256 import Files

# Manifests of real images are a few kilobytes; registries refuse more than 4 MiB.
MOST_DOCUMENT = 4 << 20
# Lists, objects and their items in one document: Python takes up to 100 bytes for each. An index of
# 10,000 images has 100,000.
MOST_VALUES = 500_000
# Bytes of memory that are promised to do for a member of a layer's archive, on average, and for a
# layer with next to nothing in it.
ENTRY_COST = 400
LAYER_COST = 4096
# Between two pieces a reader looks whether the build is being stopped.
_PIECE = 1 << 18
# Blobs that are hashed by one call, at the most, and the bytes of them that are enough for one.
_MOST_TOGETHER = 16
_BYTES_TOGETHER = 16 << 20
_AGAIN = "the layout of this image is incomplete or damaged: copy or build it again"
# Of what is damaged, or was written like that.
ANEW = "copy or build the image again; `build-oci verify` lists all that is wrong with it"
_TOO_LARGE = (
    "clients and registries refuse such a document: copy the image that is meant into a layout of"
    " its own, or build it again"
)
_HINTS = {
    **dict.fromkeys((errno.EACCES, errno.EPERM), "run as a user who may read it"),
    **dict.fromkeys((errno.ENOTDIR, errno.ELOOP), _AGAIN),
    errno.EIO: "its disk or file system fails: copy the image again, to another one",
}
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")

Item = TypeVar("Item")


class ReadDescriptor(NamedTuple):
    """A descriptor as some document holds it, with its digest and size checked for their form."""

    media_type: str
    digest: str
    size: int
    platform: dict[str, Any]
    annotations: dict[str, str]


class FilePart(NamedTuple):
    """SIZE bytes of the open file `fd`, from `start` on. is_whole: are they all of a file of their
    own?
    """

    fd: int
    start: int
    size: int
    is_whole: bool

    def read(self, size: int, offset: int = 0) -> bytes:
        """Up to SIZE bytes from OFFSET on. Raises OSError."""
        most = size if self.is_whole else max(0, min(size, self.size - offset))
        return os.pread(self.fd, most, self.start + offset)


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
        return any(self.has(name) for name in ("index.json", "oci-layout", "blobs"))

    @contextmanager
    def part(self, name: str) -> Iterator[FilePart]:
        """The regular file NAME of the layout, open. Raises ParentError."""
        with opened(self.path / name) as fd:
            yield FilePart(fd, 0, os.fstat(fd).st_size, is_whole=True)

    def has(self, name: str) -> bool:
        """Does anything have the name NAME in the layout?"""
        return os.path.lexists(self.path / name)

    def names(self, folder: str) -> list[str]:
        """What lies in the directory FOLDER of the layout; nothing where it cannot be listed."""
        with suppress(OSError):
            return os.listdir(self.path / folder)
        return []

    def index(self) -> dict[str, Any]:
        """The document `index.json`. Raises ParentError."""
        path = self.path / "index.json"
        with self.part("index.json") as part:
            if part.size > MOST_DOCUMENT:
                raise ParentError(
                    f"has {part.size} bytes, which is too large for a document",
                    where=str(path),
                    hint=_TOO_LARGE,
                )
            return parse_document(b"".join(_pieces(part, path)), str(path))

    def blob_path(self, digest: str) -> Path:
        """Where the blob is; `digest` comes from a ReadDescriptor and so cannot point elsewhere."""
        return self.path / _blob_name(digest)

    def has_blob(self, digest: str) -> bool:
        """Does anything have the name of this blob?"""
        return self.has(_blob_name(digest))

    def blob_size(self, digest: str) -> int:
        """Bytes of the blob, as large as it is. Raises ParentError where there is no such file."""
        with self.part(_blob_name(digest)) as part:
            return part.size

    def document(self, descriptor: ReadDescriptor) -> dict[str, Any]:
        """The JSON document that DESCRIPTOR points to. Raises ParentError naming the blob."""
        path = self.blob_path(descriptor.digest)
        if descriptor.size > MOST_DOCUMENT:
            raise ParentError(
                f"is said to have {descriptor.size} bytes, which is too large for a document",
                where=str(path),
                hint=_TOO_LARGE,
            )
        with self.blob(descriptor) as blob:
            return parse_document(b"".join(blob), str(path))

    @contextmanager
    def blob(self, descriptor: ReadDescriptor) -> Iterator[VerifiedBlob]:
        """The content of a blob, to be read to its end: the last piece is given only if size and
        digest are right.
        """
        path = self.blob_path(descriptor.digest)
        with self.part(_blob_name(descriptor.digest)) as part:
            if part.size != descriptor.size:
                raise _wrong_size(path, part.size, descriptor)
            yield VerifiedBlob(part, path, descriptor, self._is_known(part, descriptor))

    def _is_known(self, part: FilePart, descriptor: ReadDescriptor) -> bool:
        """Does the attribute of the file PART tell that it is the blob of DESCRIPTOR?"""
        if self.trust_checksums is False or not part.is_whole:
            return False
        from build_oci._native.walk import believed_digest

        told = believed_digest(part.fd, everywhere=self.trust_checksums is True)
        return told is not None and descriptor.digest == f"sha256:{told.hex()}"


def _blob_name(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _wrong_size(path: Path, size: int, descriptor: ReadDescriptor) -> ParentError:
    return ParentError(
        f"has {size} bytes, but its descriptor says {descriptor.size}", where=str(path), hint=_AGAIN
    )


class VerifiedBlob:
    """Iterates over the pieces of one blob, which is `part`; ends with ParentError if the whole is
    not what its descriptor says. is_known: is it, without being read?
    """

    def __init__(
        self, part: FilePart, path: Path, descriptor: ReadDescriptor, is_known: bool = False
    ) -> None:
        self.part = part
        self.path = path
        self.descriptor = descriptor
        self.is_known = is_known

    def __iter__(self) -> Iterator[bytes]:
        algorithm = self.descriptor.digest.partition(":")[0]
        return self._pieces(None if self.is_known else new_hash(algorithm))

    def unhashed(self) -> Iterator[bytes]:
        """The same pieces, held against the size alone: for one who hashes them and then calls
        `compare`.
        """
        return self._pieces(None)

    def _pieces(self, content: Hash | None) -> Iterator[bytes]:
        size = 0
        held = b""
        for piece in _pieces(self.part, self.path):
            if held:
                yield held
            if content is not None:
                content.update(piece)
            size += len(piece)
            held = piece
        self.compare(size, content.digest().hex() if content is not None else None)
        if held:
            yield held

    def compare(self, size: int, digest: str | None) -> None:
        """Raise ParentError unless the descriptor tells this size in bytes, and this digest where
        there is one.
        """
        algorithm, _, expected = self.descriptor.digest.partition(":")
        if size != self.descriptor.size:
            raise _wrong_size(self.path, size, self.descriptor)
        if digest is not None and digest != expected:
            raise ParentError(
                f"is damaged: its content has the digest {algorithm}:{digest}",
                where=str(self.path),
                hint=_AGAIN,
            )

    def most_bytes(self) -> int:
        """How many bytes to read to see that there are no more than the descriptor tells."""
        return self.part.size + self.part.is_whole


class Hashed(NamedTuple):
    """What came of reading a blob: the errno, or 0, and size and SHA-256 of what was read."""

    error: int
    size: int
    digest: bytes


def hashing(blobs: Sequence[VerifiedBlob]) -> Files:
    """What hashes BLOBS side by side, which takes less than one after the other."""
    from build_oci._native.sha256 import Files

    return Files([(blob.part.fd, blob.part.start, blob.most_bytes()) for blob in blobs])


def verify_blobs(
    blobs: Sequence[VerifiedBlob],
    stoppable: Callable[[Callable[[], None]], AbstractContextManager[None]],
    find: Callable[[VerifiedBlob], Hashed | None] = lambda blob: None,
) -> None:
    """Hold all of BLOBS, whose digests are SHA-256, against their descriptors. Those that are known
    are not read, nor are those that FIND finds hashed already.

    STOPPABLE is Crew.stoppable. Raises ParentError, Cancelled.
    """
    unknown = [blob for blob in blobs if not blob.is_known]
    hashed = [find(blob) for blob in unknown]
    files = hashing([blob for blob, one in zip(unknown, hashed, strict=True) if one is None])
    with stoppable(files.cancel):
        found = files.run()
    if found is None:
        raise Cancelled("the build was stopped")
    rest = iter(found)
    for blob, one in zip(unknown, hashed, strict=True):
        error, size, digest = one or next(rest)
        if error:
            raise unreadable(error, blob.path)
        blob.compare(size, digest.hex())


def side_by_side(
    items: Iterable[Item], size_of: Callable[[Item], int], threads: int
) -> Iterator[list[Item]]:
    """ITEMS, blobs of a size in bytes, in runs that one of THREADS hashes at once: such of one size
    together, so that they end together.
    """
    from build_oci._native.sha256 import together

    rest = sorted(items, key=size_of)
    left = sum(map(size_of, rest))  # bytes
    batch: list[Item] = []
    size = 0
    while rest:
        for _ in range(together(map(size_of, reversed(rest)), left // threads)):
            batch.append(rest.pop())
            size += size_of(batch[-1])
            left -= size_of(batch[-1])
        if len(batch) >= _MOST_TOGETHER or size >= _BYTES_TOGETHER:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of the regular file PATH, for reading. Raises ParentError."""
    fd = open_regular(path)
    try:
        yield fd
    finally:
        os.close(fd)


def open_regular(path: Path, hint: str = _AGAIN) -> int:
    """As `opened`, and the caller closes it. HINT: the way out where PATH is something else."""
    try:
        # O_NONBLOCK: a FIFO in the file's place must not stop us.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ParentError("is missing", where=str(path), hint=_AGAIN) from None
    except OSError as error:
        raise unreadable(error.errno or 0, path, "opened") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ParentError("is no regular file", where=str(path), hint=hint)
    return fd


def unreadable(number: int, path: str | Path, done: str = "read") -> ParentError:
    """What the system says, by its error NUMBER, of PATH, which was to be read or DONE."""
    return ParentError(
        f"cannot be {done}: {os.strerror(number)}", where=str(path), hint=_HINTS.get(number, "")
    )


@contextmanager
def named(path: Path) -> Iterator[None]:
    """What a decoder or a tar reader refuses is the fault of the blob PATH."""
    try:
        yield
    except ValueError as error:
        raise ParentError(str(error), where=str(path), hint=ANEW) from None


def _pieces(part: FilePart, path: Path) -> Iterator[bytes]:
    """The content of PART, up to where its file ends."""
    done = 0
    try:
        while piece := part.read(_PIECE, done):
            done += len(piece)
            yield piece
    except OSError as error:
        raise unreadable(error.errno or 0, path) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")  # NaN and infinities, which Python reads


def parse_document(data: bytes, where: str) -> dict[str, Any]:
    """DATA as a JSON object. Raises ParentError."""
    if sum(map(data.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise ParentError("has too many values for a document", where=where, hint=_TOO_LARGE)
    try:
        document = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
        # Half of a surrogate pair is no text, and parts of the document are going to be written
        # again.
        if _SURROGATE.search(data):
            to_json(document)
    except (ValueError, RecursionError):
        raise ParentError("is no JSON document", where=where, hint=ANEW) from None
    if not isinstance(document, dict):
        raise ParentError("is no JSON object", where=where, hint=ANEW)
    return document


def parse_descriptors(document: dict[str, Any], key: str, where: str) -> list[ReadDescriptor]:
    """The list of descriptors under KEY. Raises ParentError."""
    items = document.get(key)
    if not isinstance(items, list):
        raise ParentError(f"has no list “{key}”", where=where, hint=ANEW)
    return [
        parse_descriptor(item, f"{where}: {key}[{number}]") for number, item in enumerate(items)
    ]


def is_digest(text: str) -> bool:
    """Is TEXT a digest of a kind that is known, and so no path?"""
    return _DIGEST.fullmatch(text) is not None


def parse_descriptor(item: Any, where: str) -> ReadDescriptor:
    """ITEM as a descriptor.

    Raises ParentError, also for a digest that is none: it is going to be part of a path.
    """
    if not isinstance(item, dict):
        raise ParentError("is no descriptor", where=where, hint=ANEW)
    digest, size, media_type = item.get("digest"), item.get("size"), item.get("mediaType", "")
    if not isinstance(digest, str) or not is_digest(digest):
        raise ParentError(
            f"“{str(digest)[:200]}” is no digest (sha256 or sha512 and its hexadecimal digits)",
            where=where,
            hint=ANEW,
        )
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 63:
        raise ParentError(f"“{str(size)[:40]}” is no size", where=where, hint=ANEW)
    if not isinstance(media_type, str):
        raise ParentError("its mediaType is no string", where=where, hint=ANEW)
    platform, annotations = item.get("platform") or {}, item.get("annotations") or {}
    if not isinstance(platform, dict):
        raise ParentError("its platform is no object", where=where, hint=ANEW)
    if not isinstance(annotations, dict) or not all(
        isinstance(value, str) for value in annotations.values()
    ):
        raise ParentError("its annotations are no strings", where=where, hint=ANEW)
    return ReadDescriptor(media_type, digest, size, platform, annotations)
