"""A layer against its parent: unpacked on top of it, it is the tree, and it holds no more than it
must (contract: diff-round-trip).
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import json
import os
import random
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import clients
import oracles
import pytest
import trees
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import SECOND
from test_clients import as_buildah_mounts, as_umoci_unpacks, assert_same_tree, changed

from build_oci.config.load import load_config
from build_oci.oci import untrusted as source_module
from build_oci.pipeline import build

EPOCH = 1_700_000_000
COMPRESSIONS = ["zstd", "gzip", "disabled"]
LOOKALIKES = [b".wh", b".whx", b"wh.a", b".WH.a", b"a.wh.b", b".wh-a", b"-.wh.a"]


# Images in-process


def image_of(
    layer: Path | None, parent: Path | None = None, **parent_settings: object
) -> clients.Document:
    image: clients.Document = {"os": "linux", "architecture": "amd64"}
    if layer:
        image["layer"] = os.fspath(layer)
    if parent:
        image["parent"] = {"image": os.fspath(parent), **parent_settings}
    return {**image, "index-annotations": {"org.opencontainers.image.ref.name": "latest"}}


def built(output: Path, *images: clients.Document, epoch: int | None = None, **top: Any) -> Path:
    """The layout OUTPUT with IMAGES; TOP are top-level keys with `_` for `-`."""
    document = {**{name.replace("_", "-"): value for name, value in top.items()}, "images": images}
    build(load_config(json.dumps(document)), output=output, workers=2, epoch=epoch)
    return output


def model_of(layout: Path, image: int = 0) -> oracles.Model:
    """All layers of an image, applied in order."""
    # Not every builder writes an entry for the root.
    model: oracles.Model = {b".": oracles.Node(tarfile.DIRTYPE, 0o755, 0, 0, 0)}
    for tar in clients.layer_tars(layout, image):
        oracles.apply_layer(io.BytesIO(tar), model)
    for node in model.values():
        node.mode &= 0o7777  # Go's archive/tar once wrote the type into the mode too
    return model


def names_in(tar: bytes) -> list[str]:
    with tarfile.open(
        fileobj=io.BytesIO(tar), errors="surrogateescape", encoding="utf-8"
    ) as archive:
        return [member.name for member in archive.getmembers()]


def top_layer(layout: Path) -> list[str]:
    """The names in the uppermost layer, as they stand there."""
    return names_in(clients.layer_tars(layout)[-1])


# Parents that other tools wrote, made by hand


def put(
    layout: Path, data: bytes, media_type: str, *, algorithm: str = "sha256", **more: object
) -> clients.Document:
    """Store a blob; its descriptor."""
    hexadecimal = hashlib.new(algorithm, data).hexdigest()
    path = layout / "blobs" / algorithm / hexadecimal
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return {
        "mediaType": media_type,
        "digest": f"{algorithm}:{hexadecimal}",
        "size": len(data),
        **more,
    }


def put_manifest(
    layout: Path,
    layers: Sequence[clients.Document],
    diff_ids: Sequence[str],
    *,
    algorithm: str = "sha256",
    **more: object,
) -> clients.Document:
    """Store the config and the manifest of an image; its descriptor, with MORE."""
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    ).encode()
    descriptor = put(
        layout, config, "application/vnd.oci.image.config.v1+json", algorithm=algorithm
    )
    manifest = json.dumps({"schemaVersion": 2, "config": descriptor, "layers": layers}).encode()
    return put(
        layout, manifest, "application/vnd.oci.image.manifest.v1+json", algorithm=algorithm, **more
    )


def put_index(layout: Path, *manifests: clients.Document) -> Path:
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    return layout


def diff_id(tar: bytes) -> str:
    return f"sha256:{hashlib.sha256(tar).hexdigest()}"


def hand_made(layout: Path, *tars: bytes) -> Path:
    """An image of plain layers."""
    layers = [put(layout, tar, "application/vnd.oci.image.layer.v1.tar") for tar in tars]
    return put_index(layout, put_manifest(layout, layers, [diff_id(tar) for tar in tars]))


# Trees that change


Names = dict[bytes, trees.Item]  # hard links are the same Item under several names


def names_of(items: Sequence[trees.Item]) -> Names:
    names: Names = {}
    for item in items:
        names[item.path] = names[item.target] if item.type == 0 else copy.deepcopy(item)
    return names


def items_of(names: Names) -> list[trees.Item]:
    """What materialise() makes NAMES of: directories before what is in them, each file before its
    links.
    """
    first: dict[int, bytes] = {}
    items = []
    for path in sorted(names, key=lambda path: [] if path == b"." else path.split(b"/")):
        written = first.setdefault(id(names[path]), path)
        whole = written == path
        items.append(
            dataclasses.replace(names[path], path=path)
            if whole
            else trees.Item(path, 0, target=written)
        )
    return items


def random_kind(rng: random.Random) -> int:
    special = trees.SPECIAL if trees.abilities().devices else trees.SPECIAL[:2]
    return rng.choice(
        [
            stat.S_IFREG,
            stat.S_IFREG,
            stat.S_IFREG,
            stat.S_IFDIR,
            stat.S_IFDIR,
            stat.S_IFLNK,
            *special,
        ]
    )


def change_one_thing(rng: random.Random, item: trees.Item) -> None:
    what = rng.choice(["mode", "owner", "mtime", "xattrs", "content"])
    if what == "mode":
        item.mode ^= 0o040
    elif what == "owner":
        item.uid = 7 if item.uid != 7 else 8
    elif what == "mtime":
        # by nanoseconds only where both sides have a fraction: else they would be told apart by
        # nothing
        item.mtime += (
            1 if 0 < item.mtime % SECOND < SECOND - 1 else rng.choice([1, -1, 60]) * SECOND
        )
    elif what == "xattrs":
        item.xattrs = trees.random_xattrs(rng, item.type)
    elif item.type == stat.S_IFLNK:
        item.target = (
            bytes([item.target[0] ^ 1 if item.target[0] not in b"./" else ord("x")])
            + item.target[1:]
        )
    else:
        item.content_seed += 1
        item.device = (item.device[0], item.device[1] ^ 1)


def change(rng: random.Random, names: Names, times: int) -> None:
    """Do TIMES random things to NAMES: take away, add, put another type in place, change one field,
    link and unlink.
    """
    for _ in range(times):
        path = rng.choice(sorted(names))
        action = rng.choice(
            ["remove", "replace", "add", "add", "change", "change", "change", "link", "unlink"]
        )
        if action in ("remove", "replace") and path != b".":
            for below in [name for name in names if name.startswith(path + b"/")]:
                del names[below]
            del names[path]
            if action == "replace":
                names[path] = trees.random_item(rng, path, random_kind(rng), large=False)
        elif action in ("add", "link"):
            directory = rng.choice(
                sorted(name for name, item in names.items() if item.type == stat.S_IFDIR)
            )
            name = (b"" if directory == b"." else directory + b"/") + rng.choice(
                trees.NAMES + LOOKALIKES
            )
            files = sorted(name for name, item in names.items() if item.type == stat.S_IFREG)
            if name in names and names[name].type == stat.S_IFDIR:
                continue
            if action == "add":
                names[name] = trees.random_item(rng, name, random_kind(rng), large=False)
            elif files:
                names[name] = names[rng.choice(files)]
        elif action == "unlink":
            names[path] = copy.deepcopy(names[path])
        elif action == "change":
            change_one_thing(rng, names[path])


def on_disk(names: Names, root: Path) -> Path:
    root.mkdir()
    trees.materialise(items_of(names), root)
    return root


def expected_model(
    tree: Path, *, epoch: int | None = None, hardlinks: str = "preserve", skip_xattrs: bool = False
) -> oracles.Model:
    """The model of the directory TREE as a build with these settings stores it."""

    def stored(node: oracles.Node) -> oracles.Node:
        mtime = node.mtime if epoch is None else epoch * SECOND
        return dataclasses.replace(node, mtime=mtime, xattrs={} if skip_xattrs else node.xattrs)

    model = oracles.tree_model(tree)
    return (
        {path: stored(node) for path, node in model.items()}
        if hardlinks == "copy"
        else changed(model, stored)
    )


def assert_is(found: oracles.Model, expected: oracles.Model) -> None:
    """Equal in everything; a time that agrees "to the second if either side has only seconds"
    counts as equal.
    """
    for path in found.keys() & expected.keys():
        ours, theirs = found[path].mtime, expected[path].mtime
        if ours // SECOND == theirs // SECOND and (ours % SECOND == 0 or theirs % SECOND == 0):
            found[path].mtime = theirs
    assert oracles.compare(found, expected) == []


def round_trip(
    items: list[trees.Item],
    rng: random.Random,
    times: int,
    options: Sequence[dict[str, Any]],
    epoch: int | None,
) -> None:
    """A parent, and images each upon the former and each of a tree changed TIMES; OPTIONS are the
    settings of each build.
    """
    names = names_of(items)
    with tempfile.TemporaryDirectory() as directory:
        former = None
        for number, settings_ in enumerate(options):
            if number:
                change(rng, names, times)
            tree = on_disk(names, Path(directory) / f"tree-{number}")
            layout = Path(directory) / f"layout-{number}"
            # what user.checksum.sha256 claims in these trees is not true
            former = built(
                layout,
                image_of(tree, former),
                epoch=epoch,
                trust_checksum_xattrs=False,
                **settings_,
            )
            model_options = {
                name: value for name, value in settings_.items() if name != "compression"
            }
            assert_is(model_of(former), expected_model(tree, epoch=epoch, **model_options))
            assert len(clients.layer_tars(former)) == number + 1


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
    """The same with trees of several hundred names, changed a lot."""
    rng = random.Random(seed)
    options: list[dict[str, Any]] = [{"compression": rng.choice(COMPRESSIONS)} for _ in range(3)]
    round_trip(trees.random_tree(rng, 400, large=2), rng, 120, options, [None, EPOCH][seed % 2])


# No more than must be


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tree of some 7,000 files, with hard links, and its image."""
    scratch = tmp_path_factory.mktemp("wide")
    tree = scratch / "tree"
    for number in range(70):
        folder = tree / f"d{number % 7}" / f"e{number}" / "f"
        folder.mkdir(parents=True)
        for file in range(100):
            (folder / str(file)).write_bytes(b"%d" % (file % 10) * 20)
    (tree / "group").mkdir()
    (tree / "group" / "a").write_text("linked")
    for name in "bc":
        os.link(tree / "group" / "a", tree / "group" / name)
    return tree, built(scratch / "layout", image_of(tree), compression="disabled")


def replace_content(path: Path, content: bytes) -> None:
    """Other content of the same size under the same mtime."""
    status = path.stat()
    assert status.st_size == len(content)
    path.write_bytes(content)
    os.utime(path, ns=(0, status.st_mtime_ns))


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

    def counted(fd: int, path: Path) -> Iterator[bytes]:
        opened.append(path.name)
        return pieces(fd, path)

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


def assert_client_unpacks(client: str, layout: Path, tree: Path, scratch: Path) -> None:
    model = oracles.tree_model(tree)
    if client == "umoci":
        assert_same_tree(
            clients.umoci_unpack(layout, scratch / "bundle"), changed(model, as_umoci_unpacks)
        )
        return
    with clients.buildah_mount(layout, scratch) as unpacked:
        assert_same_tree(unpacked, changed(model, as_buildah_mounts), root_time=False)


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
    assert_client_unpacks(client, layout, tree, tmp_path)


@pytest.fixture(scope="module")
def debian_upgrade(
    debian_tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The image of a Debian tree, and that tree after packages were removed and installed in it."""
    clients.need_root()
    scratch = tmp_path_factory.mktemp("debian")
    parent = built(scratch / "parent", image_of(debian_tree))
    tree = scratch / "tree"
    clients.run("cp", "-a", debian_tree, tree)
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
    assert_client_unpacks(client, layout, tree, tmp_path)
