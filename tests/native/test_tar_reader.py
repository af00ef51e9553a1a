"""Reading the archives of parent layers that other tools write (contract: diff-merge,
parent-any-archive)."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import random
import shutil
import stat
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import oracles
import pytest
import trees
from archives import BLOCK, header, padded, pax
from hypothesis import assume, given
from hypothesis import strategies as st
from tar_members import SECOND, mixed_archive, outcome, read_members

from build_oci._native.lower import TarReader
from build_oci._native.sha256 import kernel_id
from build_oci._native.tar import Partition, Plan
from build_oci._native.walk import Tree

if TYPE_CHECKING:
    from build_oci._native.lower import Member

pytestmark = pytest.mark.once


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
    found = read_members(out.getvalue())
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
        assert oracles.compare(oracles.tree_model(directory), model(read_members(bytes(tar)))) == []


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
    found, expected = model(read_members(tar)), oracles.tree_model(root)
    if form != "posix":
        for node in expected.values():
            node.mtime -= node.mtime % SECOND
            node.xattrs = {}
    assert oracles.compare(expected, found) == []


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


def _sought(tar: bytes, folder: Path, start: int) -> list[Member] | str:
    """As `outcome` with records believed, but contents sought over in a file."""
    (folder / "file").write_bytes(b"x" * start + tar + b"behind it")
    reader = TarReader(trust=True)
    at = 0
    try:
        with (folder / "file").open("rb") as file:
            while at < len(tar):
                at = reader.seek_through(file.fileno(), start, len(tar), at, 3)
        reader.finish()
    except ValueError as error:
        return str(error)
    return reader.members()


@pytest.mark.parametrize("start", [0, 77])
def test_seeking_finds_what_reading_does(start: int, tmp_path: Path) -> None:
    """Members, or the error with its offset, are the same where contents are sought over; those
    without a record are read, because their digest is wanted.
    """
    rng = random.Random(start)
    sizes = [0, 1, 511, 512, 513, 6000, 7167, 7168, 7169, 8191, 8192, 8193, 40_000]
    tars = [mixed_archive(), mixed_archive()[:-700], mixed_archive() + b"x"]
    for with_record in (True, False):
        tar = b""
        for size in sizes:
            content = rng.randbytes(size)
            record = hashlib.sha256(content).hexdigest().encode()
            tar += pax((b"freedesktopsdk.checksum.sha256", record)) if with_record else b""
            tar += header(b"f%d" % size, size=size) + padded(content)
        tars += [tar, tar + bytes(1024), tar + bytes(1024) + b"x"]
        tars += [tar[: rng.randrange(len(tar))] for _ in range(10)]
        broken = bytearray(tar)
        broken[-9000] ^= 1
        tars += [tar[: -512 * 3], bytes(broken)]
    for tar in tars:
        try:
            expected: list[Member] | str = read_members(tar, trust=True)
        except ValueError as error:
            expected = str(error)
        assert _sought(tar, tmp_path, start) == expected


def test_seeking_reads_no_content(tmp_path: Path) -> None:
    """Two reads: the headers with the start of the content, and what stands behind it."""
    record = pax((b"freedesktopsdk.checksum.sha256", b"0" * 64))
    tar = record + header(b"f", size=5_000_000) + padded(bytes(5_000_000)) + bytes(1024)
    (tmp_path / "file").write_bytes(tar)
    with (tmp_path / "file").open("rb") as file:
        reader = TarReader(trust=True)
        assert reader.seek_through(file.fileno(), 0, len(tar), 0, 2) == len(tar)
        reader.finish()
        for reader in (
            TarReader(trust=True, digest=True),
            TarReader(trust=True, recipe=True),
            TarReader(),
        ):
            assert reader.seek_through(file.fileno(), 0, len(tar), 0, 2) == 2 * 8192


def test_seeking_ends_where_the_file_does(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(mixed_archive())
    with (tmp_path / "file").open("rb") as file, pytest.raises(ValueError, match="truncated"):
        TarReader(trust=True).seek_through(file.fileno(), 0, 1 << 20, 0, 1000)
    with (tmp_path / "file").open("wb") as file, pytest.raises(OSError, match="descriptor"):
        TarReader(trust=True).seek_through(file.fileno(), 0, 512, 0, 1)


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
