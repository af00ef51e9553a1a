"""The recipe of a layer: the digest of its archive's headers, from entries and from an archive, and
what differs first (contract: previous-blobs)."""

from __future__ import annotations

import hashlib
import io
import os
import random
import stat
import tarfile
import tempfile
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
import trees
from hypothesis import given, settings
from hypothesis import strategies as st
from test_partition import KERNEL, archive, random_owners, walked

from build_oci._native.diff import Digests
from build_oci._native.lower import TarReader
from build_oci._native.tar import Partition, Plan
from build_oci._native.walk import Tree

pytestmark = pytest.mark.platform

EPOCH = 1_700_000_000


def digested(root: Path) -> Tree:
    tree = walked(root)
    digests = Digests(tree, kernel=KERNEL, threads=2)
    for batch in range(len(digests)):
        assert digests.hash(batch) is None
    digests.finish()
    return tree


def plan_of(partition: Partition, layer: int = 0, epoch: int | None = EPOCH) -> Plan:
    return Plan(partition, layer, epoch=epoch, kernel=KERNEL, segment_size=1 << 14)


def recipe_of(root: Path, epoch: int | None = EPOCH) -> object:
    return plan_of(Partition(digested(root)), epoch=epoch).recipe()


def headers_of(tar: bytes) -> bytes:
    """The twin: the archive without contents and padding, as tarfile sees it."""
    with tarfile.open(
        fileobj=io.BytesIO(tar), errors="surrogateescape", encoding="utf-8"
    ) as opened:
        return b"".join(tar[one.offset : one.offset_data] for one in opened.getmembers())


def headers_digest(tar: bytes) -> bytes:
    return hashlib.sha256(headers_of(tar)).digest()


def reader_of(tar: bytes, piece: int = 1 << 20, *, trust: bool = False) -> TarReader:
    reader = TarReader(recipe=True, trust=trust)
    for at in range(0, len(tar), piece):
        reader.feed(tar[at : at + piece])
    reader.finish()
    return reader


@settings(max_examples=40)
@given(
    items=trees.trees(whiteout_names=False),
    rng=st.randoms(use_true_random=False),
    epoch=st.sampled_from([None, EPOCH]),
    piece=st.sampled_from([1, 100, 511, 512, 5000, 1 << 20]),
)
def test_recipe_is_the_digest_of_the_headers(
    items: list[trees.Item], rng: random.Random, epoch: int | None, piece: int
) -> None:
    """Of each layer: from entries, from the archive in pieces of any size, and by tarfile."""
    with tempfile.TemporaryDirectory() as scratch:
        trees.materialise(items, scratch)
        tree = digested(Path(scratch))
        owners = array("I", random_owners(rng, len(tree), 3))
        partition = Partition(tree, owners, 3, directories_last=epoch is None)
        for layer in range(len(partition)):
            if not partition.members(layer):
                continue
            tar = archive(partition, layer, epoch)
            plan = plan_of(partition, layer, epoch)
            assert plan.recipe() == headers_digest(tar) == reader_of(tar, piece).recipe
            assert plan.difference(reader_of(tar)) == plan.members
            assert_headers_alone(plan, tar, piece)


def assert_headers_alone(plan: Plan, tar: bytes, piece: int) -> None:
    """The headers of PLAN are those of TAR, and read alone they tell the same members."""
    pieces: list[bytes] = []
    recipe = plan.recipe(lambda headers: pieces.append(bytes(headers)))
    assert recipe == plan.recipe()
    headers = b"".join(pieces)
    assert headers == headers_of(tar)
    alone = TarReader(headers=True, digest=True)
    for at in range(0, len(headers), piece):
        alone.feed(headers[at : at + piece])
    alone.finish()
    assert alone.digest == recipe
    assert alone.members() == reader_of(tar, trust=True).members()
    assert alone.members() == reader_of(tar).members()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small tree with an entry of each kind that needs no privilege."""
    root = tmp_path / "root"
    (root / "dir" / "below").mkdir(parents=True)
    (root / "dir" / "file").write_bytes(b"content of a file")
    (root / "dir" / "other").write_bytes(b"another")
    os.link(root / "dir" / "file", root / "dir" / "linked")
    (root / "symlink").symlink_to("dir/file")
    os.mkfifo(root / "fifo")
    (root / ("long" * 40)).write_bytes(b"long name")
    for path in [root, *root.rglob("*")]:
        os.utime(path, ns=(EPOCH * 10**9, EPOCH * 10**9), follow_symlinks=False)
    return root


def _rewrite(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    os.utime(path, ns=(EPOCH * 10**9, EPOCH * 10**9))


def _relink(root: Path, target: str) -> None:
    (root / "symlink").unlink()
    (root / "symlink").symlink_to(target)
    os.utime(root / "symlink", ns=(EPOCH * 10**9, EPOCH * 10**9), follow_symlinks=False)


def _chown(path: Path, uid: int, gid: int) -> None:
    try:
        os.chown(path, uid, gid)
    except PermissionError:
        pytest.skip("files cannot be given away here")


def _set_xattr(path: Path) -> None:
    try:
        os.setxattr(path, "user.note", b"value")
    except OSError:
        pytest.skip("no extended attributes here")


def _unlink_link(root: Path) -> None:
    (root / "dir" / "linked").unlink()
    _rewrite(root / "dir" / "linked", b"content of a file")


def _replace_fifo(root: Path) -> None:
    (root / "fifo").unlink()
    _rewrite(root / "fifo", b"")


CHANGES: dict[str, tuple[Callable[[Path], object], tuple[str, bytes]]] = {
    "content of the same size": (
        lambda root: _rewrite(root / "dir" / "file", b"CONTENT of a file"),
        ("content", b"dir/file"),
    ),
    "size": (
        lambda root: _rewrite(root / "dir" / "file", b"more content of a file"),
        ("content", b"dir/file"),
    ),
    "mode": (lambda root: (root / "dir" / "file").chmod(0o4755), ("mode", b"dir/file")),
    "mode of a directory": (lambda root: (root / "dir").chmod(0o700), ("mode", b"dir")),
    "user": (lambda root: _chown(root / "dir" / "other", 1234, -1), ("owner", b"dir/other")),
    "group": (lambda root: _chown(root / "dir" / "other", -1, 1234), ("owner", b"dir/other")),
    "large user": (
        lambda root: _chown(root / "dir" / "other", 1 << 30, -1),
        ("owner", b"dir/other"),
    ),
    "seconds": (
        lambda root: os.utime(root / "dir" / "other", ns=(0, (EPOCH + 1) * 10**9)),
        ("mtime", b"dir/other"),
    ),
    "nanoseconds": (
        lambda root: os.utime(root / "dir" / "other", ns=(0, EPOCH * 10**9 + 1)),
        ("mtime", b"dir/other"),
    ),
    "extended attribute": (
        lambda root: _set_xattr(root / "dir" / "other"),
        ("xattr", b"dir/other"),
    ),
    "link target": (lambda root: _relink(root, "dir/fila"), ("target", b"symlink")),
    "long link target": (lambda root: _relink(root, "x" * 200), ("target", b"symlink")),
    "hard link": (_unlink_link, ("type", b"dir/linked")),
    "type": (_replace_fifo, ("type", b"fifo")),
    "new file": (lambda root: _rewrite(root / "dir" / "n", b""), ("new", b"dir/n")),
    "new last": (lambda root: _rewrite(root / "dir" / "below" / "n", b""), ("new", b"dir/below/n")),
    "gone": (lambda root: (root / "dir" / "other").unlink(), ("gone", b"dir/other")),
    "gone last": (lambda root: (root / "dir" / "below").rmdir(), ("gone", b"dir/below")),
    "long name": (
        lambda root: (root / ("long" * 40)).rename(root / ("long" * 39 + "LONG")),
        ("gone", b"long" * 40),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_field_counts(root: Path, change: str) -> None:
    """contract: previous-blobs. A layer is reused where its entries "all equal": a change of any
    field is another recipe, and is named.
    """
    partition = Partition(digested(root))
    before, tar = plan_of(partition, epoch=None).recipe(), archive(partition, 0, None)
    apply, expected = CHANGES[change]
    directories = {
        path: path.stat().st_mtime_ns
        for path in [root, *root.rglob("*")]
        if stat.S_ISDIR(path.lstat().st_mode)
    }
    apply(root)
    for path, mtime in directories.items():
        if path.exists():
            os.utime(path, ns=(mtime, mtime))
    plan = plan_of(Partition(digested(root)), epoch=None)
    assert plan.recipe() != before
    assert plan.difference(reader_of(tar)) == expected


def test_large_attributes_count(root: Path) -> None:
    """Of which a reader keeps a digest alone."""
    try:
        os.setxattr(root / "dir" / "other", "user.note", b"v" * 2000)
    except OSError:
        pytest.skip("no large extended attributes here")
    partition = Partition(digested(root))
    plan, reader = plan_of(partition, epoch=None), reader_of(archive(partition, 0, None))
    assert plan.difference(reader) == plan.members
    os.setxattr(root / "dir" / "other", "user.note", b"v" * 1999 + b"w")
    assert plan_of(Partition(digested(root)), epoch=None).difference(reader) == (
        "xattr",
        b"dir/other",
    )


def test_device_numbers_count(tmp_path: Path) -> None:
    found = []
    for minor in (1, 2):
        root = tmp_path / str(minor)
        root.mkdir()
        try:
            os.mknod(root / "device", stat.S_IFCHR | 0o600, os.makedev(200, minor))
        except PermissionError:
            pytest.skip("devices cannot be made here")
        found.append(Partition(digested(root)))
    assert plan_of(found[0]).recipe() != plan_of(found[1]).recipe()
    assert plan_of(found[0]).difference(reader_of(archive(found[1], 0, EPOCH))) == (
        "device",
        b"device",
    )


def test_epoch_counts(root: Path) -> None:
    assert len({recipe_of(root, epoch) for epoch in (None, 1, 2)}) == 3


def test_difference_while_an_archive_streams_by(root: Path) -> None:
    """The last member so far waits until its content has been hashed."""
    tar = archive(Partition(digested(root)), 0, EPOCH)
    (root / "dir" / "other").write_bytes(b"ANOTHER")
    plan = plan_of(Partition(digested(root)))
    reader, at = TarReader(recipe=True), 0
    found: object = None
    for start in range(0, len(tar), 100):
        reader.feed(tar[start : start + 100])
        step = plan.difference(reader, at)
        if not isinstance(step, int):
            found = step
            break
        assert at <= step <= len(reader)
        at = step
    assert found == ("content", b"dir/other")


def test_archives_that_no_plan_writes_have_no_recipe(root: Path) -> None:
    """kernel/pack/layer_recipe.h, 4: padding and the end of the archive are no part of the digest,
    so they must be ours.
    """
    partition = Partition(digested(root))
    tar = archive(partition, 0, EPOCH)
    assert reader_of(tar).recipe == plan_of(partition).recipe()
    at = tar.index(b"content of a file") + len(b"content of a file")
    dirty = tar[:at] + b"x" + tar[at + 1 :]
    for other in (dirty, tar[:-512], tar[:-1024], tar + bytes(512), tar + bytes(9216)):
        assert reader_of(other).recipe is None
    assert TarReader().recipe is None


def test_records_that_lie_are_refused_unless_trusted(root: Path) -> None:
    """kernel/pack/layer_recipe.h, 3: equal headers mean equal contents only because a reader hashes
    them.
    """
    partition = Partition(digested(root))
    tar = archive(partition, 0, EPOCH)
    lying = tar.replace(b"content of a file", b"CONTENT of a file")
    with pytest.raises(ValueError, match="a lying record"):
        reader_of(lying)
    assert reader_of(lying, trust=True).recipe == plan_of(partition).recipe()


def test_recipe_needs_every_digest(root: Path) -> None:
    assert plan_of(Partition(walked(root))).recipe() is None


def test_headers_come_in_pieces(tmp_path: Path) -> None:
    """Of whole headers, in bounded memory; what takes them may stop."""
    for number in range(400):
        (tmp_path / f"file{number}").write_bytes(bytes(number))
    partition = Partition(digested(tmp_path))
    plan = plan_of(partition)
    assert_headers_alone(plan, archive(partition, 0, EPOCH), 1000)
    sizes: list[int] = []
    plan.recipe(lambda headers: sizes.append(len(headers)))
    assert len(sizes) > 2
    assert all(size % 512 == 0 and size < 1 << 18 for size in sizes)

    def stop(headers: memoryview) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plan.recipe(stop)


@pytest.mark.parametrize("behind", [b"", b"x"])
def test_headers_alone_have_no_end(root: Path, behind: bytes) -> None:
    partition = Partition(digested(root))
    headers = headers_of(archive(partition, 0, EPOCH))
    reader = TarReader(headers=True)
    reader.feed(headers)
    with pytest.raises(ValueError, match="zeros, in a list of headers"):
        reader.feed(bytes(1024) + behind)
    cut = TarReader(headers=True)
    cut.feed(headers[:-100])
    with pytest.raises(ValueError, match="truncated"):
        cut.finish()
