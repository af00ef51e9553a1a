"""An image layout inside of one tar archive (`oci-archive:`, as skopeo, podman and build-oci write
it), read where it lies.

The archive is as untrusted as any layout. Its names are looked through once; a blob is then a range
of the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from build_oci.errors import ParentError
from build_oci.oci.untrusted import (
    MOST_DOCUMENT,
    ReadDescriptor,
    Source,
    VerifiedBlob,
    opened,
    parse_document,
    wrong_size,
)

_BLOCK = 512
_MOST_FILES = 1 << 17  # that a layout in an archive may have
_MOST_EXTENSION = 1 << 20  # bytes of one extended header
_PIECE = 1 << 18
_AGAIN = "copy the image again, or unpack the archive into a directory and name that"


class _Range(NamedTuple):
    offset: int
    size: int


class ArchiveSource(Source):
    """The layout in the tar archive `path`."""

    def __init__(self, path: Path, check: Callable[[], None] = lambda: None) -> None:
        """CHECK is called again and again and may raise to stop this. Raises ParentError where PATH
        is no such archive.
        """
        super().__init__(path)
        with opened(path) as fd:
            self._files = dict(_files(fd, path, check))

    def index(self) -> dict[str, Any]:
        return parse_document(self._small_file("index.json"), str(self.path / "index.json"))

    @contextmanager
    def blob(self, descriptor: ReadDescriptor) -> Iterator[VerifiedBlob]:
        name = f"blobs/{descriptor.digest.replace(':', '/')}"
        where = self.blob_path(descriptor.digest)
        found = self._range(name)
        if found.size != descriptor.size:
            raise wrong_size(where, found.size, descriptor)
        with opened(self.path) as fd:
            yield _BlobInArchive(fd, where, descriptor, found)

    def _range(self, name: str) -> _Range:
        found = self._files.get(name.encode())
        if found is None:
            raise ParentError("is missing", where=str(self.path / name), hint=_AGAIN)
        return found

    def _small_file(self, name: str) -> bytes:
        found = self._range(name)
        if found.size > MOST_DOCUMENT:
            raise ParentError(
                f"has {found.size} bytes, which is too large for a document",
                where=str(self.path / name),
            )
        with opened(self.path) as fd:
            return b"".join(_read(fd, found, self.path))


class _BlobInArchive(VerifiedBlob):
    def __init__(self, fd: int, path: Path, descriptor: ReadDescriptor, found: _Range) -> None:
        super().__init__(fd, path, descriptor)
        self._range = found
        self.start = found.offset

    def most_bytes(self) -> int:
        return self._range.size

    def _pieces(self) -> Iterator[bytes]:
        return _read(self.fd, self._range, self.path)


def _read(fd: int, found: _Range, path: Path) -> Iterator[bytes]:
    done = 0
    while done < found.size:
        try:
            piece = os.pread(fd, min(_PIECE, found.size - done), found.offset + done)
        except OSError as error:
            raise ParentError(f"cannot be read: {error.strerror}", where=str(path)) from None
        if not piece:
            return  # the reader of the blob misses the rest
        done += len(piece)
        yield piece


def _files(fd: int, path: Path, check: Callable[[], None]) -> Iterator[tuple[bytes, _Range]]:
    """Name and place of every regular file; the last one of a name counts, as when the archive is
    unpacked.
    """

    def refuse(what: str, at: int) -> ParentError:
        return ParentError(f"at byte {at}: {what}", where=str(path), hint=_AGAIN)

    end = os.fstat(fd).st_size
    at = count = 0
    name: bytes | None = None
    size: int | None = None
    while True:
        check()
        header = os.pread(fd, _BLOCK, at)
        if len(header) < _BLOCK:
            raise refuse(
                "the archive ends too early" if at else "this is no archive of an image layout", at
            )
        if not header.strip(b"\0"):
            return
        if not _is_header(header):
            raise refuse(
                "this is no header of a tar archive"
                if at
                else "this is no archive of an image layout",
                at,
            )
        kind = header[156:157]
        length = _number(header[124:136])
        if size is not None and kind not in b"xgLK":
            length, size = size, None
        start = at + _BLOCK
        if length is None or not 0 <= length <= end - start:
            raise refuse("the archive ends too early", at)
        if kind in (b"x", b"L"):
            if length > _MOST_EXTENSION:
                raise refuse("an extended header is too large", at)
            content = os.pread(fd, length, start)
            if kind == b"L":
                name = content.rstrip(b"\0")
            else:
                records = _records(content)
                if records is None:
                    raise refuse("an extended header is damaged", at)
                name = records.get(b"path", name)
                if b"size" in records:
                    size = (
                        int(records[b"size"])
                        if records[b"size"].isdigit() and len(records[b"size"]) < 20
                        else -1
                    )
        elif kind in (b"0", b"\0", b"7"):
            count += 1
            if count > _MOST_FILES:
                raise refuse(f"the archive has more files than {_MOST_FILES}", at)
            prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
            short = header[:100].split(b"\0")[0]
            whole = name if name is not None else prefix + b"/" + short if prefix else short
            yield (
                b"/".join(part for part in whole.split(b"/") if part not in (b"", b".")),
                _Range(start, length),
            )
            name = None
        elif kind in b"g5":
            name = None if kind == b"5" else name
        else:
            raise refuse("the archive holds what is neither a file nor a directory", at)
        at = start + length + -length % _BLOCK


def _is_header(header: bytes) -> bool:
    return _number(header[148:156]) == sum(header[:148]) + 8 * ord(" ") + sum(header[156:])


def _number(field: bytes) -> int | None:
    """The number in a header's FIELD: octal digits, or binary where the first bit is set."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    return int(text, 8) if text and not text.strip(b"01234567") else 0 if not text else None


def _records(content: bytes) -> dict[bytes, bytes] | None:
    found = {}
    while content:
        digits, space, _ = content.partition(b" ")
        size = int(digits) if digits.isdigit() and len(digits) < 10 else 0
        record = content[len(digits) + 1 : size]
        key, equals, value = record.partition(b"=")
        if not space or not equals or not value.endswith(b"\n"):
            return None
        found[key] = value[:-1]
        content = content[size:]
    return found
