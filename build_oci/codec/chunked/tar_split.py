"""The lines of a tar-split, as the readers of zstd:chunked take them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from build_oci.codec.chunked.toc import as_reader, decoded, shown
from build_oci.records import NamedTuple

_LONGEST_LINE = 8 << 20  # extended headers of 4 MiB in base64
_LONGEST_DOCUMENT = 64 << 10  # of a line that is no run of bytes
_BYTES_LINE = re.compile(rb'\{"type":2,"payload":"([A-Za-z0-9+/]*={0,2})","position":[0-9]{1,18}\}')
_KINDS: dict[str, type] = {
    "type": int,
    "name": str,
    "name_raw": str,
    "size": int,
    "payload": str,
    "position": int,
}
_BYTES, _CONTENT = 2, 1


class Content(NamedTuple):
    """A line that stands for the content of a file."""

    name: bytes
    size: int
    checksum: bytes


def tar_split_lines(pieces: Iterable[bytes]) -> Iterator[bytes | Content]:
    """The lines of a document that comes in PIECES: bytes of the archive, or a content.

    ValueError where readers do not take one.
    """
    for line in _lines(pieces):
        found = _BYTES_LINE.fullmatch(line)
        yield decoded(found[1], "line of bytes") if found else _line(line)


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *whole, last = piece.split(b"\n")
        if whole:
            whole[0] = rest + whole[0]
            rest = last
            yield from whole
        else:
            rest += last
        if len(rest) > _LONGEST_LINE:
            raise ValueError("its tar-split has a line without end")
    if rest:
        yield rest


def _without_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError
    return found


def _line(line: bytes) -> bytes | Content:
    """A line that is not written as the reference writes bytes."""
    if len(line) > _LONGEST_DOCUMENT:
        raise ValueError("its tar-split has a line that is too long")
    try:
        document = json.loads(line, object_pairs_hook=_without_twice)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ValueError("its tar-split has a line that is no object")
    found = as_reader(document, _KINDS, "its tar-split has a line with")
    payload: str = found.get("payload", "")
    if found.get("type") == _BYTES:
        return decoded(payload, "line of bytes")
    if found.get("type") != _CONTENT:
        raise ValueError("its tar-split has a line that stands for neither bytes nor a content")
    return _content(found, payload)


def _content(line: dict[str, Any], payload: str) -> Content:
    name: bytes = decoded(line.get("name_raw", ""), "name") or line.get("name", "").encode()
    size = line.get("size", 0)
    if size < 0:
        raise ValueError(f"its tar-split has no size of {shown(name)}")
    return Content(name, size, decoded(payload, "checksum"))
