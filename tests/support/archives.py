"""Tar archives made by hand, block by block, for what no writer writes."""

from __future__ import annotations

BLOCK = 512
END = bytes(2 * BLOCK)
USTAR, GNU, V7 = b"ustar\x0000", b"ustar  \0", bytes(8)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def sealed(header: bytes, *, signed: bool = False) -> bytes:
    """HEADER with its checksum."""
    blank = header[:148] + b" " * 8 + header[156:]
    total = sum(byte - 256 if signed and byte > 127 else byte for byte in blank)
    return blank[:148] + b"%06o\0 " % total + blank[156:]


def header(
    name: bytes = b"f",
    kind: bytes = b"0",
    *,
    magic: bytes = USTAR,
    signed: bool = False,
    **fields: bytes | int,
) -> bytes:
    """A header block; the fields are mode, uid, gid, size, mtime, link, major, minor, prefix,
    trailer: bytes as they are, or a number.
    """
    places = {
        "mode": (100, 8), "uid": (108, 8), "gid": (116, 8), "size": (124, 12), "mtime": (136, 12),
        "link": (157, 100),
        "major": (329, 8), "minor": (337, 8), "prefix": (345, 155), "trailer": (508, 4),
    }  # fmt: skip
    block = bytearray(BLOCK)
    block[: len(name)] = name
    block[156:157] = kind
    block[257:265] = magic
    for field, value in ({"mode": 0o644} | fields).items():
        start, size = places[field]
        raw = value if isinstance(value, bytes) else b"%0*o\0" % (size - 1, value)
        assert len(raw) <= size
        block[start : start + len(raw)] = raw
    return sealed(bytes(block), signed=signed)


def extended(content: bytes, kind: bytes = b"x") -> bytes:
    return header(b"././@PaxHeader", kind, size=len(content)) + padded(content)


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """An extended header of RECORDS."""
    out = b""
    for key, value in records:
        rest = len(key) + len(value) + 3
        size = next(n for n in range(rest, rest + 30) if n == rest + len(str(n)))
        out += b"%d %s=%s\n" % (size, key, value)
    return extended(out, kind)
