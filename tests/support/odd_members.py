"""Random members of archives, whose headers are often odd, as no one writer writes them."""

from __future__ import annotations

import hashlib
import random
from typing import Any

from archives import BLOCK, END, GNU, USTAR, V7, extended, header, padded, pax

PREFIXES = [
    b"hidden",
    b"p/q",
    b"0123",
    b"00000000000 ",
    b"caf\xe9",
    b"\0" * 12 + b"x",
    b"7" * 12 + b"zz",
]
MAGICS = [
    USTAR,
    USTAR,
    USTAR,
    USTAR,
    USTAR,
    USTAR,
    GNU,
    GNU,
    V7,
    b"ustar  0",
    b"ustar 00",
    b"ustar\0\0\0",
    b"ustarx00",
]
KINDS = [*[b"0"] * 12, b"\0", b"\0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"S", b"A", b"x"]
NAMES = [
    *[b"f", b"g"] * 6,
    b"d/",
    b"./a//b",
    b"/abs",
    b"n" * 100,
    b"caf\xe9",
    b".wh.x",
    b"a/../b",
    b"",
    b"long/" * 30,
]
NUMBERS = [
    *[0, 7] * 6,
    b"1 ",
    b" 17",
    b"\x80\0\0\0\0\0\0\x05",
    b"\xff" * 8,
    b"9",
    b"\0007",
    b"777777",
    b"12\0x",
]
TIMES = [
    b"5",
    b"6",
    b"8.5",
    b"9",
    b"5.25",
    b"-3.5",
    b"-0.25",
    b"+5",
    b"1.1234567899",
    b"x",
    b"",
    b"7.",
    b"-62135596800",
    b"-62135596799.5",
    b"1e3",
    b" 5",
]
VALUES = [b"", b"v", b"\0\xff", b"=", b"user"]


def records(rng: random.Random) -> list[tuple[bytes, bytes]]:
    """Of a pax header: mostly sound, some odd, some that lie."""
    choices = [
        (b"path", rng.choice(NAMES)), (b"linkpath", rng.choice(NAMES)),
        (b"uid", rng.choice([b"", b"5", b"-1", b"+3", b"4294967295"])),
        (b"gid", rng.choice([b"", b"9", b"x"])), (b"size", rng.choice([b"", b"3", b"3"])),
        (b"mtime", rng.choice(TIMES)),
        (b"SCHILY.xattr.user.a", rng.choice(VALUES)), (b"SCHILY.xattr.user.b", rng.choice(VALUES)),
        (b"LIBARCHIVE.xattr.user.a", b"dg"), (b"SCHILY.xattr.trusted.overlay.opaque", b"y"),
        (b"SCHILY.xattr.user.overlay.redirect", b"/x"),
        (b"freedesktopsdk.checksum.sha256",
         hashlib.sha256(rng.choice([b"", b"abc", b"lie"])).hexdigest().encode()),
        (b"SCHILY.xattr.user.checksum.sha256",
         hashlib.sha256(rng.choice([b"", b"abc"])).hexdigest().encode()),
        (b"comment", b"c"), (b"hdrcharset", b"BINARY"), (b"GNU.sparse.major", b"1"),
        (b"uname", b"u"), (b"SCHILY.xattr.", b"v"), (b"atime", rng.choice(TIMES)),
        (b"ctime", rng.choice(TIMES)),
    ]  # fmt: skip
    found = rng.sample(choices, rng.choice([1, 1, 2, 3]))
    if rng.random() < 0.1:  # a record that takes another one's place
        found.append((rng.choice(found)[0], rng.choice([b"", b"5", b"name"])))
    return found


def numbers(rng: random.Random, most: int) -> dict[str, Any]:
    """Fields of a header block with odd numbers in up to MOST of them."""
    fields = rng.sample(["mode", "uid", "gid", "mtime", "major", "minor"], rng.randint(0, most))
    return {field: rng.choice(NUMBERS) for field in fields}


def random_extension(rng: random.Random) -> bytes:
    """An extended header, with fields of its own that few readers look at."""
    kind = rng.choice([b"x", b"x", b"x", b"L", b"K", b"g"])
    if kind in b"LK":
        block = extended(rng.choice(NAMES) + rng.choice([b"\0", b"", b"\0\0", b"\0x"]), kind)
    else:
        block = pax(
            *(records(rng) if rng.random() < 0.8 or kind == b"x" else [(b"comment", b"c")]),
            kind=kind,
        )
    if rng.random() < 0.1:
        size = int(block[124:135], 8)
        odd = header(b"odd", kind, magic=rng.choice(MAGICS), size=size, **numbers(rng, 1))
        block = odd + block[BLOCK:]
    return block


def random_member(rng: random.Random, *, only_headers: bool = False) -> bytes:
    """One member, its content padded, unless ONLY_HEADERS are wanted."""
    out = b""
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2])):
        out += random_extension(rng)
    kind, magic = rng.choice(KINDS), rng.choice(MAGICS)
    content = rng.choice([b"", b"", b"abc"])
    fields: dict[str, Any] = {
        "size": len(content),
        "mtime": rng.choice([0, 1700000000, b"\xff" * 12]),
        **numbers(rng, 2),
    }
    if rng.random() < 0.3:
        fields["prefix"] = rng.choice(PREFIXES)
    if rng.random() < 0.1:
        fields["trailer"] = b"tar\0"
    if kind in b"12" or rng.random() < 0.1:
        fields["link"] = rng.choice([b"f", b"./a", b"", b"x" * 100])
    out += header(rng.choice(NAMES)[:100], kind, magic=magic, **fields)
    return out if only_headers else out + padded(content)


def random_end(rng: random.Random) -> bytes:
    """What stands behind the last member."""
    return rng.choice(
        [END, END, END, END, b"", bytes(BLOCK), bytes(20 * BLOCK), END + b"behind", bytes(1500)]
    )


def random_archive(rng: random.Random) -> bytes:
    """A few members and an end; now and then the end is missing."""
    data = b"".join(random_member(rng) for _ in range(rng.choice([1, 1, 2, 3]))) + random_end(rng)
    return data[: rng.randrange(len(data))] if rng.random() < 0.05 else data


def random_headers(rng: random.Random) -> bytes:
    """The headers of one member, now and then cut off, damaged, or with something behind them."""
    data = bytearray(random_member(rng, only_headers=True))
    what = rng.random()
    if what < 0.05:
        del data[rng.randrange(len(data)) :]
    elif what < 0.15:
        data[rng.randrange(len(data))] = rng.choice(b"\0 7x\xff")
    elif what < 0.2:
        data += rng.choice([bytes(BLOCK), END, bytes(100)])
    return bytes(data)
