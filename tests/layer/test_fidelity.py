"""Odd trees on real file systems, and every kind of extended attribute there and back (contract:
layer-tar, xattr-bytes, hardlink-first-name, promise-nothing-lost)."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import itertools
import os
import random
import stat
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import clients
import oracles
import pytest
import trees
import zstandard
from conftest import Build
from test_clients import as_umoci_unpacks, assert_same_tree, changed
from test_layer_tar import EPOCH, assert_same_tar, built_tar

pytestmark = pytest.mark.once


@contextlib.contextmanager
def mounted(target: Path, *options: str) -> Iterator[Path]:
    """Something mounted on the directory TARGET, made if missing; the running test is skipped where
    that is not allowed.
    """
    clients.need_root()
    target.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", *options, str(target)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield target
    finally:
        subprocess.run(["umount", "-l", str(target)], check=True)


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "tmpfs", "-t", "tmpfs", "tmpfs") as path:
        yield path


def namespaced_capability(permitted: int, root: int) -> bytes:
    """A version 3 file capability set, for the user namespace whose root is ROOT."""
    return struct.pack("<IIIIII", 0x03000001, permitted & 0xFFFFFFFF, 0, permitted >> 32, 0, root)


ACL = {"system.posix_acl_access": trees.acl(7)}
HIGH = bytes(range(255, -1, -1))


def attributed(size: int) -> list[trees.Item]:
    """Every kind of attribute on every type that the kernel allows it on; the largest values have
    SIZE bytes.
    """
    free = {"trusted.t": HIGH, "security.s": b"\x80\x00"}
    return [
        trees.Item(b".", stat.S_IFDIR, 0o755, xattrs={"user.root": HIGH} | free),
        trees.Item(
            b"v2",
            stat.S_IFREG,
            0o755,
            size=9,
            xattrs={"security.capability": trees.capability(0x80 | 1 << 39)},
        ),
        trees.Item(
            b"v3",
            stat.S_IFREG,
            0o755,
            size=9,
            xattrs={"security.capability": namespaced_capability(0x20C0, 0x89ABCDEF)},
        ),
        trees.Item(
            b"values",
            stat.S_IFREG,
            0o755,
            size=9,
            xattrs={"user.empty": b"", "user.bytes": HIGH, "user.nul": b"\0"} | free | ACL,
        ),
        trees.Item(
            b"large", stat.S_IFREG, xattrs={"user.l": b"\xff" * size, "trusted.m": bytes(size)}
        ),
        trees.Item(
            b"folder",
            stat.S_IFDIR,
            0o2775,
            xattrs={"system.posix_acl_default": trees.acl(9), "user.d": HIGH} | free | ACL,
        ),
        trees.Item(b"symlink", stat.S_IFLNK, target=b"values", xattrs=free),
        trees.Item(b"character", stat.S_IFCHR, device=(1, 3), xattrs=free | ACL),
        trees.Item(b"block", stat.S_IFBLK, device=(8, 256), xattrs=free),
        trees.Item(b"fifo", stat.S_IFIFO, xattrs=free),
    ]


@pytest.mark.clients
@pytest.mark.parametrize(("where", "size"), [("disk", 1000), ("tmpfs", 65536)])
def test_attributes_there_and_back(build: Build, tmp_path: Path, where: str, size: int) -> None:
    """contract: xattr-bytes.
    "Values are bytes, kept exactly", by tarfile and by a client that unpacks them; the empty ones
    no Go client brings back."""
    clients.need_root()
    if where == "disk" and trees.abilities().xattrs != set(trees.PROBES):
        pytest.skip("the file system of temporary files lacks extended attributes")
    with (
        mounted(tmp_path / where, "-t", "tmpfs", "tmpfs")
        if where == "tmpfs"
        else contextlib.nullcontext(tmp_path) as folder
    ):
        tree = folder / "tree"
        tree.mkdir()
        try:
            trees.materialise(items := attributed(size), tree)
        except OSError as error:
            pytest.skip(f"this file system does not hold them: {error}")
        layout = build(clients.layer_config(tree, compression="gzip")).output
        (tar,) = clients.layer_tars(layout)
        assert_same_tar(tar, oracles.expected_tar(tree))
        model = oracles.apply_layer(io.BytesIO(tar), {})
        for item in items:
            assert model[item.path].xattrs.items() >= item.xattrs.items()
        unpacked = clients.umoci_unpack(layout, folder / "bundle")
        assert_same_tree(unpacked, changed(oracles.tree_model(tree), as_umoci_unpacks))
        assert os.getxattr(unpacked / "v3", "security.capability") == namespaced_capability(
            0x20C0, 0x89ABCDEF
        )


def test_tree_on_tmpfs(tmpfs: Path) -> None:
    trees.materialise(trees.random_tree(random.Random(8), 300), tmpfs)
    assert_same_tar(built_tar(tmpfs), oracles.expected_tar(tmpfs))


def test_times_far_away(tmpfs: Path) -> None:
    """contract: layer-times. "to the nanosecond", as far as 64 bits of seconds go."""
    for number, seconds in enumerate(
        [2**33, 2**40, 2**55, 2**62, -1, -(2**31) - 1, -(2**40), -(2**62)]
    ):
        for fraction in (0, 1, 500_000_000, 999_999_999):
            path = tmpfs / f"{number}-{fraction}"
            path.touch()
            os.utime(path, ns=(0, seconds * oracles.SECOND + fraction))
            assert path.stat().st_mtime_ns == seconds * oracles.SECOND + fraction
    assert_same_tar(built_tar(tmpfs), oracles.expected_tar(tmpfs))


def test_tree_on_overlayfs(tmp_path: Path) -> None:
    """The merged view is a tree like any other; of the overlay's own marks nothing gets into a
    layer, packed from above or from below.
    """
    lower, upper, work = (tmp_path / name for name in ("lower", "upper", "work"))
    for folder in (lower, upper, work):
        folder.mkdir()
    trees.materialise(trees.random_tree(random.Random(9), 200), lower)
    (lower / "gone").touch()
    (lower / "replaced/below").mkdir(parents=True)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    with mounted(tmp_path / "merged", "-t", "overlay", "overlay", "-o", options) as merged:
        (merged / "gone").unlink()
        (merged / "replaced/below").rmdir()
        (merged / "replaced").rmdir()
        (merged / "replaced").mkdir()
        (merged / "new").write_text("new")
        os.link(merged / "new", merged / "replaced/link")
        assert_same_tar(built_tar(merged), oracles.expected_tar(merged))
    assert "trusted.overlay.opaque" in os.listxattr(upper / "replaced")
    below = built_tar(upper)
    assert_same_tar(below, oracles.expected_tar(upper))
    assert b"overlay." not in below


def test_mount_points_inside(tmp_path: Path) -> None:
    """What is mounted is what is packed. A file seen twice through a mount has one name on its file
    system, and is no hard link.
    """
    tree = tmp_path / "tree"
    for name in ("bound", "tmpfs", "source/below"):
        (tree / name).mkdir(parents=True)
    (tree / "source/file").write_text("source")
    (tree / "tmpfs/hidden").touch()
    with (
        mounted(tree / "bound", "--bind", str(tree / "source")),
        mounted(tree / "tmpfs", "-t", "tmpfs", "tmpfs"),
    ):
        (tree / "tmpfs/seen").write_text("seen")
        model = oracles.apply_layer(io.BytesIO(built_tar(tree)), {})
        assert oracles.compare(model, oracles.tree_model(tree), ignore=["links"]) == []
    assert {b"bound/below", b"bound/file", b"tmpfs/seen"} < model.keys()
    assert b"tmpfs/hidden" not in model
    assert model[b"bound/file"] is not model[b"source/file"]


@pytest.mark.parametrize("length", [4094, 4095, 4096, 4097, 9000])
def test_paths_around_path_max(tmp_path: Path, length: int) -> None:
    """Paths of exactly so many bytes from / on; the kernel takes 4,095 at once."""
    root = tmp_path / "tree"
    root.mkdir()
    left = length - len(os.fsencode(root)) - 1
    folders = (left - 30) // 201
    names = [*[b"d" * 200] * folders, b"f" * (left - 201 * folders)]
    fd = os.open(root, os.O_RDONLY)
    for name in names[:-1]:
        os.mkdir(name, dir_fd=fd)
        above, fd = fd, os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(above)
    file = os.open(names[-1], os.O_CREAT | os.O_WRONLY, 0o640, dir_fd=fd)
    os.write(file, b"deep")
    attributes = {"user.deep": b"\x80"} if "user" in trees.abilities().xattrs else {}
    for key, value in attributes.items():
        os.setxattr(file, key, value)
    os.symlink(b"t" * 300, b"link", dir_fd=fd)
    os.close(file)
    os.close(fd)
    path = b"/".join(names)
    assert len(os.fsencode(root) + b"/" + path) == length
    model = oracles.apply_layer(io.BytesIO(built_tar(root)), {})
    assert len(model) == len(names) + 2
    assert (model[path].sha256, model[path].mode, model[path].xattrs) == (
        hashlib.sha256(b"deep").hexdigest(),
        0o640,
        attributes,
    )
    assert model[os.path.join(os.path.dirname(path), b"link")].target == b"t" * 300


def test_two_hundred_levels(tmp_path: Path) -> None:
    deep = tmp_path
    for level in range(200):
        deep /= f"{level}é"
        deep.mkdir()
        (deep / "file").write_text(str(level))
    assert_same_tar(built_tar(tmp_path), oracles.expected_tar(tmp_path))


def test_many_files_in_one_directory(tmp_path: Path) -> None:
    """More than 16 bits count. tarfile would take a quarter of a minute for them; but the name and
    the checksum of the header are all that their members differ in.
    """
    one, many = tmp_path / "one", tmp_path / "many"
    names = [b"%d" % (number * 7919 % 70_001) for number in range(70_000)]
    for folder, made in ((one, [b"x"]), (many, names)):
        folder.mkdir()
        for name in made:
            os.mknod(os.fsencode(folder) + b"/" + name)
    whole = oracles.expected_tar(one, epoch=EPOCH)
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        _, member = archive.getmembers()
        start, header, end = member.offset, member.offset_data - 512, archive.offset
    extended, plain = whole[start:header], whole[header:end]
    # The checksum counts its own field as eight spaces.
    blank = sum(b"./" + plain[100:148] + b" " * 8 + plain[156:])
    members = (
        (
            extended,
            (b"./" + name).ljust(100, b"\0"),
            plain[100:148],
            b"%06o\0 " % (blank + sum(name)),
            plain[156:],
        )
        for name in sorted(names)
    )
    expected = whole[:start] + b"".join(itertools.chain.from_iterable(members)) + whole[end:]
    assert_same_tar(built_tar(many, epoch=EPOCH), expected)


@pytest.mark.skipif(
    "BUILD_OCI_HUGE" not in os.environ, reason="takes half a minute; BUILD_OCI_HUGE=1 runs it"
)
def test_sparse_file_of_eight_gibibytes(build: Build, tmp_path: Path) -> None:
    """The first size that ustar cannot hold. Only its header is compared: hashing 8 GiB once more
    doubles the time.
    """
    tree = tmp_path / "tree"
    tree.mkdir()
    with open(tree / "sparse", "wb") as file:
        file.truncate(8 << 30)
    if "user" in trees.abilities().xattrs:
        os.setxattr(tree / "sparse", "user.checksum.sha256", b"0" * 64)
    layout = build(clients.layer_config(tree, **{"compression-level": 1})).output
    (layer,) = clients.manifest_of(layout)["layers"]
    with open(layout / "blobs" / layer["digest"].replace(":", "/"), "rb") as source:
        stream = zstandard.ZstdDecompressor().stream_reader(source)
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            _, member = archive.next(), archive.next()
            assert member is not None
            assert (member.name, member.size, member.pax_headers["size"]) == (
                "./sparse",
                8 << 30,
                str(8 << 30),
            )


@pytest.mark.clients
def test_gnu_tar_and_tarfile_extract(build: Build, tmp_path: Path) -> None:
    """GNU tar asked for attributes brings all of them back; tarfile brings none, and no times of
    symbolic links.
    """
    clients.need_root()
    if trees.abilities().xattrs != set(trees.PROBES):
        pytest.skip("the file system of temporary files lacks extended attributes")
    tree, by_tar, by_tarfile = (tmp_path / name for name in ("tree", "tar", "tarfile"))
    for folder in (tree, by_tar, by_tarfile):
        folder.mkdir()
    trees.materialise(
        [dataclasses.replace(item, mtime=EPOCH * oracles.SECOND) for item in attributed(1000)], tree
    )
    (archive,) = clients.layer_tars(build(clients.layer_config(tree)).output)
    (tmp_path / "layer.tar").write_bytes(archive)
    clients.run(
        "tar",
        "--warning=no-unknown-keyword",
        "--xattrs",
        "--xattrs-include=*",
        "-C",
        by_tar,
        "-xpf",
        tmp_path / "layer.tar",
    )

    model = oracles.tree_model(tree)
    assert_same_tree(by_tar, model)
    with tarfile.open(tmp_path / "layer.tar", errors="surrogateescape") as opened:
        opened.extractall(by_tarfile, filter="fully_trusted")
    expected = changed(model, lambda node: dataclasses.replace(node, xattrs={}))
    expected[b"symlink"].mtime = (by_tarfile / "symlink").lstat().st_mtime_ns
    assert_same_tree(by_tarfile, expected)
