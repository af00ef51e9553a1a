"""Where a parent's archive ends, and what is refused (contract: promise-hostile-input)."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re

import pytest
from archives import BLOCK, END, GNU, V7, extended, header, padded, pax
from tar_members import HEX, mixed_archive, outcome, read_members

from build_oci._native.lower import TarReader
from build_oci._native.sha256 import kernel_id

pytestmark = pytest.mark.once


# The end, and what is refused


@pytest.mark.parametrize(
    "end", [b"", bytes(BLOCK), END, bytes(10240), END + bytes(1 << 20), bytes(700)]
)
def test_ends(end: bytes) -> None:
    """contract: parent-any-archive. Archives with two zero blocks, with padding, and with no end at
    all.
    """
    assert len(read_members(header() + end)) == 1
    assert read_members(end) == []


LONG = b"n" * 65537

RELUCTANT = [
    (header() + b"x" * 512, "at byte 512: this is no tar header: its checksum does not hold"),
    (header() + END + b"\0x", "at byte 1537: data after the end of the archive"),
    (header() + bytes(512) + header(), "at byte 1024: data after the end of the archive"),
    (
        header() + END + bytes((1 << 20) + 1),
        "at byte 1050112: more than 1049600 zero bytes at the end of the archive",
    ),
    (
        pax((b"uid", b"1")) + END,
        "at byte 1024: the archive ends where an extended header wants its member",
    ),
    (
        pax((b"uid", b"1")),
        "at byte 1024: the archive is truncated: an extended header wants its member",
    ),
    (pax((b"uid", b"1")) * 2 + header(), "two extended headers of one kind"),
    (extended(b"a", b"L") * 2 + header(), "two extended headers of one kind"),
    (
        header(b"evil'\n\\\xff", b"S"),
        (
            r"at byte 0: 'evil\x27\x0a\x5c\xff': the member type \x53 (a sparse file) is not"
            r" understood"
        ),
    ),
    (header(b"f", b"D"), r"type \x44 (a directory of an incremental dump)"),
    (header(b"f", b"M"), r"type \x4d (a file continued from another volume)"),
    (header(b"f", b"N"), r"type \x4e (an old list of long names)"),
    (header(b"f", b"V"), r"type \x56 (a volume label)"),
    (header(b"f", b"?"), r"type \x3f (unknown)"),
    (
        pax((b"GNU.sparse.major", b"1")),
        "at byte 0: sparse files (GNU.sparse records) are not understood",
    ),
    (header(b""), "at byte 0: a member without a name"),
    (header(b"a/../b"), "at byte 0: 'a/../b': its name has a component \"..\""),
    (header(b".."), 'its name has a component ".."'),
    (pax((b"path", b"a/..")) + header(), 'its name has a component ".."'),
    (header(b"l", b"1", link=b"../x"), "at byte 0: 'l': its link target has a component \"..\""),
    (header(b"l", b"1", link=b"./"), "a hard link to the root"),
    (header(b"l", b"2"), "a link without a target"),
    (header(b"./", b"2", link=b"x"), "the root is no directory"),
    (header(b"d/"), "a regular file whose name ends with a slash"),
    (header(b"d/", b"\0", size=1), "a directory with content"),
    (pax((b"path", b"a\0b")) + header(), r"'a\x00b': its name holds a NUL byte"),
    (extended(b"a\0b", b"L") + header(), "its name holds a NUL byte"),
    (pax((b"linkpath", b"a\0b")) + header(b"l", b"2"), "its link target holds a NUL byte"),
    (pax((b"linkpath", b"a\0b")) + header(b"l", b"1"), "its link target holds a NUL byte"),
    (pax((b"path", LONG)) + header(), "a name of 65537 bytes; at most 65536 are accepted"),
    (
        pax((b"linkpath", LONG)) + header(b"l", b"2"),
        "a link target of 65537 bytes; at most 65536 are accepted",
    ),
    (extended(b"\0\0", b"L"), "an extended header with an empty name"),
    (
        header(b"f", b"L", size=65538),
        "at byte 0: an extended header of 65538 bytes; at most 65537 are accepted",
    ),
    (
        header(b"f", b"x", size=2 << 30),
        "an extended header of 2147483648 bytes; at most 1048576 are accepted",
    ),
    (
        header(b"f", b"x", size=b"\xff" * 12),
        "the size in the header is not a number that it can be",
    ),
    (header(size=b"\xff" * 12), "the size in the header is not a number that it can be"),
    (header(size=b"\x80" + b"\xff" * 11), "the size in the header is not a number that it can be"),
    (
        header(size=b"\x80\0\0\x01" + bytes(8)),
        "the size in the header is not a number that it can be",
    ),
    (header(size=b"12x"), "the size in the header is not a number that it can be"),
    (header(size=b"1 2"), "the size in the header is not a number that it can be"),
    (header(size=b"-1"), "the size in the header is not a number that it can be"),
    (header(uid=b"\x80\0\0\x01\0\0\0\0"), "the uid in the header is not a number that it can be"),
    (header(gid=b"8"), "the gid in the header is not a number that it can be"),
    (header(mode=b"rw"), "the mode in the header is not a number that it can be"),
    (header(mtime=b"now"), "the mtime in the header is not a time"),
    (
        header(b"c", b"3", major=b"\xff" * 8),
        "the device number in the header is not a number that it can be",
    ),
    (
        pax((b"uid", b"4294967296")) + header(),
        "the uid in a pax record is not a number that it can be",
    ),
    (
        pax((b"uid", b"99999999999999999999999")) + header(),
        "the uid in a pax record is not a number that it can be",
    ),
    (pax((b"size", b"-1")) + header(), "the size in a pax record is not a number that it can be"),
    (
        pax((b"size", b"9223372036854775808")) + header(),
        "the size in a pax record is not a number that it can be",
    ),
    *(
        (pax((b"mtime", time)) + header(), "the mtime in a pax record is not a time")
        for time in (b".5", b"-", b"1e3", b"1.x", b"9223372036854775808")
    ),
    *(
        (extended(text), "at byte 0: a pax record's length is wrong")
        for text in (
            b"2147483648 a=b\n",
            b"9999999999999999999999999 a=b\n",
            b"x a=b\n",
            b"7a=bcd\n",
            b"8 a=b\n",
            b"1 a=b\n",
            b"5",
            b" ",
            b"6 a=b\n\0\0",
        )
    ),
    *(
        (extended(text), "a pax record is not LENGTH KEY=VALUE")
        for text in (b"6 a=bc", b"5 =b\n", b"5 ab\n", b"7 a\0=b\n")
    ),
    (pax((b"SCHILY.xattr.", b"v")), "an extended attribute has no proper name"),
    (pax((b"LIBARCHIVE.xattr.a%00", b"")), "an extended attribute has no proper name"),
    (
        pax((b"LIBARCHIVE.xattr.a", b"YQ*")),
        "a LIBARCHIVE.xattr record is not encoded as it should be",
    ),
    (
        pax((b"LIBARCHIVE.xattr.a", b"Y")),
        "a LIBARCHIVE.xattr record is not encoded as it should be",
    ),
    (
        pax((b"LIBARCHIVE.xattr.a%4", b"")),
        "a LIBARCHIVE.xattr record is not encoded as it should be",
    ),
    *(
        (
            pax((key, value), kind=b"g") + header(),
            (
                "a global header with records that some readers apply to all members and others to"
                " none"
            ),
        )
        for key, value in (
            (b"path", b"p"),
            (b"linkpath", b"p"),
            (b"uid", b"1"),
            (b"gid", b"1"),
            (b"size", b"1"),
            (b"mtime", b"1"),
            (b"uid", b""),
            (b"freedesktopsdk.checksum.sha256", HEX),
            (b"SCHILY.xattr.user.checksum.sha256", HEX),
            (b"SCHILY.xattr.user.a", b"v"),
            (b"LIBARCHIVE.xattr.user.a", b""),
            (b"SCHILY.xattr.trusted.overlay.opaque", b"y"),
        )
    ),
    (pax((b"GNU.sparse.major", b"1"), kind=b"g"), "sparse files"),
    (
        header(b"usr/bin/sudo", b"g") + header(),
        "'usr/bin/sudo': a global header of that name, for which some clients remove the file",
    ),
    (header(b"", b"g") + header(), "a global header of that name"),
    (header(b".wh.x", b"g") + header(), "a global header of that name"),
    (
        pax((b"uid", b"1")) + pax((b"comment", b"c"), kind=b"g") + header(),
        "a global header between an extended header and its member",
    ),
    (
        pax((b"path", b"a")) + extended(b"b\0", b"L") + header(),
        "a pax record and a GNU header give it different names",
    ),
    (
        pax((b"linkpath", b"a")) + extended(b"b\0", b"K") + header(b"l", b"2"),
        "a pax record and a GNU header give it different targets",
    ),
    (
        header(b"sudo", prefix=b"hidden", magic=GNU),
        "'sudo': a GNU header with text where ustar has a prefix",
    ),
    *(
        (header(b"c", b"3", magic=magic), "a device in a header of a format without device numbers")
        for magic in (V7, b"ustar 00")
    ),
    (header(b"d/", b"0", magic=V7), "a regular file whose name ends with a slash"),
    (header(b"f", b"7"), "a contiguous file, which no container client unpacks"),
    (
        pax((b"SCHILY.xattr.trusted.overlay.redirect", b"/x")) + header(),
        "lets an overlay show other files in its place",
    ),
    (pax((b"freedesktopsdk.checksum.sha256", HEX)) + header(), "at byte 1024: 'f': a lying record"),
    (
        pax((b"SCHILY.xattr.user.checksum.sha256", HEX)) + header(size=1) + padded(b"x"),
        "at byte 1024: 'f': a lying record",
    ),
    *(
        (
            pax((b"path", path)) + header(),
            "its name has a component of 256 bytes; no file system takes more than 255",
        )
        for path in (
            b"n" * 256,
            b"a/" + b"n" * 256,
            b"n" * 256 + b"/a",
            b".wh." + b"n" * 252 + b"/a",
        )
    ),
    (pax((b"path", b"a/.wh." + b"n" * 256)) + header(), "its name has a component of 260 bytes"),
    (extended(b"n" * 256 + b"/a\0", b"L") + header(), "its name has a component of 256 bytes"),
    (pax((b"path", b"n" * 65533 + b"/x")) + header(), "its name has a component of 65533 bytes"),
    (
        pax((b"linkpath", b"a/" + b"n" * 256)) + header(b"l", b"1"),
        "its link target has a component of 256 bytes",
    ),
    (
        pax((b"linkpath", b"n" * 4096)) + header(b"l", b"2"),
        "a link target of 4096 bytes; no file system takes more than 4095",
    ),
]


@pytest.mark.parametrize(("tar", "message"), RELUCTANT, ids=range(len(RELUCTANT)))
def test_refusals(tar: bytes, message: str) -> None:
    """contract: promise-hostile-input.
    Hostile input: "one clear error", with its place; and an archive that was refused once stays
    refused."""
    told = outcome(tar)
    assert isinstance(told, str)
    assert told.startswith("at byte ")
    assert message in told
    assert told.isascii()
    assert outcome(tar, itertools.repeat(700)) == told
    reader = TarReader()
    with contextlib.suppress(ValueError):
        reader.feed(tar)
    with pytest.raises(ValueError, match=re.escape(told)):
        reader.finish()
    with pytest.raises(ValueError, match=re.escape(told)):
        reader.feed(header())
    with pytest.raises(RuntimeError):
        reader.capsule()


@pytest.mark.parametrize(
    "piece",
    [
        header(),
        pax((b"path", b"n/" * 30000 + b"n")) + header(),
        pax((b"SCHILY.xattr.user.a", b"v" * 900)) + header(),
    ],
    ids=["members", "names", "xattrs"],
)
def test_memory_limit(piece: bytes) -> None:
    """contract: promise-hostile-input.
    "decompression bombs against the walk's memory": it ends at the limit, by the number of members
    and by what they carry."""
    reader = TarReader(memory_limit=4 << 20)

    def feed_much() -> None:
        for _ in range(100_000):
            reader.feed(piece)

    with pytest.raises(ValueError, match="the archive's members need more than 4 MiB of memory"):
        feed_much()
    assert len(reader) * (len(piece) - 5 * BLOCK) < 5 << 20


def test_digest_of_the_archive() -> None:
    """contract: parent-verified. The diff_id is verified; a reader computes it beside the contents'
    digests, however the archive arrives.
    """
    tar = mixed_archive()
    for size in (len(tar), 1000, 77):
        reader = TarReader(digest=True)
        for at in range(0, len(tar), size):
            reader.feed(tar[at : at + size])
        reader.finish()
        assert reader.digest == hashlib.sha256(tar).digest()
        assert reader.members() == read_members(tar)
    assert TarReader().digest is None


def test_use() -> None:
    """The members are handed on only when they are complete; a kernel is a demand."""
    reader = TarReader(kernel=kernel_id("scalar"))
    reader.feed(memoryview(header() + END))
    with pytest.raises(RuntimeError):
        reader.capsule()
    reader.finish()
    assert reader.capsule()
    with pytest.raises(RuntimeError):
        reader.feed(b"")
    with pytest.raises(ValueError, match="no SHA-256 kernel 99"):
        TarReader(kernel=99)
    with pytest.raises(TypeError):
        TarReader().feed("text")  # type: ignore[arg-type]
