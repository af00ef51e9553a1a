"""Reading the archives of parent layers (contract: diff-merge, parent-any-archive,
promise-hostile-input).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import itertools
import os
import random
import re
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import oracles
import pytest
import trees
from archives import BLOCK, END, GNU, USTAR, V7, extended, header, padded, pax
from hypothesis import assume, given
from hypothesis import strategies as st

from build_oci._native.lower import Scan
from build_oci._native.sha256 import kernel_id
from build_oci._native.tar import Partition, Plan
from build_oci._native.walk import Tree

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from build_oci._native.lower import Member

HEX = hashlib.sha256(b"claimed").hexdigest().encode()
SECOND = 10**9


def scan(
    tar: bytes,
    pieces: Iterator[int] | None = None,
    *,
    memory_limit: int = 1 << 26,
    trust: bool = False,
) -> list[Member]:
    """The members of TAR, fed in pieces of those sizes, or at once."""
    scanner = Scan(memory_limit=memory_limit, trust=trust)
    at = 0
    while at < len(tar):
        size = next(pieces) if pieces else len(tar)
        scanner.feed(tar[at : at + size])
        at += size
    scanner.finish()
    assert len(scanner) == len(scanner.members())
    return scanner.members()


def one(tar: bytes, *, trust: bool = False) -> Member:
    (member,) = scan(tar + END, trust=trust)
    return member


def outcome(tar: bytes, pieces: Iterator[int] | None = None) -> list[Member] | str:
    try:
        return scan(tar, pieces)
    except ValueError as error:
        return str(error)


def model(members: list[Member]) -> oracles.Model:
    """Members as the model of oracles.py, hard links resolved."""
    nodes: oracles.Model = {}
    for member in members:
        path = member["name"] or b"."
        if member["hard_link"]:
            nodes[path] = nodes[member["target"] or b""]
            continue
        node = oracles.Node(
            oracles.TYPES[stat.S_IFMT(member["mode"])],
            stat.S_IMODE(member["mode"]),
            member["uid"],
            member["gid"],
            member["mtime_ns"],
        )
        node.target = member["target"] or b""
        node.device = (os.major(member["rdev"]), os.minor(member["rdev"]))
        node.size = member["size"]
        node.sha256 = member["digest"].hex() if member["digest"] else ""
        assert member["xattrs"] is not None
        node.xattrs = {oracles.text(name): value for name, value in member["xattrs"]}
        nodes[path] = node
    return nodes


# What others write


def tarfile_members() -> st.SearchStrategy[tuple[tarfile.TarInfo, bytes]]:
    names = st.lists(st.sampled_from(trees.NAMES), min_size=1, max_size=5).map(
        lambda parts: oracles.text(b"/".join(parts))
    )
    kinds = st.sampled_from(
        [
            tarfile.REGTYPE,
            tarfile.DIRTYPE,
            tarfile.SYMTYPE,
            tarfile.CHRTYPE,
            tarfile.BLKTYPE,
            tarfile.FIFOTYPE,
            tarfile.LNKTYPE,
        ]
    )

    @st.composite
    def members(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
        member = tarfile.TarInfo(draw(st.sampled_from(["", "./", "/"])) + draw(names))
        member.type = draw(kinds)
        member.mode = draw(st.sampled_from(trees.FILE_MODES))
        member.uid, member.gid = draw(st.sampled_from(trees.IDS)), draw(st.sampled_from(trees.IDS))
        member.mtime = draw(st.sampled_from(trees.SECONDS))
        content = b""
        if member.isreg():
            content = bytes([draw(st.integers(0, 255))]) * draw(st.sampled_from(trees.SIZES))
            member.size = len(content)
        elif member.issym() or member.islnk():
            member.linkname = draw(names)
        elif member.ischr() or member.isblk():
            member.devmajor, member.devminor = draw(
                st.sampled_from([(1, 3), (0, 0), (4095, 1048575)])
            )
        return member, content

    return members()


@given(
    members=st.lists(tarfile_members(), max_size=4),
    form=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    xattrs=st.dictionaries(
        st.sampled_from(["user.a", "user.größe", "security.capability", "security.selinux"]),
        st.sampled_from(trees.VALUES),
    ),
)
def test_tarfile_archives(
    members: list[tuple[tarfile.TarInfo, bytes]], form: int, xattrs: dict[str, bytes]
) -> None:
    """contract: parent-any-archive.
    Any OCI layout, whoever wrote it. Names, numbers and attributes come back from each of the three
    formats."""
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for member, content in members:
            member.pax_headers = {
                f"SCHILY.xattr.{name}": oracles.text(value) for name, value in xattrs.items()
            }
            try:
                archive.addfile(member, io.BytesIO(content))
            except ValueError:  # does not fit this format
                assume(False)
    found = scan(out.getvalue())
    assert len(found) == len(members)
    kept = {
        name.encode(): value
        for name, value in xattrs.items()
        if form == tarfile.PAX_FORMAT and not oracles.is_excluded(name)
    }
    for got, (member, content) in zip(found, members, strict=True):
        assert got["name"] == oracles.normalised(member.name)
        assert (stat.S_IMODE(got["mode"]), got["uid"], got["gid"]) == (
            member.mode,
            member.uid,
            member.gid,
        )
        assert (got["mtime_ns"], got["size"]) == (member.mtime * SECOND, len(content))
        assert got["digest"] == (hashlib.sha256(content).digest() if member.isreg() else None)
        assert got["hard_link"] == member.islnk()
        linkname = member.linkname.encode("utf-8", "surrogateescape")
        assert got["target"] == (
            linkname
            if member.issym()
            else oracles.normalised(member.linkname)
            if member.islnk()
            else None
        )
        assert got["rdev"] == (
            os.makedev(member.devmajor, member.devminor) if member.ischr() or member.isblk() else 0
        )
        assert got["xattrs"] == sorted(kept.items())


@given(items=trees.trees())
def test_own_layers(items: list[trees.Item]) -> None:
    """contract: parent-any-archive. Layers "written by this tool": all that the walk and the writer
    know of a tree comes back.
    """
    with tempfile.TemporaryDirectory() as directory:
        trees.materialise(items, directory)
        tree = Tree(os.fsencode(directory), trust_checksums=False)
        tree.run()
        plan = Plan(Partition(tree), epoch=None, kernel=kernel_id("auto"), segment_size=1 << 30)
        tar = bytearray()
        for index in range(len(plan)):
            piece = bytearray(plan.size(index))
            assert plan.fill(index, piece) is None
            tar += piece
        assert oracles.compare(oracles.tree_model(directory), model(scan(bytes(tar)))) == []


@pytest.mark.parametrize("form", ["v7", "ustar", "gnu", "oldgnu", "posix"])
def test_gnu_tar(form: str, tmp_path: Path) -> None:
    """contract: parent-any-archive. Archives of GNU tar in every format, its long names, base-256
    numbers and padding included.
    """
    program = shutil.which("tar")
    if (
        not program
        or "GNU tar"
        not in subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False
        ).stdout
    ):
        pytest.skip("no GNU tar here")
    root = tmp_path / "root"
    root.mkdir()
    if form in ("v7", "ustar"):  # what these can hold
        (root / "dir").mkdir()
        (root / "dir" / "file").write_bytes(b"x" * 700)
        (root / "dir" / "other").hardlink_to(root / "dir" / "file")
        (root / "link").symlink_to("../anywhere")
        if form == "ustar":
            deep = root / ("p" * 90) / ("q" * 60)
            deep.mkdir(parents=True)
            (deep / ("n" * 90)).write_bytes(b"behind a prefix")
    else:
        items = trees.random_tree(random.Random(11), 150)
        for item in items:
            # What it claims here is not what the file holds.
            item.xattrs.pop("user.checksum.sha256", None)
        trees.materialise(items, root)
    attributes = ["--xattrs", "--xattrs-include=*"] if form == "posix" else []
    tar = subprocess.run(
        [program, f"--format={form}", *attributes, "-C", root, "-c", "."],
        capture_output=True,
        check=True,
    ).stdout
    found, expected = model(scan(tar)), oracles.tree_model(root)
    if form != "posix":
        for node in expected.values():
            node.mtime -= node.mtime % SECOND
            node.xattrs = {}
    assert oracles.compare(expected, found) == []


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


@pytest.mark.parametrize(
    "tar",
    [
        mixed_archive(),
        mixed_archive()[:-700],
        mixed_archive() + bytes(3000) + b"x",
        mixed_archive()[:-1024] + b"x" * 512,
    ],
)
def test_cuts_do_not_matter(tar: bytes) -> None:
    """contract: promise-hostile-input. Reproducible. Members, or the error with its offset, are the
    same however the stream arrives.
    """
    whole = outcome(tar)
    assert outcome(tar, itertools.repeat(1)) == whole
    for seed in range(20):
        sizes = random.Random(seed).choices([1, 7, 511, 512, 513, 2000], k=len(tar))
        assert outcome(tar, iter(sizes)) == whole


def test_truncation() -> None:
    """contract: promise-hostile-input.
    "Truncated or corrupt archives: ... one clear error"; only between two members, or in the
    padding, may an archive stop."""
    tar = mixed_archive()
    with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape") as archive:
        ends = [member.offset_data + member.size for member in archive if member.isreg()]
    padding = {cut for end in ends for cut in range(end, -(-end // BLOCK) * BLOCK)}
    cuts = sorted(
        {
            *range(0, len(tar), BLOCK),
            *range(0, len(tar), 97),
            *(n + 1 for n in range(0, len(tar), BLOCK)),
        }
    )
    complete = {0, 1024, 1536, 4096, 6144, 6656}
    assert len(tar) == 7680
    for cut in cuts:
        result = outcome(tar[:cut])
        if cut in complete | padding or cut >= 7168:  # one zero block is an end
            assert isinstance(result, list), cut
        else:
            assert isinstance(result, str), cut
            assert "the archive is truncated" in result
            assert result.startswith(f"at byte {cut}: ")


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
    found = scan(header(b"a", kind, link=b"t", size=4096) + header(b"b") + END)
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
    assert [(member["name"], member["ambiguous"]) for member in scan(tar)] == [(b"a", False)]


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
    found = scan(
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
        scan(pax((b"SCHILY.xattr.user.a", b"v")) + header(b"a") + header(b"b") + END)[1]["xattrs"]
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


# The end, and what is refused


@pytest.mark.parametrize(
    "end", [b"", bytes(BLOCK), END, bytes(10240), END + bytes(1 << 20), bytes(700)]
)
def test_ends(end: bytes) -> None:
    """contract: parent-any-archive. Archives with two zero blocks, with padding, and with no end at
    all.
    """
    assert len(scan(header() + end)) == 1
    assert scan(end) == []


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
    scanner = Scan()
    with contextlib.suppress(ValueError):
        scanner.feed(tar)
    with pytest.raises(ValueError, match=re.escape(told)):
        scanner.finish()
    with pytest.raises(ValueError, match=re.escape(told)):
        scanner.feed(header())
    with pytest.raises(RuntimeError):
        scanner.capsule()


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
    scanner = Scan(memory_limit=4 << 20)

    def feed_much() -> None:
        for _ in range(100_000):
            scanner.feed(piece)

    with pytest.raises(ValueError, match="the archive's members need more than 4 MiB of memory"):
        feed_much()
    assert len(scanner) * (len(piece) - 5 * BLOCK) < 5 << 20


def test_digest_of_the_archive() -> None:
    """contract: parent-verified. The diff_id is verified; a scan computes it beside the contents'
    digests, however the archive arrives.
    """
    tar = mixed_archive()
    for size in (len(tar), 1000, 77):
        scanner = Scan(digest=True)
        for at in range(0, len(tar), size):
            scanner.feed(tar[at : at + size])
        scanner.finish()
        assert scanner.digest == hashlib.sha256(tar).digest()
        assert scanner.members() == scan(tar)
    assert Scan().digest is None


def test_use() -> None:
    """The members are handed on only when they are complete; a kernel is a demand."""
    scanner = Scan(kernel=kernel_id("scalar"))
    scanner.feed(memoryview(header() + END))
    with pytest.raises(RuntimeError):
        scanner.capsule()
    scanner.finish()
    assert scanner.capsule()
    with pytest.raises(RuntimeError):
        scanner.feed(b"")
    with pytest.raises(ValueError, match="no SHA-256 kernel 99"):
        Scan(kernel=99)
    with pytest.raises(TypeError):
        Scan().feed("text")  # type: ignore[arg-type]
