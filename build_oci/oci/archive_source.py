"""An image layout inside of one tar archive (`oci-archive:`, as skopeo, podman and build-oci write
it), read where it lies.

The archive is as untrusted as any layout. Its headers are looked through once; a blob is then a
range of the file. What could be unpacked in two ways is refused: a name that is there twice, links,
names that lead elsewhere, sparse files.

The file stays open as long as its ArchiveSource: a build that replaces the archive meanwhile, which
may be this one, changes nothing of what is read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from build_oci.errors import ParentError
from build_oci.oci.archive import ARCHIVE, DIRECTORY
from build_oci.oci.untrusted import FilePart, Source, open_regular, unreadable
from build_oci.records import NamedTuple

_BLOCK = 512
_MOST_HEADERS = 1 << 16  # that an archive may have: each name takes some 400 bytes of memory
_MOST_EXTENSION = 1 << 16  # bytes of one extended header
_AGAIN = "copy the image again, or unpack the archive into a directory and name that"
_A_FILE = "an archive is read at any place of it: write it to a file first, and name that"
_OTHER_KIND = "`skopeo copy` or `podman save --format oci-archive` makes one of an image"
# What a layout holds; tools add files of their own, which nobody asks for.
_KNOWN = re.compile(rb"oci-layout|index\.json|blobs/sha(256|512)/[^/]{1,255}")
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ")


def layout_path(text: str) -> str:
    """The path of the layout that TEXT names: a directory or an archive, with `oci:` or
    `oci-archive:` before it or without.
    """
    for prefix in (ARCHIVE, DIRECTORY):
        if text.startswith(prefix):
            return text[len(prefix) :]
    return text


def open_source(
    path: str, check: Callable[[], None] = lambda: None, *, trust_checksums: bool | None = False
) -> Source:
    """The layout in the directory or the archive PATH.

    Raises ParentError, and what CHECK raises, called meanwhile.

    trust_checksums: as of Source; the blobs of an archive are always read.
    """
    if os.path.isdir(path):
        return Source(Path(path), trust_checksums=trust_checksums)
    return ArchiveSource(Path(path), check)


def is_layout(path: str) -> bool:
    """Is there an archive at PATH, or a directory with an index?"""
    return os.path.isfile(path) or os.path.lexists(os.path.join(path, "index.json"))


class ArchiveSource(Source):
    """The layout in the tar archive `path`."""

    def __init__(self, path: Path, check: Callable[[], None] = lambda: None) -> None:
        """CHECK is called again and again and may raise to stop this.

        Raises ParentError where PATH is no such archive.
        """
        super().__init__(path)
        self._fd = open_regular(path, _A_FILE)
        self._files: dict[bytes, FilePart] = {}
        for name, part in _files(self._fd, path, check):
            if name in self._files:
                where = str(path / os.fsdecode(name))
                raise ParentError("is in the archive twice", where=where, hint=_AGAIN)
            if _KNOWN.fullmatch(name):
                self._files[name] = part
        if b"index.json" not in self._files:
            raise ParentError(
                "is no archive of an image layout: it has no index.json",
                where=str(path),
                hint=_OTHER_KIND,
            )

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):  # it was never open, or reading it failed already
            os.close(self._fd)

    @contextmanager
    def part(self, name: str) -> Iterator[FilePart]:
        found = self._files.get(os.fsencode(name))
        if found is None:
            raise ParentError("is missing", where=str(self.path / name), hint=_AGAIN)
        yield found

    def has(self, name: str) -> bool:
        return os.fsencode(name) in self._files

    def names(self, folder: str) -> list[str]:
        start = os.fsencode(folder) + b"/"
        return [os.fsdecode(name[len(start) :]) for name in self._files if name.startswith(start)]


class _Member(NamedTuple):
    """A member of the archive. `kind`: its type flag; `size`: bytes of content from `start` on."""

    kind: bytes
    name: bytes
    start: int
    size: int


def _files(fd: int, path: Path, check: Callable[[], None]) -> Iterator[tuple[bytes, FilePart]]:
    """Name and place of every regular file, in the order of the archive."""
    for member in _members(fd, path, check):
        if member.kind in (b"0", b"\0", b"7"):
            name = _normalised(member.name)
            if name is None:
                raise _refused(path, member.start - _BLOCK, "its name leads out of the archive")
            yield name, FilePart(fd, member.start, member.size, is_whole=False)
        elif member.kind != b"5":
            raise _refused(
                path, member.start - _BLOCK, "the archive holds neither a file nor a directory"
            )


def _members(fd: int, path: Path, check: Callable[[], None]) -> Iterator[_Member]:
    """Every member but extended headers, which are applied."""
    end = os.fstat(fd).st_size
    at = 0
    name: bytes | None = None
    size: int | None = None
    for _ in range(_MOST_HEADERS):
        check()
        header = _read(fd, path, at, _BLOCK)
        if header is not None and not header.strip(b"\0"):
            if _read(fd, path, at + _BLOCK, _BLOCK) not in (None, header):
                raise _refused(path, at + _BLOCK, "the archive goes on behind its end")
            return
        if header is None or not _is_header(header):
            raise _no_header(path, at, header)
        kind, start = header[156:157], at + _BLOCK
        length = _number(header[124:136])
        if size is not None and kind not in b"xgLK":
            length, size = size, None
        if length is None or not 0 <= length <= end - start:
            raise _refused(path, at, "the archive ends too early")
        if kind in b"xgL":
            content = _read(fd, path, start, length) if length <= _MOST_EXTENSION else None
            if content is None:
                raise _refused(path, at, "an extended header is too large")
            if kind == b"L":
                name = content.rstrip(b"\0")
            else:
                records = _records(content)
                if records is None or (kind == b"g" and records.keys() & {b"path", b"size"}):
                    raise _refused(path, at, "an extended header is damaged")
                if any(key.startswith(b"GNU.sparse.") for key in records):
                    raise _refused(path, at, "the archive holds a sparse file")
                name = records.get(b"path", name)
                size = _decimal(records[b"size"]) if b"size" in records else size
        else:
            yield _Member(kind, _name(header) if name is None else name, start, length)
            name = None
        at = start + length + -length % _BLOCK
    raise ParentError(f"has more members than {_MOST_HEADERS}", where=str(path), hint=_AGAIN)


def _refused(path: Path, at: int, what: str) -> ParentError:
    return ParentError(f"at byte {at}: {what}", where=str(path), hint=_AGAIN)


def _no_header(path: Path, at: int, block: bytes | None) -> ParentError:
    """What is wrong where no header begins at AT; BLOCK is what does, None where the file ends."""
    if at:
        ends = "the archive ends too early"
        return _refused(path, at, ends if block is None else "this is no header of a tar archive")
    if block is not None and block.startswith(_COMPRESSED):
        return ParentError(
            "is compressed, and an archive of an image layout is not",
            where=str(path),
            hint="decompress it; its layers are compressed already",
        )
    return ParentError("is no archive of an image layout", where=str(path), hint=_OTHER_KIND)


def _read(fd: int, path: Path, at: int, size: int) -> bytes | None:
    """SIZE bytes of the archive from AT on; None where it ends before."""
    try:
        found = os.pread(fd, size, at)
    except OSError as error:
        raise unreadable(error.errno or 0, path) from None
    return found if len(found) == size else None


def _is_header(header: bytes) -> bool:
    return _number(header[148:156]) == sum(header[:148]) + 8 * ord(" ") + sum(header[156:])


def _number(field: bytes) -> int | None:
    """The number in a header's FIELD: octal digits, or binary where the first bit is set."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    return int(text, 8) if text and not text.strip(b"01234567") else 0 if not text else None


def _decimal(text: bytes) -> int:
    return int(text) if text.isdigit() and len(text) < 20 else -1


def _name(header: bytes) -> bytes:
    """The name in HEADER itself."""
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    name = header[:100].split(b"\0")[0]
    return prefix + b"/" + name if prefix else name


def _normalised(name: bytes) -> bytes | None:
    """NAME without empty and `.` components. None: it is absolute, or has a `..`."""
    parts = name.split(b"/")
    if not parts[0] or b".." in parts:
        return None
    return b"/".join(part for part in parts if part not in (b"", b"."))


def _records(content: bytes) -> dict[bytes, bytes] | None:
    """The records of an extended header; None where it is damaged."""
    found = {}
    at = 0
    while at < len(content):
        space = content.find(b" ", at, at + 10)
        digits = content[at:space] if space > 0 else b""
        stop = at + int(digits) if digits.isdigit() else 0
        key, equals, value = content[space + 1 : stop].partition(b"=")
        if not space + 1 < stop <= len(content) or not equals or not value.endswith(b"\n"):
            return None
        found[key] = value[:-1]
        at = stop
    return found
