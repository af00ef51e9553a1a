"""A member's headers as the readers of zstd:chunked compare them with the TOC: raw name and mode,
exact times, every attribute.
"""

from __future__ import annotations

import base64
import re
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

_NAMES = ("name", "linkName")
_NUMBERS = ("mode", "size", "uid", "gid", "devMajor", "devMinor")
_TIMES = ("modtime", "accesstime", "changetime")
HEADER_KEYS = ("type", *_NAMES, *_NUMBERS, *_TIMES, "xattrs")
_BLOCK = 512
_TYPES = {
    b"0": "reg",
    b"\0": "reg",
    b"7": "reg",
    b"1": "hardlink",
    b"2": "symlink",
    b"3": "char",
    b"4": "block",
    b"5": "dir",
    b"6": "fifo",
}
_XATTR = b"SCHILY.xattr."
_RECORD = re.compile(rb"([0-9]{1,10}) ")
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_UNIX_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def toc_header(entry: dict[str, Any]) -> dict[str, Any]:
    """What an entry of a TOC says of the headers of its member.

    ValueError where it cannot be told.
    """
    name = entry.get("name")
    where = f"“{str(name)[:200]}”"
    found: dict[str, Any] = {"type": entry.get("type")}
    for key in _NAMES:
        value = entry.get(key, "")
        if not isinstance(value, str):
            raise ValueError(f"its table of contents has a {key} that is no string")
        found[key] = value.encode("utf-8", "replace")
    for key in _NUMBERS:
        value = entry.get(key, 0)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"its table of contents has a {key} of {where} that is no number")
        found[key] = value
    for key in _TIMES:
        found[key] = _toc_time(entry.get(key), where)
    xattrs = entry.get("xattrs") or {}
    if not isinstance(xattrs, dict) or not all(isinstance(value, str) for value in xattrs.values()):
        raise ValueError(f"its table of contents has xattrs of {where} that are no strings")
    found["xattrs"] = {
        key.encode("utf-8", "replace"): decoded(value, "attribute") for key, value in xattrs.items()
    }
    return found


def decoded(text: str | bytes, what: str) -> bytes:
    """The bytes that TEXT stands for in base64. ValueError naming WHAT it should be."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError(f"its metadata have a {what} that is not base64") from None


def _toc_time(value: object, where: str) -> int:
    """Nanoseconds since 1970; no time, and Go's zero time, count as 0."""
    if value is None:
        return 0
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"its table of contents has a time of {where} that is none")
    if match[1] == "0001-01-01T00:00:00":
        return 0
    year = match[1][:4]
    # Python has no year 0; 400 years hold the same days again.
    text = f"0400{match[1][4:]}" if year == "0000" else match[1]
    passed = (
        datetime.fromisoformat(text + ("+00:00" if match[3] == "Z" else match[3])) - _UNIX_EPOCH
    )
    if year == "0000":
        passed -= timedelta(days=146097)
    return (passed.days * 86400 + passed.seconds) * 10**9 + int((match[2] or "").ljust(9, "0"))


def read_headers(data: bytes) -> dict[str, Any]:
    """The member whose headers are DATA, from the first extended one to its own.

    ValueError where they are not understood.
    """
    records: dict[bytes, bytes] = {}
    long: dict[bytes, bytes] = {}
    at = 0
    while True:
        block = data[at : at + _BLOCK]
        if len(block) < _BLOCK:
            raise ValueError("its tar-split has a content without headers")
        kind, at = block[156:157], at + _BLOCK
        if kind not in (b"x", b"L", b"K", b"g"):
            break
        size = _number(block[124:136])
        body, at = data[at : at + size], at + size + -size % _BLOCK
        if kind == b"x":
            records.update(_records(body))
        elif kind == b"g":
            raise ValueError(
                "its archive has a global header, which no writer of zstd:chunked takes"
            )
        else:
            long[kind] = body.rstrip(b"\0")
    if at != len(data):
        raise ValueError("its tar-split has bytes between the headers of a member and its content")
    return _member(block, records, long)


def _member(block: bytes, records: dict[bytes, bytes], long: dict[bytes, bytes]) -> dict[str, Any]:
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0" and (prefix := block[345:500].partition(b"\0")[0]):
        name = prefix + b"/" + name
    name = long.get(b"L") or records.get(b"path") or name
    target = long.get(b"K") or records.get(b"linkpath") or block[157:257].partition(b"\0")[0]
    kind = _TYPES.get(block[156:157])
    if kind is None:
        raise ValueError("its archive has a member of a type that no writer of zstd:chunked takes")
    if block[156:157] == b"\0" and name.endswith(b"/"):
        kind = "dir"
    is_ustar, is_gnu = block[257:263] == b"ustar\0", block[257:265] == b"ustar  \0"
    if is_ustar and block[508:512] == b"tar\0":
        raise ValueError("its archive has a header in the format of star")
    has_devices = is_ustar or is_gnu
    # GNU tar keeps access and change times where ustar has a prefix.
    accessed, changed = (
        _number(field) * 10**9 if is_gnu and field[0] else 0
        for field in (block[345:357], block[357:369])
    )
    return {
        "type": kind,
        "name": name,
        "linkName": target,
        "mode": _number(block[100:108]),
        "size": _decimal(records[b"size"]) if records.get(b"size") else _number(block[124:136]),
        "uid": _decimal(records[b"uid"]) if records.get(b"uid") else _number(block[108:116]),
        "gid": _decimal(records[b"gid"]) if records.get(b"gid") else _number(block[116:124]),
        "modtime": _time(records[b"mtime"])
        if records.get(b"mtime")
        else _number(block[136:148]) * 10**9,
        "accesstime": _time(records[b"atime"]) if records.get(b"atime") else accessed,
        "changetime": _time(records[b"ctime"]) if records.get(b"ctime") else changed,
        "devMajor": _number(block[329:337]) if has_devices else 0,
        "devMinor": _number(block[337:345]) if has_devices else 0,
        "xattrs": {
            key[len(_XATTR) :]: value for key, value in records.items() if key.startswith(_XATTR)
        },
    }


def _decimal(text: bytes) -> int:
    if not re.fullmatch(rb"[0-9]{1,19}", text):
        raise ValueError("its tar-split has a header with a number that is none")
    return int(text)


def _number(field: bytes) -> int:
    if field[:1] >= b"\x80":
        # Base 256: the first bit is a mark, the second one the sign.
        value = int.from_bytes(field, "big") & ~(1 << 8 * len(field) - 1)
        return value - (1 << 8 * len(field) - 1) if field[0] & 0x40 else value
    text = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]*", text):
        raise ValueError("its tar-split has a header with a number that is none")
    return int(text or b"0", 8)


def _time(text: bytes) -> int:
    """Nanoseconds; digits behind the ninth are cut off."""
    try:
        value = Decimal(text.decode("ascii"))
        if not abs(value) < 1 << 63:
            raise ValueError
        return int((value * 10**9).to_integral_value(rounding="ROUND_DOWN"))
    except (InvalidOperation, UnicodeDecodeError, ValueError):
        raise ValueError("its tar-split has a header with a time that is none") from None


def _records(body: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(body):
        size = _RECORD.match(body, at)
        end = at + int(size[1]) if size else 0
        if size is None or not size.end() < end <= len(body) or body[end - 1 : end] != b"\n":
            raise ValueError("its tar-split has an extended header that is none")
        key, equals, value = body[size.end() : end - 1].partition(b"=")
        if not equals:
            raise ValueError("its tar-split has an extended header that is none")
        found[key] = value
        at = end
    return found
