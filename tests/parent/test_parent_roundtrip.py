"""A layer against its parent: unpacked on top of it, it is the tree, and it holds no more than it
must (contract: diff-round-trip).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import clients
import oracles
import pytest
import trees
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import SECOND
from parents import (
    COMPRESSIONS,
    EPOCH,
    assert_is,
    built,
    change,
    image_of,
    model_of,
    names_in,
    names_of,
    on_disk,
    replace_content,
    round_trip,
    top_layer,
)
from test_clients import (
    as_buildah_mounts,
    as_umoci_unpacks,
    assert_buildah_mounts_debian,
    assert_same_tree,
    changed,
)

from build_oci.oci import untrusted as source_module

# These tests hardly depend on the version of Python.
pytestmark = pytest.mark.once

build_options = st.fixed_dictionaries(
    {"compression": st.sampled_from(COMPRESSIONS)},
    optional={"hardlinks": st.sampled_from(["preserve", "copy"]), "skip_xattrs": st.booleans()},
)


@settings(max_examples=60)
@given(
    items=trees.trees(whiteout_names=False),
    rng=st.randoms(use_true_random=False),
    times=st.integers(0, 12),
    options=st.lists(build_options, min_size=2, max_size=3),
    epoch=st.sampled_from([None, None, EPOCH]),
)
def test_round_trip(
    items: list[trees.Item],
    rng: random.Random,
    times: int,
    options: list[dict[str, Any]],
    epoch: int | None,
) -> None:
    """contract: diff-round-trip, diff-whiteouts. "unpack the parent, apply the new layer ..., and
    the result is the tree".
    """
    round_trip(items, rng, times, options, epoch)


@pytest.mark.parametrize("seed", range(6))
def test_large_round_trip(seed: int) -> None:
    """The same with trees of some hundred names, changed a lot."""
    rng = random.Random(seed)
    options: list[dict[str, Any]] = [{"compression": rng.choice(COMPRESSIONS)} for _ in range(3)]
    round_trip(trees.random_tree(rng, 250, large=2), rng, 80, options, [None, EPOCH][seed % 2])


# No more than must be


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tree of some 700 files, with hard links, and its image."""
    scratch = tmp_path_factory.mktemp("wide")
    tree = scratch / "tree"
    for number in range(70):
        folder = tree / f"d{number % 7}" / f"e{number}" / "f"
        folder.mkdir(parents=True)
        for file in range(10):
            (folder / str(file)).write_bytes(b"%d" % file * 20)
    (tree / "group").mkdir()
    (tree / "group" / "a").write_text("linked")
    for name in "bc":
        os.link(tree / "group" / "a", tree / "group" / name)
    return tree, built(scratch / "layout", image_of(tree), compression="disabled")


def parts(path: str) -> list[str]:
    """The directories that lead to PATH, and PATH."""
    return ["/".join(path.split("/")[:depth]) for depth in range(1, path.count("/") + 2)]


@pytest.mark.parametrize(
    ("touch", "expected"),
    [
        pytest.param(lambda tree: None, ["."], id="nothing"),
        pytest.param(
            lambda tree: replace_content(tree / "d3/e3/f/7", b"x" * 20),
            [".", "d3", "d3/e3", "d3/e3/f", "d3/e3/f/7"],
            id="content",
        ),
        pytest.param(lambda tree: (tree / "d0").chmod(0o700), [".", "d0"], id="mode"),
        pytest.param(
            lambda tree: os.setxattr(tree / "d5/e5", "user.a", b"\0"),
            [".", "d5", "d5/e5"],
            id="xattr",
        ),
        pytest.param(
            lambda tree: unlink_keeping_time(tree / "group" / "b"),
            [".", "group", "group/.wh.b", "group/a", "group/c"],
            id="a lost name",
        ),
        pytest.param(
            lambda tree: unlink_keeping_time(tree / "d3/e3/f/7"),
            [".", *parts("d3/e3/f/.wh.7")],
            id="a file",
        ),
        pytest.param(
            lambda tree: shutil.rmtree(tree / "d6"), [".", "./.wh.d6"], id="a top-level directory"
        ),
    ],
)
def test_minimal(
    wide: tuple[Path, Path], tmp_path: Path, touch: Callable[[Path], None], expected: list[str]
) -> None:
    """contract: diff-unchanged, diff-directories, diff-whiteouts.
    What equals the parent is left out, "The root is always emitted", "one for a removed directory,
    none inside it"."""
    tree = tmp_path / "tree"
    subprocess.run(["cp", "-a", wide[0], tree], check=True)
    touch(tree)
    layout = built(tmp_path / "layout", image_of(tree, wide[1]), compression="disabled")
    assert top_layer(layout) == expected
    assert_is(model_of(layout), oracles.tree_model(tree))


def unlink_keeping_time(path: Path) -> None:
    status = path.parent.stat()
    path.unlink()
    os.utime(path.parent, ns=(0, status.st_mtime_ns))


# Parents that are shared, carried, or not built upon


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, Path]:
    """A small tree and its image, plain."""
    tree = tmp_path / "small"
    (tree / "d").mkdir(parents=True)
    (tree / "d" / "file").write_text("file")
    (tree / "top").write_text("top")
    return tree, built(tmp_path / "small-image", image_of(tree), compression="disabled")


def test_shared_parent_is_read_once(
    small: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """contract: parent-read-once. "A parent shared by several images is read once"."""
    opened: list[str] = []
    pieces = source_module._pieces

    def counted(part: source_module.FilePart, path: Path) -> Iterator[bytes]:
        opened.append(path.name)
        return pieces(part, path)

    monkeypatch.setattr(source_module, "_pieces", counted)
    tree, parent = small
    other = tmp_path / "other"
    shutil.copytree(tree, other)
    (other / "d" / "new").write_text("new")
    layout = built(
        tmp_path / "layout",
        image_of(tree, parent),
        image_of(other, parent),
        image_of(tree, parent),
        compression="gzip",
    )
    assert len(opened) == len(set(opened)) == 4  # index, manifest, config, layer
    for number, packed in enumerate([tree, other, tree]):
        assert_is(model_of(layout, number), oracles.tree_model(packed))


def test_parent_without_layer(small: tuple[Path, Path], tmp_path: Path) -> None:
    """contract: layout-history. "history entry: `empty_layer: true` without a layer"; the parent's
    config is not inherited.
    """
    layout = built(
        tmp_path / "layout",
        {**image_of(None, small[1]), "comment": "no more"},
        compression="disabled",
    )
    manifest, below = clients.manifest_of(layout), clients.manifest_of(small[1])
    assert manifest["layers"] == below["layers"]
    config = json.loads(clients.blob(layout, manifest["config"]["digest"]))
    (first,) = json.loads(clients.blob(small[1], below["config"]["digest"]))["history"]
    assert config["history"][0] == first
    assert (
        config["history"][1].items()
        >= {
            "empty_layer": True,
            "comment": "no more",
            "created_by": "build-oci",
        }.items()
    )
    assert "config" not in config
    assert_is(model_of(layout), oracles.tree_model(small[0]))


@pytest.mark.parametrize("recompress", [True, False])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_recompress(
    small: tuple[Path, Path], tmp_path: Path, compression: str, recompress: bool
) -> None:
    """contract: parent-carried.
    "`false`: carry them as they are"; contract: parent-carried: what has the target compression is
    carried byte for byte."""
    layout = built(
        tmp_path / "layout",
        image_of(small[0], small[1], recompress=recompress),
        compression=compression,
    )
    ending = {"zstd": "+zstd", "gzip": "+gzip", "disabled": ""}[compression]
    below, above = (layer["mediaType"] for layer in clients.manifest_of(layout)["layers"])
    plain = "application/vnd.oci.image.layer.v1.tar"
    assert (below, above) == (plain + ending if recompress else plain, plain + ending)
    assert clients.layer_tars(layout)[0] == clients.layer_tars(small[1])[0]
    assert top_layer(layout) == ["."]


def test_index_of_parent(small: tuple[Path, Path], tmp_path: Path) -> None:
    """contract: parent-index. "which manifest of its index (default 0)"."""
    empty = tmp_path / "empty"
    empty.mkdir()
    both = built(tmp_path / "both", image_of(empty), image_of(small[0]))
    assert top_layer(built(tmp_path / "child", image_of(small[0], both, index=1))) == ["."]
    assert len(top_layer(built(tmp_path / "other", image_of(small[0], both)))) == 4


def test_output_into_the_layout_of_the_parent(small: tuple[Path, Path]) -> None:
    """contract: layout-others-files.
    The layout that is replaced may be the one that is read; "Blobs of others in the layout are left
    alone"."""
    tree, layout = small
    (tree / "new").write_text("new")
    before = clients.manifest_of(layout)
    built(layout, image_of(tree, layout), compression="disabled")
    assert clients.manifest_of(layout)["layers"][0] == before["layers"][0]
    assert_is(model_of(layout), oracles.tree_model(tree))
    assert sorted(path.name for path in layout.iterdir()) == ["blobs", "index.json", "oci-layout"]


def test_digest_of_the_tree_is_believed(tmp_path: Path) -> None:
    """contract: diff-content-digest, xattr-checksum. The attribute decides, and the parent's record
    is what it is held against.
    """
    if "user" not in trees.abilities().xattrs:
        pytest.skip("no user.* extended attributes here")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("1")
    os.setxattr(tree / "file", "user.checksum.sha256", b"0" * 64)
    parent = built(tmp_path / "parent", image_of(tree), trust_checksum_xattrs=True)
    assert top_layer(
        built(tmp_path / "same", image_of(tree, parent, trust=True), trust_checksum_xattrs=True)
    ) == ["."]
    assert top_layer(
        built(tmp_path / "hashed", image_of(tree, parent, trust=True), trust_checksum_xattrs=False)
    ) == [".", "./file"]
    os.setxattr(tree / "file", "user.checksum.sha256", b"1" * 64)
    assert top_layer(
        built(tmp_path / "other", image_of(tree, parent, trust=True), trust_checksum_xattrs=True)
    ) == [".", "./file"]


def test_symlink_that_points_elsewhere(tmp_path: Path) -> None:
    """contract: diff-unchanged. The "link target" counts, when size and everything else are
    equal.
    """
    tree = tmp_path / "tree"
    tree.mkdir()
    layouts: list[Path] = []
    for target in ("usr/lib", "usr/bin"):
        (tree / "link").unlink(missing_ok=True)
        (tree / "link").symlink_to(target)
        for path in (tree / "link", tree):
            os.utime(path, ns=(0, EPOCH * SECOND), follow_symlinks=False)
        layouts.append(
            built(
                tmp_path / target.replace("/", "-"),
                image_of(tree, layouts[-1] if layouts else None),
            )
        )
    assert top_layer(layouts[1]) == [".", "./link"]
    assert model_of(layouts[1])[b"link"].target == b"usr/bin"


# Real clients

CLIENTS = [
    *(
        pytest.param("umoci", compression, id=f"umoci-{compression}", marks=pytest.mark.clients)
        for compression in COMPRESSIONS[1:]
    ),
    *(
        pytest.param("buildah", compression, id=f"buildah-{compression}", marks=pytest.mark.clients)
        for compression in COMPRESSIONS
    ),
]


def assert_umoci_unpacks(layout: Path, model: oracles.Model, scratch: Path) -> None:
    unpacked = clients.umoci_unpack(layout, scratch / "bundle")
    assert_same_tree(unpacked, changed(model, as_umoci_unpacks))


@pytest.mark.parametrize(("client", "compression"), CLIENTS)
def test_client_unpacks_odd_change(tmp_path: Path, client: str, compression: str) -> None:
    """contract: diff-round-trip. The test that says it all, on odd trees."""
    rng = random.Random(11)
    names = names_of(trees.random_tree(rng, 250))
    parent = built(
        tmp_path / "parent",
        image_of(on_disk(names, tmp_path / "before")),
        compression="zstd",
        trust_checksum_xattrs=False,
    )
    change(rng, names, 100)
    tree = on_disk(names, tmp_path / "after")
    layout = built(
        tmp_path / "layout",
        image_of(tree, parent),
        compression=compression,
        trust_checksum_xattrs=False,
    )
    model = oracles.tree_model(tree)
    if client == "umoci":
        assert_umoci_unpacks(layout, model, tmp_path)
        return
    with clients.buildah_mount(layout, tmp_path) as unpacked:
        assert_same_tree(unpacked, changed(model, as_buildah_mounts), root_time=False)


@pytest.fixture(scope="module")
def debian_upgrade(
    smaller_debian_tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The image of a Debian tree, and that tree after packages were removed and installed in it."""
    clients.need_root()
    scratch = tmp_path_factory.mktemp("debian")
    parent = built(scratch / "parent", image_of(smaller_debian_tree))
    tree = scratch / "tree"
    clients.run("cp", "-a", smaller_debian_tree, tree)
    package = tree / "tmp" / "package"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "DEBIAN" / "control").write_text(
        "Package: local\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: local\n"
    )
    (package / "usr" / "share" / "local").mkdir(parents=True)
    (package / "usr" / "share" / "local" / "file").write_text("installed")
    script = (
        "dpkg --purge --force-all tzdata logsave mount e2fsprogs && dpkg-deb -b /tmp/package"
        " /tmp/local.deb && dpkg -i /tmp/local.deb && rm -r /tmp/* /usr/share/doc /usr/share/locale"
        " && useradd somebody && touch /etc/hostname && chmod 4750 /bin/su && mv /usr/share/perl5"
        " /usr/share/perl6 && ln -s perl6 /usr/share/perl5 && ln /bin/cat /usr/local/bin/cat"
    )
    clients.run(
        "chroot",
        tree,
        "/bin/sh",
        "-c",
        script,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"},
    )
    return parent, tree


@pytest.mark.parametrize(("client", "compression"), [CLIENTS[0], CLIENTS[2]])
def test_client_unpacks_debian_upgrade(
    debian_upgrade: tuple[Path, Path], tmp_path: Path, client: str, compression: str
) -> None:
    """contract: diff-round-trip. The test that says it all, on a real distribution; nothing that
    dpkg left alone is in the layer.
    """
    parent, tree = debian_upgrade
    layout = built(tmp_path / "layout", image_of(tree, parent), compression=compression)
    names = top_layer(layout)
    assert len(names) < 0.2 * len(names_in(clients.layer_tars(parent)[0]))
    assert {"usr/share/.wh.doc", "usr/bin/cat", "usr/local/bin/cat", "usr/share/perl5"} <= set(
        names
    )
    check = assert_umoci_unpacks if client == "umoci" else assert_buildah_mounts_debian
    check(layout, oracles.tree_model(tree), tmp_path)
