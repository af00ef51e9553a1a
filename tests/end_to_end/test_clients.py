"""Real container tools read what is built, and unpack it to what was packed (contract:
diff-round-trip).
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import os
import random
import shlex
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import clients
import oracles
import pytest
import trees

pytestmark = pytest.mark.clients

COMPRESSIONS = ["zstd", "gzip", "disabled"]
# umoci 0.4.7 reads no zstd
UMOCI_COMPRESSIONS = ["gzip", "disabled"]


def changed(model: oracles.Model, change: Callable[[oracles.Node], oracles.Node]) -> oracles.Model:
    """MODEL with every inode replaced by CHANGE of it; hard links stay links."""
    inodes = {id(node): node for node in model.values()}
    changed_inodes = {key: change(node) for key, node in inodes.items()}
    return {path: changed_inodes[id(node)] for path, node in model.items()}


def as_umoci_unpacks(node: oracles.Node) -> oracles.Node:
    """Go's tar reader takes an empty pax value for a deleted record, as POSIX has it: no Go client
    brings back an empty attribute.
    """
    return dataclasses.replace(
        node, xattrs={name: value for name, value in node.xattrs.items() if value}
    )


def as_buildah_mounts(node: oracles.Node) -> oracles.Node:
    """Its storage gives times before 1970 to symlinks only, and its vfs driver copies just user.*
    and the capabilities into a container.
    """
    xattrs = as_umoci_unpacks(node).xattrs
    kept = {
        name: value
        for name, value in xattrs.items()
        if name.startswith("user.") or name == "security.capability"
    }
    return dataclasses.replace(
        node, xattrs=kept, mtime=node.mtime if node.type == tarfile.SYMTYPE else max(0, node.mtime)
    )


def assert_same_tree(unpacked: Path, expected: oracles.Model, *, root_time: bool = True) -> None:
    """The directory holds EXPECTED and nothing else. `root_time`: whether the client keeps the root
    directory's own mtime.
    """
    found = oracles.tree_model(unpacked)
    if not root_time:
        found[b"."] = dataclasses.replace(found[b"."], mtime=expected[b"."].mtime)
    assert oracles.compare(found, expected) == []


@pytest.fixture(scope="module")
def debian_model(smaller_debian_tree: Path) -> oracles.Model:
    return oracles.tree_model(smaller_debian_tree)


Layouts = Callable[[str], Path]


def layouts_of(tree: Path, scratch: Path) -> Layouts:
    """layouts(compression): the layout of TREE, built once."""

    @functools.cache
    def layout(compression: str) -> Path:
        config = clients.layer_config(tree, compression=compression)
        return clients.run_build(config, scratch / compression, cwd=scratch).output

    return layout


@pytest.fixture(scope="module")
def debian_layouts(smaller_debian_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Layouts:
    return layouts_of(smaller_debian_tree, tmp_path_factory.mktemp("debian"))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layouts, oracles.Model]:
    """The layouts of a tree of some 300 odd names, and its model."""
    root = tmp_path_factory.mktemp("odd") / "tree"
    root.mkdir()
    trees.materialise(trees.random_tree(random.Random(4), 300, large=2), root)
    return layouts_of(root, root.parent), oracles.tree_model(root)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_skopeo(odd: tuple[Layouts, oracles.Model], tmp_path: Path, compression: str) -> None:
    """contract: layout-files, codec-zstd. skopeo reads the documents, and copies every blob with
    its digest verified.
    """
    layout = odd[0](compression)
    (layer,) = clients.manifest_of(layout)["layers"]
    inspected = clients.skopeo_inspect(layout)
    assert (inspected["Os"], inspected["Architecture"], inspected["Layers"]) == (
        "linux",
        "amd64",
        [layer["digest"]],
    )
    copy = clients.skopeo_copy(layout, tmp_path / "copy")
    assert (copy / "manifest.json").read_bytes() == clients.blob(
        layout, clients.index_of(layout)["manifests"][0]["digest"]
    )
    assert (copy / layer["digest"].removeprefix("sha256:")).stat().st_size == layer["size"]


def test_debian_layer_is_its_tree(debian_layouts: Layouts, debian_model: oracles.Model) -> None:
    """contract: diff-round-trip. The layer, applied by the oracle, is the tree, with nothing lost
    to a client.
    """
    (tar,), (other,) = (clients.layer_tars(debian_layouts(codec)) for codec in ("gzip", "zstd"))
    assert tar == other
    assert oracles.compare(oracles.apply_layer(io.BytesIO(tar), {}), debian_model) == []


def assert_buildah_mounts_debian(layout: Path, model: oracles.Model, scratch: Path) -> None:
    """In an overlay where there is one: the vfs driver copies every file once more."""
    clients.need_root()
    driver = "vfs" if clients.no_overlay(scratch) else "overlay"
    expected = changed(model, as_buildah_mounts)
    with clients.buildah_mount(layout, scratch, driver=driver) as unpacked:
        if driver == "overlay":  # the root is its own
            expected[b"."] = oracles.tree_model(unpacked)[b"."]
        assert_same_tree(unpacked, expected, root_time=False)


# All compressions come to each client with the odd tree; a distribution with one, which it has in
# many blocks.


def test_umoci_unpacks_debian(
    debian_layouts: Layouts, debian_model: oracles.Model, tmp_path: Path
) -> None:
    """contract: diff-round-trip. A real client's unpacked image is the tree."""
    assert_same_tree(
        clients.umoci_unpack(debian_layouts("gzip"), tmp_path / "bundle"),
        changed(debian_model, as_umoci_unpacks),
    )


def test_buildah_mounts_debian(
    debian_layouts: Layouts, debian_model: oracles.Model, tmp_path: Path
) -> None:
    """contract: diff-round-trip, codec-zstd. With the storage library that podman and bootc
    share.
    """
    assert_buildah_mounts_debian(debian_layouts("zstd"), debian_model, tmp_path)


@pytest.mark.parametrize("compression", UMOCI_COMPRESSIONS)
def test_umoci_unpacks_odd_tree(
    odd: tuple[Layouts, oracles.Model], tmp_path: Path, compression: str
) -> None:
    """contract: layer-tar, xattr-bytes, hardlink-first-name. On names, times, owners, attributes
    and links that Debian has not.
    """
    layouts, model = odd
    assert_same_tree(
        clients.umoci_unpack(layouts(compression), tmp_path / "bundle"),
        changed(model, as_umoci_unpacks),
    )


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_buildah_mounts_odd_tree(
    odd: tuple[Layouts, oracles.Model], tmp_path: Path, compression: str
) -> None:
    """The same, with zstd too."""
    layouts, model = odd
    with clients.buildah_mount(layouts(compression), tmp_path) as unpacked:
        assert_same_tree(unpacked, changed(model, as_buildah_mounts), root_time=False)


def test_fakeroot_is_believed(tmp_path: Path) -> None:
    """contract: xattr-shims. Read through the C library, "so that LD_PRELOAD shims (fakecap,
    fakeroot) see every call".
    """
    tree, layout = tmp_path / "tree", tmp_path / "layout"
    tree.mkdir()
    for name in ("owned", "a"):
        (tree / name).write_text(name)
    (tree / "link").symlink_to("owned")
    (tree / "below").mkdir()
    commands = [
        ["chown", "-h", "12:34", "owned", "link", "below"],
        ["chmod", "4711", "owned"],
        ["mknod", "below/null", "c", "1", "3"],
        [
            sys.executable,
            "-c",
            f"import os; os.setxattr('owned', 'security.capability', {trees.CAPABILITIES[-1]!r})",
        ],
        [sys.executable, "-P", "-m", "build_oci", "-o", str(layout)],
    ]
    config = json.dumps(clients.layer_config(tree, compression="disabled"))
    script = f"cd {shlex.quote(str(tree))} && {' && '.join(map(shlex.join, commands))}"
    # as root, fakeroot would change the real owners too
    clients.run(
        clients.need("fakeroot"),
        "sh",
        "-c",
        script,
        stdin=config,
        env={"FAKEROOTDONTTRYCHOWN": "1"},
    )
    (tar,) = clients.layer_tars(layout)
    model = oracles.apply_layer(io.BytesIO(tar), {})
    assert [(model[name].uid, model[name].gid) for name in (b"owned", b"link", b"below", b"a")] == [
        (12, 34)
    ] * 3 + [(0, 0)]
    assert model[b"owned"].mode == 0o4711
    assert (model[b"below/null"].type, model[b"below/null"].device) == (tarfile.CHRTYPE, (1, 3))
    assert model[b"owned"].xattrs == {"security.capability": trees.CAPABILITIES[-1]}
    # on the disk itself nothing of this is true
    real = oracles.tree_model(tree)
    assert (real[b"owned"].uid, real[b"below/null"].type, real[b"owned"].xattrs) == (
        os.getuid(),
        tarfile.REGTYPE,
        {},
    )
