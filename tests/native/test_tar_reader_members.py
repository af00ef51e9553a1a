"""What a member of a parent's archive may say (contract: parent-any-archive)."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import stat

import pytest
import trees
from archives import END, GNU, USTAR, V7, extended, header, padded, pax
from tar_members import HEX, SECOND, one, read_members

from build_oci._native.lower import TarReader

pytestmark = pytest.mark.once


# What a member may say


def test_prefix_belongs_to_ustar() -> None:
    """contract: parent-any-archive.
    The same name, whoever wrote it. GNU and v7 headers have other things, or nothing, in the place
    of the prefix."""
    assert one(header(b"f", prefix=b"a/b"))["name"] == b"a/b/f"
    assert one(header(b"f", prefix=b"0123", magic=GNU))["name"] == b"f"
    assert one(header(b"f", prefix=b"a/b", magic=V7))["name"] == b"f"
    assert one(header(b"n" * 100, prefix=b"p" * 155))["name"] == b"p" * 155 + b"/" + b"n" * 100
    assert (
        one(header(b"f", prefix=b"p" * 131 + b"12345670123", trailer=b"tar\0"))["name"]
        == b"p" * 131 + b"/f"
    )


@pytest.mark.parametrize(
    ("name", "normalised"),
    [
        (b"./a", b"a"),
        (b"/a", b"a"),
        (b"a//b/./c", b"a/b/c"),
        (b"././/.wh.x", b".wh.x"),
        (b"..a/b..", b"..a/b.."),
        (b"...", b"..."),
    ],
)
def test_names(name: bytes, normalised: bytes) -> None:
    """contract: diff-merge. "names normalised: `./a`, `a`, `/a` are the same"."""
    assert one(header(name))["name"] == normalised
    link = one(header(b"l", b"1", link=name))
    assert (link["target"], link["hard_link"]) == (normalised, True)
    assert one(header(b"l", b"2", link=name))["target"] == name


@pytest.mark.parametrize("seed", range(20))
def test_names_that_share_their_beginning(seed: int) -> None:
    """contract: diff-merge. However names follow each other: deeper and back, in a jumble, twice;
    as a whole and from anywhere on.
    """
    rng = random.Random(seed)
    names: list[bytes] = []
    name = b"a"
    for _ in range(400):
        match rng.randrange(6):
            case 0:
                name = rng.choice([*names, b"b"])
            case 1:
                name = name.rpartition(b"/")[0] or b"a"
            case 2:
                name = rng.choice([b"a", b"ab", b"x" * rng.choice([1, 90, 255])])
            case 3:
                name += rng.choice([b"/a", b"/ab", b"/a/b/c"])
            case 4:
                name = b"/".join([name, *[b"d"] * rng.randrange(2000)])[:65_000].rstrip(b"/")
            case 5:
                name = name[:-1] + bytes([rng.choice(b"abc")])
        names.append(name)
    reader = TarReader(whole_names=seed % 2 == 0)
    for name in names:
        reader.feed(pax((b"path", name)) + header())
    reader.feed(END)
    reader.finish()
    assert [member["name"] for member in reader.members()] == names
    for start in rng.sample(range(400), 40):
        assert [member["name"] for member in reader.members(start, start + 3)] == names[
            start : start + 3
        ]


def test_memory_of_deep_names() -> None:
    """contract: promise-memory. What names have in common is held once, and counted as often as
    somebody may ask for it.
    """
    readers = [TarReader(whole_names=whole) for whole in (False, True)]
    for reader in readers:
        for depth in range(1, 3001):
            reader.feed(pax((b"path", b"/".join([b"d"] * depth))) + header(b"d/", b"5"))
    held, whole = (reader.held for reader in readers)
    assert held < 3000 * 400
    assert whole > 3000 * 2900
    names = (b"d/" * 30_000 + b"%d" % number for number in range(30))
    tar = b"".join(pax((b"path", name)) + header() for name in names)
    with pytest.raises(ValueError, match="more than 1 MiB"):
        read_members(tar, memory_limit=1 << 20)


def test_types() -> None:
    """contract: parent-any-archive. The types. Old archives tell a directory by its closing
    slash.
    """
    assert one(header(b"./", b"5", mode=0o100755))["mode"] == stat.S_IFDIR | 0o755
    for kind, magic in [(b"\0", V7), (b"\0", USTAR)]:
        assert stat.S_ISDIR(one(header(b"d/", kind, magic=magic))["mode"])
    for kind in (b"0", b"\0"):
        assert (
            one(header(b"f", kind, size=3) + padded(b"abc"))["digest"]
            == hashlib.sha256(b"abc").digest()
        )
    device = one(header(b"c", b"3", major=4095, minor=1048575))
    assert (stat.S_IFMT(device["mode"]), device["rdev"]) == (
        stat.S_IFCHR,
        os.makedev(4095, 1048575),
    )


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"5", b"6"])
def test_only_files_have_content(kind: bytes) -> None:
    """contract: parent-any-archive.
    The members that follow are seen; the size of anything but a regular file says nothing about
    content."""
    found = read_members(header(b"a", kind, link=b"t", size=4096) + header(b"b") + END)
    assert [(member["name"], member["size"]) for member in found] == [(b"a", 0), (b"b", 0)]


@pytest.mark.parametrize(
    ("field", "value", "got"),
    [
        ("uid", b"   12 \0", 0o12),
        ("uid", b"0000012 ", 0o12),
        ("uid", b"77777777", 0o77777777),
        ("uid", bytes(8), 0),
        ("uid", b"\x80\0\0\0\xff\xff\xff\xfe", 2**32 - 2),
        ("mtime_ns", b"\xff" * 11 + b"\xfd", -3 * SECOND),
        ("mtime_ns", b"\x80" + bytes(6) + b"\x03\0\0\0\0", 3 * 2**32 * SECOND),
        ("mtime_ns", b"\xff" * 4 + b"\x80" + bytes(7), -(2**63) * SECOND),
    ],
)
def test_header_numbers(field: str, value: bytes, got: int) -> None:
    """contract: diff-unchanged. Uid and mtime are compared, so every way to write them is read."""
    member = one(header(uid=value) if field == "uid" else header(mtime=value))
    assert member[field] == got  # type: ignore[literal-required]


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        (b"5", 5 * SECOND), (b"5.5", 5 * SECOND + 500_000_000), (b"-0.25", -250_000_000),
        (b"-3", -3 * SECOND),
        (b"-3.000000001", -3 * SECOND - 1),
        (b"1.1234567899", 1_123_456_789), (b"7.", 7 * SECOND),
        (b"9223372036854775807.999999999", 2**63 * SECOND - 1),
    ],
)  # fmt: skip
def test_pax_times(text: bytes, nanoseconds: int) -> None:
    """contract: diff-precision. Mtime, to the nanosecond where there is a fraction."""
    assert one(pax((b"mtime", text)) + header(mtime=1))["mtime_ns"] == nanoseconds


def test_pax_records_win() -> None:
    """contract: layer-pax. "Anything that ustar cannot hold goes to pax", and counts more than the
    header, whatever that holds.
    """
    records = pax(
        (b"path", b"p\xff/q"),
        (b"uid", b"4294967295"),
        (b"gid", b"9"),
        (b"size", b"3"),
        (b"hdrcharset", b"BINARY"),
        (b"other", b"=\n="),
    )
    member = one(
        records
        + extended(b"p\xff/q\0", b"L")
        + header(b"short", size=0, uid=b"junk")
        + padded(b"abc")
    )
    assert (member["name"], member["uid"], member["gid"], member["size"]) == (
        b"p\xff/q",
        2**32 - 1,
        9,
        3,
    )
    assert (
        one(pax((b"linkpath", b"to")) + extended(b"to\0", b"K") + header(b"l", b"2", link=b"x"))[
            "target"
        ]
        == b"to"
    )
    assert one(pax((b"path", b"a"), (b"path", b"")) + header(b"f"))["name"] == b"f"


def test_global_comments_pass() -> None:
    """What `git archive` and Python's tarfile write in front: records that nobody applies."""
    tar = (
        pax((b"comment", b"c"), (b"other", b"7"), kind=b"g")
        + header(b"pax_global_header", b"g")
        + header(b"a")
        + END
    )
    assert [(member["name"], member["ambiguous"]) for member in read_members(tar)] == [
        (b"a", False)
    ]


@pytest.mark.parametrize(
    "records",
    [
        [(b"LIBARCHIVE.xattr.user.a", b"dg")],
        [
            (b"LIBARCHIVE.xattr.user.a", b"dg"),
            (b"SCHILY.xattr.user.b", b"v"),
            (b"LIBARCHIVE.xattr.user.b", b"dg"),
        ],
        *(
            [(b"SCHILY.xattr.%s.overlay.%s" % (space, what), b"y")]
            for space in (b"trusted", b"user")
            for what in (b"opaque", b"metacopy")
        ),
    ],
)
def test_ambiguous(records: list[tuple[bytes, bytes]]) -> None:
    """contract: diff-in-doubt. Members that clients may read otherwise are marked, and only
    they.
    """
    found = read_members(
        pax(*records)
        + header(b"a")
        + pax((b"LIBARCHIVE.xattr.user.a", b"dg"), (b"SCHILY.xattr.user.a", b"v"))
        + header(b"b")
        + END
    )
    assert [member["ambiguous"] for member in found] == [True, False]


def test_xattrs() -> None:
    """contract: xattr-bytes. Values are bytes, kept exactly; those of the host are left out.
    contract: parent-any-archive: libarchive's way to write them is read too."""

    def encoded(value: bytes) -> bytes:
        return base64.b64encode(value).rstrip(b"=")

    capability = trees.capability(0xFF80C3)
    member = one(
        pax(
            (b"SCHILY.xattr.user.z", b"\0\xff=\n"),
            (b"LIBARCHIVE.xattr.user.a%20%3d", encoded(b"ab")),
            (b"LIBARCHIVE.xattr.user.c", base64.b64encode(b"a")),
            (b"LIBARCHIVE.xattr.security.capability", encoded(b"not this")),
            (b"SCHILY.xattr.security.capability", b"first"),
            (b"SCHILY.xattr.security.capability", capability),
            (b"LIBARCHIVE.xattr.user.z", encoded(b"nor this")),
            (b"SCHILY.xattr.user.empty", b""),
            *(
                (b"SCHILY.xattr." + name, b"x")
                for name in (
                    b"security.selinux",
                    b"system.nfs4_acl",
                    b"trusted.overlay.opaque",
                    b"user.overlay.a",
                )
            ),
            (b"LIBARCHIVE.xattr.security.selinux", encoded(b"x")),
            (b"LIBARCHIVE.xattr.user.checksum.sha256", encoded(HEX)),
            (b"SCHILY.xattr.user.checksum.sha256", b"junk"),
        )
        + header()
    )
    assert member["xattrs"] == sorted(
        {
            b"user.z": b"\0\xff=\n",
            b"user.a =": b"ab",
            b"user.c": b"a",
            b"security.capability": capability,
            b"user.empty": b"",
        }.items()
    )
    assert (
        read_members(pax((b"SCHILY.xattr.user.a", b"v")) + header(b"a") + header(b"b") + END)[1][
            "xattrs"
        ]
        == []
    )


@pytest.mark.parametrize(
    ("records", "claimed"),
    [
        ([], None),
        ([(b"freedesktopsdk.checksum.sha256", HEX)], HEX),
        ([(b"SCHILY.xattr.user.checksum.sha256", HEX)], HEX),
        (
            [
                (b"SCHILY.xattr.user.checksum.sha256", b"0" * 64),
                (b"freedesktopsdk.checksum.sha256", HEX),
            ],
            HEX,
        ),
        (
            [
                (b"freedesktopsdk.checksum.sha256", HEX.upper()),
                (b"SCHILY.xattr.user.checksum.sha256", HEX),
            ],
            HEX,
        ),
        ([(b"freedesktopsdk.checksum.sha256", HEX[:-1])], None),
        ([(b"freedesktopsdk.checksum.sha256", HEX + b"\n")], None),
    ],
)
def test_digest(records: list[tuple[bytes, bytes]], claimed: bytes | None) -> None:
    """contract: diff-content-digest. With `parent.trust`, the digest is the record, else the older
    one, else computed.
    """
    content = b"content" * 100
    digest = one(
        (pax(*records) if records else b"") + header(size=len(content)) + padded(content),
        trust=True,
    )["digest"]
    assert digest == (
        bytes.fromhex(claimed.decode()) if claimed else hashlib.sha256(content).digest()
    )


def test_historic_checksum() -> None:
    """contract: parent-any-archive. Archives whose checksum was summed over signed characters are
    read.
    """
    assert one(header(b"caf\xe9" * 9, signed=True))["name"] == b"caf\xe9" * 9
