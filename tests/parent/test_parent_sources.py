"""Parents that other tools wrote are built upon (contract: parent-any-layout)."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from pathlib import Path
from typing import Any

import clients
import oracles
import pytest
from oracles import SECOND
from parents import (
    BASE,
    COMPRESS,
    LAYER,
    TAR,
    Entries,
    assert_is,
    built,
    diff_id,
    hand_made,
    image_of,
    model_of,
    names_in,
    put,
    put_index,
    put_manifest,
    replace_content,
    top_layer,
    tree,
)
from places import REAL_CONFIGS
from test_layer_tar import DIR, EPOCH, LNK, REG, tar_of

from build_oci.config.load import load_config
from build_oci.errors import ParentError
from build_oci.pipeline import build

__all__ = ["tree"]
pytestmark = pytest.mark.once

DOCKER = "application/vnd.docker."
OPAQUE = "d/.wh..wh..opq"


@pytest.mark.parametrize(
    ("layers", "hidden"),
    [
        pytest.param([], "d/a d/b c", id="base"),
        pytest.param(
            [[("d/", DIR, ""), (OPAQUE, REG, ""), ("d/new", REG, "")], [("x", REG, "")]],
            "d/new c x",
            id="opaque first",
        ),
        pytest.param(
            [[("d/", DIR, ""), ("d/new", REG, ""), (OPAQUE, REG, "")], [("x", REG, "")]],
            "d/new c x",
            id="opaque last",
        ),
        pytest.param([[(OPAQUE, REG, "")], [("d/a", REG, "")]], "d/a c", id="again above opaque"),
        pytest.param(
            [[("d/.wh.a", REG, ""), ("d/a", REG, "")]], "d/a d/b c", id="hidden and there again"
        ),
        pytest.param(
            [[("d/a", REG, ""), ("d/.wh.a", REG, "")]], "d/a d/b c", id="there again and hidden"
        ),
        pytest.param(
            [[("x/.wh.y", REG, ""), (".wh.z", REG, ""), ("c/.wh.a", REG, "")]],
            "d/a d/b c x",
            id="whiteouts of nothing",
        ),
        pytest.param(
            [[("/d/.wh.a", REG, ""), ("./.wh.c", REG, ""), ("./d/b", REG, "")]], "d/b", id="names"
        ),
        pytest.param(
            [[("./d/", DIR, ""), ("/d/x", LNK, "./d/b"), (".wh.c", REG, "")]],
            "d/a d/b d/x",
            id="names of links",
        ),
        pytest.param(
            [[("d", REG, "")], [("d/", DIR, ""), ("d/z", REG, "")]],
            "d/z c",
            id="directory, file, directory",
        ),
        pytest.param(
            [[("deep/er/file", REG, "")]],
            "deep d/a d/b c",
            id="directories that no entry describes",
        ),
        pytest.param(
            [[(".wh.d", REG, "")], [("d/late", REG, "")]],
            "d/late c",
            id="directory from its file alone",
        ),
    ],
)
def test_layers_of_the_parent(tmp_path: Path, layers: list[Entries], hidden: str) -> None:
    """contract: diff-merge.
    "names normalised ...; whiteouts of a layer touch only the layers below it, `.wh..wh..opq`
    first, wherever they stand".

    The tree is a directory `d` alone, so that the whiteouts are what the parent was taken to hold.
    """
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    parent = hand_made(
        tmp_path / "parent", *(tar_of(*entries).getvalue() for entries in [BASE, *layers])
    )
    found = {
        name.removeprefix("./")
        for name in top_layer(built(tmp_path / "layout", image_of(tree, parent)))
    } - {".", "d"}
    assert found == {
        f"{os.path.dirname(name)}/.wh.{os.path.basename(name)}".lstrip("/")
        for name in hidden.split()
    }


@pytest.mark.parametrize("end", [b"", bytes(512), bytes(20 * 512)])
def test_parent_without_checksums(tmp_path: Path, end: bytes) -> None:
    """contract: diff-precision.
    The digest is "else computed from the parent's tar", times agree "to the second if either side
    has only seconds".

    contract: parent-any-archive: "Any OCI layout", so also archives without an end, or with a long
    one.
    """
    tree, stream = tmp_path / "tree", io.BytesIO()
    (tree / "d").mkdir(parents=True)
    for name in ("same", "other"):
        (tree / "d" / name).write_text(name)
        os.utime(tree / "d" / name, ns=(0, EPOCH * SECOND + 123_456_789))
    os.link(tree / "d" / "same", tree / "linked")
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in ("linked", "d", "d/other", "d/same"):
            archive.add(tree / name, name, recursive=False)
        length = archive.offset
    parent = hand_made(tmp_path / "parent", stream.getvalue()[:length] + end)
    assert top_layer(built(tmp_path / "same", image_of(tree, parent))) == ["."]
    replace_content(tree / "d" / "other", b"OTHER")
    layout = built(tmp_path / "changed", image_of(tree, parent))
    assert top_layer(layout) == [".", "d", "d/other"]


def test_hard_link_that_the_parent_lost(tmp_path: Path) -> None:
    """contract: diff-unchanged. The "set of hard-linked names" is what all layers of the parent
    leave of it.
    """
    tree, stream = tmp_path / "tree", io.BytesIO()
    tree.mkdir()
    (tree / "kept").write_text("kept")
    os.link(tree / "kept", tree / "lost")
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(tree, "")
    (tree / "lost").unlink()
    parent = hand_made(
        tmp_path / "parent", stream.getvalue(), tar_of((".wh.lost", REG, "")).getvalue()
    )
    assert top_layer(built(tmp_path / "layout", image_of(tree, parent))) == ["."]


# Layouts of real tools


def skopeo(*arguments: str) -> None:
    clients.run(clients.need("skopeo"), "--insecure-policy", "copy", *arguments)


def child_of(parent: Path, tree: Path, **settings: Any) -> Path:
    """The layout of an image of TREE upon PARENT, which must give back TREE."""
    layout = built(parent.with_name("child"), image_of(tree, parent), **settings)
    assert_is(model_of(layout), oracles.tree_model(tree))
    return layout


@pytest.mark.clients
@pytest.mark.parametrize("way", ["dir", "docker-archive", "docker-archive-of-two"])
def test_skopeo_copies(tree: Path, tmp_path: Path, way: str) -> None:
    """contract: parent-any-layout. "Any OCI layout: written by ... skopeo", after detours through
    other formats.
    """
    ours = built(tmp_path / "ours", image_of(tree), compression="gzip")
    if way == "docker-archive-of-two":
        (tree / "new").write_text("new")
        ours = built(tmp_path / "both", image_of(tree, ours), compression="gzip")
    between = (
        f"dir:{tmp_path}/between"
        if way == "dir"
        else f"docker-archive:{tmp_path}/between:some/name:tag"
    )
    skopeo(f"oci:{ours}:latest", between)
    skopeo(between, f"oci:{tmp_path}/theirs:latest")
    assert top_layer(child_of(tmp_path / "theirs", tree)) == ["."]


@pytest.mark.clients
def test_docker_manifest(tree: Path, tmp_path: Path) -> None:
    """contract: parent-any-layout. "Docker v2s2 manifests and layers inside a layout are accepted
    and written out with OCI media types".
    """
    ours = built(tmp_path / "ours", image_of(tree), compression="gzip")
    between = tmp_path / "between"
    skopeo("--format", "v2s2", f"oci:{ours}:latest", f"dir:{between}")
    manifest = (between / "manifest.json").read_bytes()
    document = json.loads(manifest)
    assert document["layers"][0]["mediaType"] == DOCKER + "image.rootfs.diff.tar.gzip"
    for descriptor in (document["config"], *document["layers"]):
        put(
            tmp_path / "theirs",
            (between / descriptor["digest"].removeprefix("sha256:")).read_bytes(),
            "",
        )
    put_index(tmp_path / "theirs", put(tmp_path / "theirs", manifest, document["mediaType"]))
    layout = child_of(tmp_path / "theirs", tree, compression="gzip")
    assert top_layer(layout) == ["."]
    assert DOCKER not in str(clients.manifest_of(layout))
    assert clients.manifest_of(layout)["layers"][0] == {
        **document["layers"][0],
        "mediaType": LAYER + "+gzip",
    }


@pytest.mark.clients
def test_umoci_image(tree: Path, tmp_path: Path) -> None:
    """contract: parent-any-layout. "Any OCI layout: written by ... umoci": several layers, of
    `insert` and of `repack` with whiteouts.
    """
    clients.need_root()
    umoci, theirs, bundle = clients.need("umoci"), tmp_path / "theirs", tmp_path / "bundle"
    clients.run(umoci, "init", "--layout", theirs)
    for command, *arguments in (
        ["new"],
        ["insert", tree, "/inserted"],
        ["insert", "--opaque", tree / "d", "/inserted/d"],
    ):
        clients.run(umoci, str(command), "--image", f"{theirs}:latest", *arguments)
    clients.run(umoci, "unpack", "--image", f"{theirs}:latest", bundle)
    (bundle / "rootfs" / "inserted" / "a").unlink()
    new = bundle / "rootfs" / "inserted" / "new"
    new.write_text("new")
    os.utime(new, (0, EPOCH))  # Go's archive/tar rounds half a second up
    clients.run(umoci, "repack", "--image", f"{theirs}:latest", bundle)
    names = top_layer(child_of(theirs, bundle / "rootfs"))
    assert not {"inserted/new", "inserted/.wh.a", "inserted/d/b"} & set(names)


@pytest.mark.clients
def test_buildah_image(tree: Path, tmp_path: Path) -> None:
    """contract: parent-any-layout. "Any OCI layout: written by ... podman", whose storage and build
    library buildah shares.
    """
    clients.need_root()
    buildah = clients.buildah(tmp_path)
    env = {"BUILDAH_ISOLATION": "chroot", "TMPDIR": str(tmp_path)}
    container = clients.run(*buildah, "from", "scratch", env=env).strip()
    clients.run(*buildah, "copy", container, tree, "/", env=env)
    clients.run(
        *buildah, "commit", "--format", "oci", container, f"oci:{tmp_path}/theirs:latest", env=env
    )
    names = top_layer(child_of(tmp_path / "theirs", tree))
    assert not {"d/b", "d/e/c"} & set(names)


def platform_image(layout: Path, tar: bytes, **platform: str) -> clients.Document:
    return put_manifest(layout, [put(layout, tar, LAYER)], [diff_id(tar)], platform=platform)


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ({"architecture": "amd64"}, 1),
        ({"architecture": "arm", "variant": "v7"}, 3),
        ({"architecture": "arm", "variant": "v6"}, 2),
        ({"architecture": "arm"}, 2),
    ],
)
def test_nested_index(tmp_path: Path, wanted: dict[str, str], index: int) -> None:
    """contract: parent-any-layout. "A nested index resolves to the manifest of the image's
    platform".
    """
    theirs, empty = tmp_path / "theirs", tmp_path / "empty"
    empty.mkdir()
    platforms = [
        {"architecture": "unknown", "os": "unknown"},
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm", "os": "linux"},
        {"architecture": "arm", "os": "linux", "variant": "v7"},
    ]
    manifests = [
        platform_image(theirs, tar_of((f"file-{number}", REG, "")).getvalue(), **one)
        for number, one in enumerate(platforms)
    ]
    index_type = "application/vnd.oci.image.index.v1+json"
    for _ in range(2):
        manifests = [
            put(
                theirs,
                json.dumps({"schemaVersion": 2, "manifests": manifests}).encode(),
                index_type,
            )
        ]
        platform = {"platform": {"architecture": wanted["architecture"], "os": "linux"}}
        manifests[0] |= platform
    put_index(theirs, *manifests)
    layout = built(tmp_path / "layout", {**image_of(empty, theirs), **wanted})
    assert top_layer(layout) == [".", f"./.wh.file-{index}"]
    with pytest.raises(ParentError, match=r"no image for linux/riscv64, only for: linux/"):
        built(tmp_path / "other", {**image_of(empty, theirs), "architecture": "riscv64"})


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("compression", ["zstd", "gzip", "disabled"])
def test_layers_of_every_kind(tmp_path: Path, compression: str, algorithm: str) -> None:
    """contract: parent-carried. Layers in the target compression are carried "with their
    descriptor's annotations", others recompressed.
    """
    theirs, empty = tmp_path / "theirs", tmp_path / "empty"
    empty.mkdir()
    # the last is the layer that Docker writes for a step that changes nothing
    tars = [
        TAR,
        tar_of(("d/.wh.a", REG, "")).getvalue(),
        tar_of(("d/n", REG, "")).getvalue(),
        bytes(1024),
    ]
    kinds = ["", "+gzip", "+zstd", "+gzip"]
    layers = [
        put(
            theirs,
            COMPRESS[kind](tar),
            LAYER + kind,
            algorithm=algorithm,
            annotations={"a.b": str(number)},
        )
        for number, (tar, kind) in enumerate(zip(tars, kinds, strict=True))
    ]
    put_index(
        theirs, put_manifest(theirs, layers, [diff_id(tar) for tar in tars], algorithm=algorithm)
    )
    layout = built(tmp_path / "layout", image_of(empty, theirs), compression=compression)
    if algorithm == "sha256":
        assert top_layer(layout) == [".", "./.wh.c", "./.wh.d"]
    target = {"zstd": "+zstd", "gzip": "+gzip", "disabled": ""}[compression]
    for kind, before, after in zip(
        kinds, layers, clients.manifest_of(layout)["layers"], strict=False
    ):
        if kind == target:
            assert after == before
            carried, source = (
                root / "blobs" / before["digest"].replace(":", "/") for root in (layout, theirs)
            )
            assert carried.stat().st_ino == source.stat().st_ino
        else:
            assert after["mediaType"] == LAYER + target
            assert "annotations" not in after


def test_private_blob_is_copied(tmp_path: Path) -> None:
    """contract: layout-files. "readable by everyone (files 0644 ...)", so a blob that is not cannot
    be carried as a link.
    """
    parent = hand_made(tmp_path / "parent", TAR)
    blob = parent / "blobs" / diff_id(TAR).replace(":", "/")
    blob.chmod(0o600)
    layout = built(tmp_path / "layout", image_of(None, parent), compression="disabled")
    carried = (layout / "blobs" / diff_id(TAR).replace(":", "/")).stat()
    assert carried.st_ino != blob.stat().st_ino
    assert carried.st_mode & 0o777 == 0o644
    assert clients.layer_tars(layout) == [TAR]


def real_documents() -> list[Path]:
    found = sorted(REAL_CONFIGS.glob("*.yaml")) if REAL_CONFIGS.is_dir() else []
    return [path for path in found if not re.search("^mode: docker", path.read_text(), re.M)]


def test_real_documents_build_as_a_chain(tree: Path, tmp_path: Path) -> None:
    """contract: config-real-documents. Every document that projects really use builds, each upon
    what the former one built.
    """
    parent = hand_made(tmp_path / "parent", TAR)
    for number, document in enumerate(real_documents()):
        text = re.sub(
            r"%\{[^}]*\}|\$\([^)]*\)", "word", document.read_text().replace("%{go-arch}", "amd64")
        )
        text = text.replace("layer: /layer", f"layer: {tree}").replace(
            "image: /parent", f"image: {parent}"
        )
        below = len(clients.manifest_of(parent)["layers"]) if f"image: {parent}" in text else 0
        (tree / "number").write_text(str(number))
        parent = Path(build(load_config(text), output=tmp_path / str(number), workers=2).output)
        assert_is(model_of(parent), oracles.tree_model(tree))
        assert len(clients.manifest_of(parent)["layers"]) == below + 1


def test_archive_without_its_last_padding(tmp_path: Path) -> None:
    """contract: parent-any-archive.
    What `umoci insert` (0.4.7) writes ends with the last byte of its last file, and Go's reader
    takes it."""
    (tmp_path / "empty").mkdir()
    tar = tar_of(("file", REG, "")).getvalue()[: 512 + len("file")]
    assert top_layer(
        built(
            tmp_path / "layout", image_of(tmp_path / "empty", hand_made(tmp_path / "parent", tar))
        )
    ) == [".", "./.wh.file"]


def test_a_blob_that_its_file_system_vouches_for(tmp_path: Path) -> None:
    """contract: parent-verified. Where `trust-checksum-xattrs` believes the attribute of a blob,
    `trust` seeks over the contents of a plain archive; without `trust`, or elsewhere than on FUSE
    under `auto`, everything is read.
    """
    root = tmp_path / "root"
    root.mkdir()
    for name in ("a", "b"):
        (root / name).write_bytes(os.urandom(100_000))
    parent = built(tmp_path / "parent", image_of(root), epoch=EPOCH, compression="disabled")
    (layer,) = clients.manifest_of(parent)["layers"]
    blob = parent / "blobs" / layer["digest"].replace(":", "/")
    try:
        os.setxattr(blob, "user.checksum.sha256", layer["digest"][7:].encode())
    except OSError:
        pytest.skip("no extended attributes here")
    # Whoever reads the content of `a` reads something else.
    with blob.open("r+b") as file:
        file.seek(blob.read_bytes().index((root / "a").read_bytes()))
        file.write(bytes(100_000))
    (root / "b").write_bytes(b"changed")
    trusting = image_of(root, parent, trust=True)
    settings: dict[str, Any] = {"epoch": EPOCH, "compression": "disabled"}
    layout = built(tmp_path / "new", trusting, trust_checksum_xattrs=True, **settings)
    new = clients.manifest_of(layout)["layers"][-1]
    assert names_in(clients.blob(layout, new["digest"])) == [".", "./b"]
    labelled = image_of(None, parent, trust=True)
    built(tmp_path / "label", labelled, trust_checksum_xattrs=True, **settings)
    for number, (image, believe) in enumerate(
        [(trusting, "auto"), (trusting, False), (image_of(root, parent), True), (labelled, False)]
    ):
        with pytest.raises(ParentError, match=r"damaged|lying record|digest"):
            built(tmp_path / str(number), image, trust_checksum_xattrs=believe, **settings)
