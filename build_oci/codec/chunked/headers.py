"""A member's headers as the readers of zstd:chunked compare them with the TOC: raw name and mode,
exact times, every attribute.
"""

from __future__ import annotations

import base64
import re
from datetime import datetime, timedelta
from typing import Any

from build_oci.codec.chunked.toc import NUMBERS, TIMES, shown

_NAMES = ("name", "linkName")
HEADER_KEYS = ("type", *_NAMES, *NUMBERS, *TIMES, "xattrs")
_BLOCK = 512
_TYPES = {
    b"0": "reg",
    b"\0": "reg",
    b"1": "hardlink",
    b"2": "symlink",
    b"3": "char",
    b"4": "block",
    b"5": "dir",
    b"6": "fifo",
}
_XATTR = b"SCHILY.xattr."
_SPARSE = b"GNU.sparse."
_EXTENSION_MOST = 1 << 20  # bytes in it
_RECORD = re.compile(rb"([0-9]{1,10}) ")
_DECIMAL = re.compile(rb"[+-]?[0-9]{1,30}")
_PAX_TIME = re.compile(rb"([+-]?[0-9]{1,30})(?:\.([0-9]*))?")
_TEXTS = (b"path", b"linkpath", b"uname", b"gname")
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_UNIX_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_GO_ZERO = -62135596800 * 10**9  # the first of January of the year 1, which is no time in Go


def toc_header(entry: dict[str, Any]) -> dict[str, Any]:
    """What an entry of a TOC says of the headers of its member.

    ValueError where it cannot be told.
    """
    found: dict[str, Any] = {key: entry.get(key, 0) for key in NUMBERS}
    found["type"] = entry.get("type")
    for key in _NAMES:
        found[key] = entry.get(key, "").encode()
    for key in TIMES:
        found[key] = _toc_time(entry[key], entry) if key in entry else 0
    found["xattrs"] = {key.encode(): value for key, value in entry.get("xattrs", {}).items()}
    return found


def _toc_time(value: str, entry: dict[str, Any]) -> int:
    """Nanoseconds since 1970; Go's zero time counts as 0."""
    match = _TIME.fullmatch(value)
    try:
        if match is None:
            raise ValueError
        year = match[1][:4]
        # Python has no year 0; 400 years hold the same days again.
        text = f"0400{match[1][4:]}" if year == "0000" else match[1]
        zone = "+00:00" if match[3] == "Z" else match[3]
        passed = datetime.fromisoformat(text + zone) - _UNIX_EPOCH
    except ValueError:
        raise ValueError(
            f"its table of contents has a time of {shown(entry.get('name'))} that is none"
        ) from None
    if year == "0000":
        passed -= timedelta(days=146097)
    seconds = passed.days * 86400 + passed.seconds
    return _no_zero(seconds * 10**9 + int((match[2] or "").ljust(9, "0")))


def _no_zero(time: int) -> int:
    return 0 if time == _GO_ZERO else time


def read_headers(data: bytes) -> dict[str, Any] | None:
    """The member whose headers are DATA, from the first extended one to its own. None: DATA is
    nothing, or the end of an archive.

    ValueError where readers do not take them.
    """
    if _is_end(data):
        return None
    records: dict[bytes, bytes] = {}
    long: dict[bytes, bytes] = {}
    at = 0
    while True:
        block, at = data[at : at + _BLOCK], at + _BLOCK
        numbers = _block_numbers(block)
        size = numbers["size"]
        kind = block[156:157]
        if kind not in (b"x", b"L", b"K", b"g"):
            break
        body, at = data[at : at + size], at + size + -size % _BLOCK
        if len(body) < size or size > _EXTENSION_MOST:
            raise ValueError("its tar-split has an extended header that is too long")
        if kind == b"x":
            records = _records(body)
        elif kind == b"g":
            raise ValueError(
                "its archive has a global header, which no writer of zstd:chunked takes"
            )
        else:
            long[kind] = body.partition(b"\0")[0]
    if at != len(data):
        raise ValueError("its tar-split has bytes between the headers of a member and its content")
    return _member(block, numbers, records, long)


def _is_end(data: bytes) -> bool:
    """A reader looks at two blocks."""
    if not data:
        return True
    if len(data) < _BLOCK or any(data[:_BLOCK]):
        return False
    rest = data[_BLOCK : 2 * _BLOCK]
    if rest and (len(rest) < _BLOCK or any(rest)):
        raise ValueError("its tar-split has something behind a block of zeros")
    return True


def _block_numbers(block: bytes) -> dict[str, int]:
    """Those in BLOCK, of whichever header. ValueError where the checksum does not hold or one of
    the numbers, all of which readers look at, is none.
    """
    if len(block) < _BLOCK:
        raise ValueError("its tar-split has a header that is cut off")
    stored = _octal(block[148:156])
    total = sum(block) - sum(block[148:156]) + 8 * 32
    if stored != total:
        signed = sum(byte > 127 for byte in block[:148] + block[156:])
        if stored != total - 256 * signed:
            raise ValueError("its tar-split has a header whose checksum does not hold")
    if _is_ustar(block) and block[508:512] == b"tar\0":
        raise ValueError("its archive has a header in the format of star")
    has_devices = _is_ustar(block) or _is_gnu(block)
    size = _number(block[124:136])
    if size < 0:
        raise ValueError("its tar-split has a header with a size below 0")
    return {
        "mode": _number(block[100:108]),
        "size": size,
        "uid": _number(block[108:116]),
        "gid": _number(block[116:124]),
        "devMajor": _number(block[329:337]) if has_devices else 0,
        "devMinor": _number(block[337:345]) if has_devices else 0,
        "modtime": _number(block[136:148]) * 10**9,
    }


def _is_ustar(block: bytes) -> bool:
    return block[257:263] == b"ustar\0"


def _is_gnu(block: bytes) -> bool:
    return block[257:265] == b"ustar  \0"


def _gnu_fields(block: bytes) -> tuple[bytes, int, int]:
    """GNU tar keeps access and change times where ustar has a prefix. A reader in Go that cannot
    read them takes the place for a prefix, if that is ASCII.
    """
    try:
        accessed, changed = (
            _number(field) * 10**9 if field[0] else 0 for field in (block[345:357], block[357:369])
        )
    except ValueError:
        prefix = block[345:500].partition(b"\0")[0]
        return prefix if prefix.isascii() else b"", 0, 0
    return b"", accessed, changed


def _member(
    block: bytes, numbers: dict[str, int], records: dict[bytes, bytes], long: dict[bytes, bytes]
) -> dict[str, Any]:
    found: dict[str, Any] = {**numbers, "accesstime": 0, "changetime": 0}
    prefix = b""
    if _is_ustar(block):
        prefix = block[345:500].partition(b"\0")[0]
    elif _is_gnu(block):
        prefix, found["accesstime"], found["changetime"] = _gnu_fields(block)
    name = block[:100].partition(b"\0")[0]
    if prefix:
        name = prefix + b"/" + name
    name = long.get(b"L") or records.get(b"path") or name
    kind = _TYPES.get(block[156:157])
    if kind is None:
        raise ValueError("its archive has a member of a type that no writer of zstd:chunked takes")
    if block[156:157] == b"\0" and name.endswith(b"/"):
        kind = "dir"
    for record, (key, read) in _RECORDS.items():
        if value := records.get(record):
            found[key] = read(value)
    if found["size"] < 0:
        raise ValueError("its tar-split has a header with a size below 0")
    for key in TIMES:
        found[key] = _no_zero(found[key])
    found["type"] = kind
    found["name"] = name
    found["linkName"] = (
        long.get(b"K") or records.get(b"linkpath") or block[157:257].partition(b"\0")[0]
    )
    # As the table of contents has them, since readers compare texts.
    found["xattrs"] = {
        key[len(_XATTR) :]: base64.b64encode(value).decode()
        for key, value in records.items()
        if key.startswith(_XATTR)
    }
    return found


def _in_range(value: int) -> int:
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError("its tar-split has a header with a number that is too large")
    return value


def _decimal(text: bytes) -> int:
    if not _DECIMAL.fullmatch(text):
        raise ValueError("its tar-split has a header with a number that is none")
    return _in_range(int(text))


def _octal(field: bytes) -> int:
    text = field.strip(b" \0").partition(b"\0")[0]
    if not text:
        return 0
    try:
        if text.isdigit():
            return int(text, 8)
    except ValueError:
        pass
    raise ValueError("its tar-split has a header with a number that is none")


def _number(field: bytes) -> int:
    if field[:1] < b"\x80":
        return _octal(field)
    # Base 256: the first bit is a mark, the second one the sign.
    value = int.from_bytes(field, "big") & ~(1 << 8 * len(field) - 1)
    return _in_range(value - (1 << 8 * len(field) - 1) if field[0] & 0x40 else value)


def _time(text: bytes) -> int:
    """Nanoseconds; digits behind the ninth are cut off."""
    match = _PAX_TIME.fullmatch(text)
    if match is None:
        raise ValueError("its tar-split has a header with a time that is none")
    fraction = int((match[2] or b"")[:9].ljust(9, b"0"))
    return _in_range(int(match[1])) * 10**9 + (-fraction if text[:1] == b"-" else fraction)


# Those that take the place of a number in the block.
_RECORDS = {
    b"size": ("size", _decimal),
    b"uid": ("uid", _decimal),
    b"gid": ("gid", _decimal),
    b"mtime": ("modtime", _time),
    b"atime": ("accesstime", _time),
    b"ctime": ("changetime", _time),
}


def _records(body: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(body):
        size = _RECORD.match(body, at)
        end = at + int(size[1]) if size else 0
        if size is None or not size.end() < end <= len(body) or body[end - 1 : end] != b"\n":
            raise ValueError("its tar-split has an extended header that is none")
        key, equals, value = body[size.end() : end - 1].partition(b"=")
        if not equals or not key or b"\0" in (value if key in _TEXTS else key):
            raise ValueError("its tar-split has an extended header that is none")
        if key.startswith(_SPARSE):
            raise ValueError("its archive has a sparse file, which no writer of zstd:chunked takes")
        found[key] = value
        at = end
    return found
