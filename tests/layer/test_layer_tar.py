"""The uncompressed layer of a directory, byte for byte (contract: layer-tar, xattr-bytes,
hardlink-first-name), and the oracles themselves."""

from __future__ import annotations

import io
import json
import os
import random
import stat
import subprocess
import tarfile
import tempfile
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import clients
import oracles
import pytest
import trees
from hypothesis import given, settings
from hypothesis import strategies as st

from build_oci.config.load import load_config
from build_oci.errors import TreeError
from build_oci.pipeline import build

EPOCH = 1_700_000_000


def built_tar(
    root: Path,
    *,
    epoch: int | None = None,
    workers: int = 2,
    warnings: list[str] | None = None,
    **options: object,
) -> bytes:
    """The layer that the product makes of ROOT, in-process; OPTIONS are top-level keys of the
    configuration with `_` for `-`.
    """
    settings = {name.replace("_", "-"): value for name, value in options.items()}
    config = load_config(json.dumps(clients.layer_config(root, compression="disabled", **settings)))
    heard: list[str] = [] if warnings is None else warnings
    with tempfile.TemporaryDirectory() as output:
        build(config, output=output, workers=workers, epoch=epoch, warn=heard.append, sync=False)
        (tar,) = clients.layer_tars(Path(output))
    return tar


def assert_same_tar(got: bytes, expected: bytes) -> None:
    """Equal, or a failure that names the first member that differs."""
    if got == expected:
        return
    offset = next(
        (at for at, (left, right) in enumerate(zip(got, expected, strict=False)) if left != right),
        min(len(got), len(expected)),
    )
    with tarfile.open(
        fileobj=io.BytesIO(expected), errors="surrogateescape", encoding="utf-8"
    ) as archive:
        name = next(
            (member.name for member in reversed(archive.getmembers()) if member.offset <= offset),
            "",
        )
    start = max(0, offset - 40)
    pytest.fail(
        f"{len(got)} bytes, expected {len(expected)}; the first difference is at {offset}, in"
        f" {name!r}:\n{got[start : offset + 60]!r}\nexpected\n{expected[start : offset + 60]!r}"
    )


def members(tar: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(
        fileobj=io.BytesIO(tar), errors="surrogateescape", encoding="utf-8"
    ) as archive:
        return archive.getmembers()


# The product against the oracle


@pytest.mark.once
@settings(max_examples=120)
@given(
    items=trees.trees(),
    epoch=st.sampled_from([None, None, 0, EPOCH, 8**11]),
    workers=st.integers(1, 3),
    skip_xattrs=st.booleans(),
    trust=st.booleans(),
    hardlinks=st.sampled_from(["preserve", "copy"]),
)
def test_odd_trees(
    items: list[trees.Item],
    epoch: int | None,
    workers: int,
    skip_xattrs: bool,
    trust: bool,
    hardlinks: str,
) -> None:
    """contract: layer-tar, layer-checksum-record. "byte for byte what CPython's tarfile writes with
    PAX_FORMAT for the same members".
    """
    with tempfile.TemporaryDirectory() as directory:
        trees.materialise(items, directory)
        expected = oracles.expected_tar(
            directory,
            epoch=epoch,
            skip_xattrs=skip_xattrs,
            trust_checksum_xattrs=trust,
            hardlinks=hardlinks,
        )
        got = built_tar(
            Path(directory),
            epoch=epoch,
            workers=workers,
            skip_xattrs=skip_xattrs,
            trust_checksum_xattrs=trust,
            hardlinks=hardlinks,
        )
    assert_same_tar(got, expected)


@pytest.mark.once
@pytest.mark.parametrize("seed", range(4))
def test_large_odd_trees(tmp_path: Path, seed: int) -> None:
    """contract: layer-tar. On trees that fill several directories' and segments' worth of work."""
    trees.materialise(
        trees.random_tree(random.Random(seed), 600, large=4, whiteout_names=True), tmp_path
    )
    assert_same_tar(built_tar(tmp_path, workers=1 + seed), oracles.expected_tar(tmp_path))


@pytest.mark.platform
@pytest.mark.parametrize("workers", [1, 3])
def test_sizes_around_blocks_and_segments(tmp_path: Path, workers: int) -> None:
    """contract: layer-tar.
    Where a file's size meets the borders of tar blocks and of 1 to 4 MiB segments, small files
    between large ones."""
    sizes = sorted(
        {
            *trees.SIZES,
            *trees.LARGE_SIZES,
            *(trees.MIB + at for at in (-1536, -1024, -512, 512)),
            9 * trees.MIB + 7,
        }
    )
    random.Random(0).shuffle(sizes)
    for number, size in enumerate(sizes):
        item = trees.Item(b"%02d" % number, stat.S_IFREG, size=size, content_seed=number)
        (tmp_path / f"{number:02}").write_bytes(item.content())
    assert_same_tar(
        built_tar(tmp_path, epoch=EPOCH, workers=workers),
        oracles.expected_tar(tmp_path, epoch=EPOCH),
    )


@pytest.mark.once
def test_many_small_files(tmp_path: Path) -> None:
    """contract: layer-order. Names sorted by bytes, whatever order readdir gives them in."""
    for number in range(60):
        (tmp_path / f"d{number % 7}" / f"e{number}").mkdir(parents=True)
    for number in range(1500):
        (
            tmp_path / f"d{number % 60 % 7}" / f"e{number % 60}" / f"f{number * 7919 % 1501}"
        ).write_bytes(b"x" * (number % 700))
    assert_same_tar(built_tar(tmp_path), oracles.expected_tar(tmp_path))


def test_empty_tree(tmp_path: Path) -> None:
    """contract: layer-tar. "End of archive: two zero blocks and nothing more"; the root is always
    there.
    """
    tar = built_tar(tmp_path, epoch=EPOCH)
    assert [member.name for member in members(tar)] == ["."]
    assert len(tar) == 3 * 512
    assert tar[:3] == b"./\0"


# The rules of the specification, spelled out


def test_order_and_names(tmp_path: Path) -> None:
    """contract: layer-order. "a directory's entry, ..., its other non-directories sorted by name
    (bytes), then its subdirectories".
    """
    for name in ("a/b/deep", "a/z", "a-/x", "B/x", "é/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "zlast").touch()
    (tmp_path / "link").symlink_to("a")
    names = [member.name + "/" * member.isdir() for member in members(built_tar(tmp_path))]
    assert names == [
        "./",
        "./link",
        "./zlast",
        "B/",
        "B/x",
        "a/",
        "a/z",
        "a/b/",
        "a/b/deep",
        "a-/",
        "a-/x",
        "é/",
        "é/x",
    ]


def test_symlink_to_the_layer_is_followed(tmp_path: Path) -> None:
    """contract: config-layer-path. "A symlink to a directory is followed, the tree inside never
    is".
    """
    tree, link = tmp_path / "tree", tmp_path / "link"
    tree.mkdir()
    (tree / "self").symlink_to(".")
    link.symlink_to(tree)
    assert_same_tar(built_tar(link), oracles.expected_tar(tree))


@pytest.mark.skipif(
    "user" not in trees.abilities().xattrs, reason="no user.* extended attributes here"
)
def test_attributes_that_describe_the_build_host(tmp_path: Path) -> None:
    """contract: xattr-left-out. What is left out, and that everything else stays, sorted, after the
    checksum.
    """
    file = tmp_path / "file"
    file.write_bytes(b"content")
    left_out = ["user.checksum.sha256", "user.overlay.opaque"]
    kept = ["user.Z", "user.checksum.sha512", "user.overlay", "user.z"]
    if {"trusted", "security"} <= trees.abilities().xattrs:
        left_out += ["trusted.overlay.origin", "security.selinux"]
        kept += ["security.other", "trusted.overlayed"]
    for name in left_out + kept:
        os.setxattr(file, name, b"1")
    records = list(members(built_tar(tmp_path))[1].pax_headers)
    assert [name for name in records if name != "mtime"] == [
        "freedesktopsdk.checksum.sha256",
        *(f"SCHILY.xattr.{name}" for name in sorted(kept)),
    ]


@pytest.mark.skipif(
    "user" not in trees.abilities().xattrs, reason="no user.* extended attributes here"
)
@pytest.mark.parametrize(
    ("value", "options", "believed"),
    [
        (b"0" * 64, {"trust_checksum_xattrs": True}, True),
        (b"0" * 64, {}, False),
        (b"0" * 64, {"trust_checksum_xattrs": False}, False),
        (b"0" * 64, {"trust_checksum_xattrs": True, "skip_xattrs": True}, False),
        (b"A" * 64, {"trust_checksum_xattrs": True}, False),
        (b"0" * 63, {"trust_checksum_xattrs": True}, False),
        (b"0" * 64 + b"\n", {"trust_checksum_xattrs": True}, False),
        (b"0" * 64 + b"\0", {"trust_checksum_xattrs": True}, False),
    ],
)
def test_checksum_attribute(
    tmp_path: Path, value: bytes, options: dict[str, Any], believed: bool
) -> None:
    """contract: xattr-checksum. `trust-checksum-xattrs` `true` believes 64 lower-case hexadecimal
    digits; anything else is hashed.
    """
    file = tmp_path / "file"
    file.touch()
    os.setxattr(file, "user.checksum.sha256", value)
    digest = members(built_tar(tmp_path, **options))[1].pax_headers[
        "freedesktopsdk.checksum.sha256"
    ]
    assert digest == (
        "0" * 64 if believed else "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


@pytest.mark.skipif(
    "user" not in trees.abilities().xattrs, reason="no user.* extended attributes here"
)
def test_attribute_name_with_equals_sign(tmp_path: Path) -> None:
    """contract: xattr-unwritable. "An attribute whose name contains `=` cannot be written: error
    naming the file".
    """
    (tmp_path / "culprit").touch()
    os.setxattr(tmp_path / "culprit", "user.a=b", b"1")
    with pytest.raises(TreeError, match="culprit"):
        built_tar(tmp_path)
    assert members(built_tar(tmp_path, skip_xattrs=True))[1].name == "./culprit"


def test_hard_links_stay_inside_the_layer(tmp_path: Path) -> None:
    """contract: hardlink-first-name.
    "the first emitted name in tar order is the file, the later ones link to it", never to a name
    outside."""
    layer = tmp_path / "layer"
    (layer / "a").mkdir(parents=True)
    (layer / "a" / "first-by-name").write_bytes(b"content")
    os.link(layer / "a" / "first-by-name", layer / "z-first-emitted")
    os.link(layer / "a" / "first-by-name", tmp_path / "outside")
    (tmp_path / "other").write_bytes(b"other")
    os.link(tmp_path / "other", layer / "single")
    found = {
        member.name: (member.type, member.linkname, member.size)
        for member in members(built_tar(layer))
        if not member.isdir()
    }
    assert found == {
        "./single": (tarfile.REGTYPE, "", 5),
        "./z-first-emitted": (tarfile.REGTYPE, "", 7),
        "a/first-by-name": (tarfile.LNKTYPE, "./z-first-emitted", 0),
    }
    copies = members(built_tar(layer, hardlinks="copy"))
    assert {member.name for member in copies if member.isreg()} == set(found)


def test_sockets_and_whiteout_names_are_warned_about(tmp_path: Path) -> None:
    """contract: layer-types.
    "A socket is skipped with a warning"; contract: diff-own-whiteouts: a file called `.wh.…` "is
    passed through, with a warning"."""
    os.mknod(tmp_path / "listening", stat.S_IFSOCK | 0o600)
    (tmp_path / ".wh.gone").touch()
    warnings: list[str] = []
    assert [member.name for member in members(built_tar(tmp_path, warnings=warnings))] == [
        ".",
        "./.wh.gone",
    ]
    assert sorted(
        name for line in warnings for name in ("listening", ".wh.gone") if name in line
    ) == [".wh.gone", "listening"]


# The oracles


@pytest.mark.platform
@settings(max_examples=60)
@given(trees.trees(whiteout_names=False))
def test_oracle_layer_unpacks_to_its_tree(items: list[trees.Item]) -> None:
    """contract: diff-round-trip. "apply the new layer ..., and the result is the tree", for the
    oracles among themselves.
    """
    with tempfile.TemporaryDirectory() as directory:
        trees.materialise(items, directory)
        layer = io.BytesIO(oracles.expected_tar(directory))
        model = oracles.tree_model(directory)
    assert oracles.compare(oracles.apply_layer(layer, {}), model) == []


@pytest.mark.platform
def test_oracle_layer_is_read_by_gnu_tar(odd_tree: Path) -> None:
    """contract: layer-tar. POSIX pax, so that any tar lists every entry."""
    expected = b""
    for name, path in oracles.walk_order(odd_tree):
        mode = os.lstat(path).st_mode
        if not stat.S_ISSOCK(mode):
            expected += name + b"/" * stat.S_ISDIR(mode) + b"\n"
    command = [
        "tar",
        "--warning=no-unknown-keyword",
        "--quoting-style=literal",
        "--show-transformed-names",
        "-tf",
        "-",
    ]
    assert (
        subprocess.run(
            command, input=oracles.expected_tar(odd_tree), capture_output=True, check=True
        ).stdout
        == expected
    )


@given(
    st.integers(-(10**19), 10**19)
    | st.integers(-20, 20).map(lambda halves: halves * oracles.SECOND // 2)
)
def test_oracle_time_is_exact(nanoseconds: int) -> None:
    """contract: layer-times. The file's own mtime "to the nanosecond", which a float does not
    hold.
    """
    exact = Decimal(nanoseconds) / oracles.SECOND
    time = oracles.ExactTime(nanoseconds)
    assert round(time) == int(exact.quantize(Decimal(1), ROUND_HALF_EVEN))
    if nanoseconds % oracles.SECOND:
        assert str(time) == f"{exact.normalize():f}"


def tar_of(*entries: tuple[str, bytes, str]) -> io.BytesIO:
    """A layer of (name, type, link target); what is a regular file holds its own name."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind, target in entries:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            member.size = len(name) if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(name.encode()))
    out.seek(0)
    return out


DIR, REG, LNK = tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.LNKTYPE
LOWER = [
    ("./", DIR, ""),
    ("d/", DIR, ""),
    ("d/a", REG, ""),
    ("d/e/", DIR, ""),
    ("d/e/b", REG, ""),
    ("./c", REG, ""),
    ("./l", LNK, "c"),
]


@pytest.mark.parametrize(
    ("upper", "left"),
    [
        ([(".wh.d", REG, "")], {".", "c", "l"}),
        ([("./d/.wh.a", REG, "")], {".", "d", "d/e", "d/e/b", "c", "l"}),
        # a layer's own files stay, even those that stand before the whiteout
        (
            [("d/", DIR, ""), ("d/new", REG, ""), ("d/.wh..wh..opq", REG, "")],
            {".", "d", "d/new", "c", "l"},
        ),
        ([("d/a", REG, ""), ("d/.wh.a", REG, "")], {".", "d", "d/a", "d/e", "d/e/b", "c", "l"}),
        ([(".wh..wh..opq", REG, "")], {"."}),
        ([("d", REG, "")], {".", "d", "c", "l"}),
        ([(".wh.c", REG, "")], {".", "d", "d/a", "d/e", "d/e/b", "l"}),
        # a directory over a directory keeps what is below
        ([("/d", DIR, "")], {".", "d", "d/a", "d/e", "d/e/b", "c", "l"}),
        ([("c", DIR, ""), ("c/x", REG, "")], {".", "d", "d/a", "d/e", "d/e/b", "c", "c/x", "l"}),
    ],
)
def test_oracle_applies_whiteouts(upper: list[tuple[str, bytes, str]], left: set[str]) -> None:
    """contract: diff-merge. "whiteouts of a layer touch only the layers below it, `.wh..wh..opq`
    first, wherever they stand".
    """
    model = oracles.apply_layer(tar_of(*LOWER), {})
    assert {name.decode() for name in oracles.apply_layer(tar_of(*upper), model)} == left


def test_oracle_compare_sees_links_and_fields() -> None:
    """A comparison that overlooks something would prove nothing."""
    model = oracles.apply_layer(tar_of(*LOWER), {})
    other = oracles.apply_layer(tar_of(*LOWER), {})
    assert oracles.compare(model, other) == []
    # a link that became a copy, a mode, a missing name
    other[b"l"] = oracles.Node(**vars(other[b"c"]))
    other[b"d"].mode = 0
    del other[b"d/a"]
    assert [line.split(": ")[:2] for line in oracles.compare(model, other)] == [
        ["b'd/a'", "only on the left"],
        ["b'c'", "links"],
        ["b'd'", "mode"],
        ["b'l'", "links"],
    ]
