"""Archives read by the native reader, as members and as a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from archives import END, GNU, extended, header, padded, pax

from build_oci._native.lower import TarReader

if TYPE_CHECKING:
    from build_oci._native.lower import Member


HEX = hashlib.sha256(b"claimed").hexdigest().encode()

SECOND = 10**9


def read_members(
    tar: bytes,
    pieces: Iterator[int] | None = None,
    *,
    memory_limit: int = 1 << 26,
    trust: bool = False,
) -> list[Member]:
    """The members of TAR, fed in pieces of those sizes, or at once."""
    reader = TarReader(memory_limit=memory_limit, trust=trust)
    at = 0
    while at < len(tar):
        size = next(pieces) if pieces else len(tar)
        reader.feed(tar[at : at + size])
        at += size
    reader.finish()
    assert len(reader) == len(reader.members())
    return reader.members()


def one(tar: bytes, *, trust: bool = False) -> Member:
    (member,) = read_members(tar + END, trust=trust)
    return member


def outcome(tar: bytes, pieces: Iterator[int] | None = None) -> list[Member] | str:
    try:
        return read_members(tar, pieces)
    except ValueError as error:
        return str(error)


def mixed_archive() -> bytes:
    """Small, with one of everything that has a state of its own."""
    return (
        pax((b"comment", b"c"), (b"other", b"77"), kind=b"g")
        + header(b"./", b"5")
        + extended(b"n/" * 149 + b"nn\0", b"L")
        + header(magic=GNU, size=700)
        + padded(bytes(range(256)) * 2 + b"x" * 188)
        + pax(
            (b"path", b"dir/p"),
            (b"SCHILY.xattr.user.a", b"v"),
            (b"freedesktopsdk.checksum.sha256", hashlib.sha256(b"12345").hexdigest().encode()),
        )
        + header(size=5)
        + padded(b"12345")
        + header(b"h", b"1", link=b"dir/p")
        + END
    )
