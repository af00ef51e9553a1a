"""Parents that other tools wrote are built upon; hostile ones are refused in one line, with nothing
left behind (contract: parent-any-layout, promise-hostile-input)."""

from __future__ import annotations

import copy
import functools
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import archives
import clients
import oracles
import pytest
import zstandard
from oracles import SECOND
from places import REAL_CONFIGS
from test_layer_tar import DIR, EPOCH, LNK, REG, tar_of
from test_parent_roundtrip import (
    assert_is,
    built,
    diff_id,
    hand_made,
    image_of,
    model_of,
    put,
    put_index,
    put_manifest,
    replace_content,
    top_layer,
)

from build_oci.config.load import load_config
from build_oci.errors import BuildOciError, ParentError
from build_oci.parent import lower as parent_lower
from build_oci.pipeline import build

pytestmark = pytest.mark.slow

LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER = "application/vnd.docker."
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "+gzip": gzip.compress,
    "+zstd": zstandard.ZstdCompressor().compress,
}


# Layers made by hand


Entries = list[tuple[str, bytes, str]]
OPAQUE = "d/.wh..wh..opq"
BASE: Entries = [("d/", DIR, ""), ("d/a", REG, ""), ("d/b", REG, ""), ("./c", REG, "")]


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


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "d" / "e").mkdir(parents=True)
    for name in ("a", "d/b", "d/e/c"):
        (tree / name).write_bytes(name.encode().ljust(512))
        os.utime(tree / name, ns=(0, EPOCH * SECOND))
    (tree / "link").symlink_to("d/b")
    os.link(tree / "a", tree / "d" / "linked")
    return tree


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
    buildah = (
        clients.need("buildah"),
        "--root",
        str(tmp_path / "root"),
        "--runroot",
        str(tmp_path / "run"),
        "--storage-driver",
        "vfs",
    )
    env = {"BUILDAH_ISOLATION": "chroot", "TMPDIR": str(tmp_path)}
    container = clients.run(*buildah, "from", "scratch", env=env).strip()
    clients.run(*buildah, "copy", container, tree, "/", env=env)
    clients.run(
        *buildah, "commit", "--format", "oci", container, f"oci:{tmp_path}/theirs:latest", env=env
    )
    names = top_layer(child_of(tmp_path / "theirs", tree))
    assert not {"d/b", "d/e/c"} & set(names)


# What a layout may hold


TAR = tar_of(*BASE).getvalue()


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


# Hostile parents


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """refused(parent, settings...): what the error says of PARENT, after seeing that nothing was
    left behind.
    """
    layer = tmp_path / "empty"
    layer.mkdir()

    def build_on(parent: Path, **settings: object) -> str:
        for one, compression in ((layer, "zstd"), (None, "gzip"), (layer, "disabled")):
            with pytest.raises(ParentError) as caught:
                built(
                    tmp_path / "made" / "output",
                    image_of(one, parent, **settings),
                    compression=compression,
                )
            assert not (tmp_path / "made").exists()
            assert caught.value.exit_status == 1
            assert len(str(caught.value)) < 1000
            assert "\n" not in str(caught.value)
        return str(caught.value)

    return build_on


def broken_documents() -> Iterator[Any]:
    """(what the error says, a change of the manifest)"""
    good = "sha256:" + "a" * 64
    for digest in (
        "sha256:../../etc/passwd",
        good[:-1],
        good[:-1] + "A",
        good + "\n",
        "md5:" + "a" * 32,
        "",
    ):
        yield pytest.param(
            "is no digest",
            lambda document, digest=digest: document["layers"][0].update(digest=digest),
            id=digest[:15] or "no",
        )
    yield pytest.param(
        "is missing",
        lambda document: document["layers"][0].update(digest="sha256:" + "0" * 64),
        id="missing",
    )
    for size in (-1, 0, 7, 2**70, 1.5, True, "4"):
        yield pytest.param(
            "size|has .* bytes",
            lambda document, size=size: document["layers"][0].update(size=size),
            id=f"size {size!r}",
        )
    yield pytest.param(
        "1 diff_id, but .* 2",
        lambda document: document["layers"].append(document["layers"][0]),
        id="two layers",
    )
    yield pytest.param(
        "1 diff_id, but .* 0", lambda document: document["layers"].clear(), id="no layer"
    )
    yield pytest.param(
        "of the type",
        lambda document: document["layers"][0].update(mediaType="text/plain"),
        id="media type",
    )
    yield pytest.param(
        "no image manifest",
        lambda document: document.update(mediaType="application/x"),
        id="no manifest",
    )
    yield pytest.param(
        "too large", lambda document: document["config"].update(size=1 << 40), id="huge config"
    )


@pytest.mark.parametrize(("says", "change"), list(broken_documents()))
def test_broken_manifest(
    refused: Callable[..., str],
    tmp_path: Path,
    says: str,
    change: Callable[[clients.Document], None],
) -> None:
    """contract: parent-verified. "A digest is checked for its form before it becomes a path", every
    blob "is verified"; contract: promise-hostile-input, "one clear error"."""
    parent = hand_made(tmp_path / "parent", TAR)
    document = clients.manifest_of(parent)
    change(document)
    put_index(
        parent,
        put(parent, json.dumps(document).encode(), "application/vnd.oci.image.manifest.v1+json"),
    )
    message = refused(parent)
    assert re.search(says, message)
    assert str(parent / "blobs" / "sha256") in message


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def tamper(path: Path) -> None:
    """Other content of the same size that could be meant."""
    data = path.read_bytes()
    content = data.rindex(b"./c") if data.endswith(archives.END) else data.rindex(b"2")
    path.write_bytes(data[:content] + b"1" + data[content + 1 :])


@pytest.mark.parametrize(
    "spoil",
    [
        Path.unlink,
        make_fifo,
        make_loop,
        make_directory,
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes() + b"\n"),
        tamper,
    ],
    ids=["missing", "FIFO", "loop", "directory", "shorter", "longer", "other"],
)
@pytest.mark.parametrize("which", ["manifest", "config", "layer"])
def test_spoilt_blob(
    refused: Callable[..., str], tmp_path: Path, which: str, spoil: Callable[[Path], None]
) -> None:
    """contract: parent-verified.
    "Every blob that is read is verified (size and sha256/sha512)", and one that is no file is never
    waited for."""
    parent = hand_made(tmp_path / "parent", TAR)
    manifest = clients.manifest_of(parent)
    digest = {
        "manifest": clients.index_of(parent)["manifests"][0]["digest"],
        "config": manifest["config"]["digest"],
        "layer": manifest["layers"][0]["digest"],
    }[which]
    path = parent / "blobs" / digest.replace(":", "/")
    spoil(path)
    assert str(path) in refused(parent)


FILE = archives.header(b"f", size=4) + archives.padded(b"text")


@pytest.mark.parametrize(
    ("stream", "kind"),
    [
        pytest.param(gzip.compress(TAR)[:-9], "+gzip", id="truncated gzip"),
        pytest.param(gzip.compress(TAR) + b"more", "+gzip", id="gzip and more"),
        pytest.param(zstandard.compress(TAR)[:-3], "+zstd", id="truncated zstd"),
        pytest.param(zstandard.compress(TAR) + b"more", "+zstd", id="zstd and more"),
        pytest.param(b"no zstd" * 100, "+zstd", id="no zstd at all"),
        pytest.param(b"", "+gzip", id="empty gzip"),
    ],
)
def test_broken_stream(tmp_path: Path, stream: bytes, kind: str) -> None:
    """contract: promise-hostile-input. "Truncated or corrupt archives", whether they are carried or
    recompressed.
    """
    parent, empty = tmp_path / "parent", tmp_path / "empty"
    empty.mkdir()
    put_index(parent, put_manifest(parent, [put(parent, stream, LAYER + kind)], [diff_id(TAR)]))
    for compression in ("zstd", "gzip", "disabled"):
        with pytest.raises(ParentError, match=hashlib.sha256(stream).hexdigest()):
            built(tmp_path / "output", image_of(empty, parent), compression=compression)
        assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("says", "tar"),
    [
        ("truncated", FILE[:514]),
        ("after the end", FILE + archives.END + b"more"),
        ("bytes; at most", archives.header(b"@", b"x", size=2 << 30) + FILE),
        ("checksum", FILE[:10] + b"!" + FILE[11:] + archives.END),
        (r"zero bytes at the end", FILE + bytes(2 << 20)),
        ("not in the image", archives.header(b"l", b"1", link=b"f") + archives.END),
        ("not in the image", archives.header(b"l", b"1", link=b"l") + archives.END),
        (
            "not in the image",
            archives.header(b"a", b"1", link=b"b") + archives.header(b"b", b"1", link=b"a"),
        ),
        (r"\.\.", archives.header(b"../f")),
        (r"\.\.", archives.header(b"d/../../f")),
        (r"\.\.", archives.header(b"l", b"1", link=b"../../f")),
        ("no file system takes more", archives.pax((b"path", b"n" * 300)) + archives.header(b"n")),
    ],
)
def test_broken_archive(tmp_path: Path, says: str, tar: bytes) -> None:
    """contract: promise-hostile-input.
    "absurd pax records, link loops: one clear error, nothing written outside the output"; links
    through links are harmless."""
    (tmp_path / "empty").mkdir()
    parent = hand_made(tmp_path / "parent", TAR, tar)
    with pytest.raises(ParentError, match=says) as caught:
        built(tmp_path / "made" / "output", image_of(tmp_path / "empty", parent))
    assert hashlib.sha256(tar).hexdigest() in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "parent"]


def test_wrong_diff_id(tmp_path: Path) -> None:
    """contract: parent-verified. "the diff_id is verified on the way"."""
    (tmp_path / "empty").mkdir()
    parent = tmp_path / "parent"
    put_index(parent, put_manifest(parent, [put(parent, TAR, LAYER)], [diff_id(b"")]))
    for layer, compression in (
        (tmp_path / "empty", "disabled"),
        (tmp_path / "empty", "zstd"),
        (None, "zstd"),
    ):
        with pytest.raises(ParentError, match="its archive has the digest"):
            built(tmp_path / "output", image_of(layer, parent), compression=compression)


def test_symlink_loop_is_an_entry_like_others(tmp_path: Path) -> None:
    """contract: promise-hostile-input. "link loops": symbolic links are held against the tree,
    never followed.
    """
    (tmp_path / "empty").mkdir()
    parent = hand_made(
        tmp_path / "parent",
        tar_of(
            ("a", tarfile.SYMTYPE, "b"), ("b", tarfile.SYMTYPE, "a"), ("a/x", REG, "")
        ).getvalue(),
    )
    assert top_layer(built(tmp_path / "layout", image_of(tmp_path / "empty", parent))) == [
        ".",
        "./.wh.a",
        "./.wh.b",
    ]


@pytest.mark.parametrize(("number", "status"), [(1, 1), (10**9, 1), (-1, 2)])
def test_index_out_of_range(tmp_path: Path, number: int, status: int) -> None:
    """contract: cli-exit-status.
    Exit status 1 for a parent that has no such image, 2 for a number that none can have; an error
    is one line and a hint."""
    parent = hand_made(tmp_path / "parent", TAR)
    document = {"images": [image_of(None, parent, index=number)]}
    result = clients.run_build(document, tmp_path / "output", cwd=tmp_path, check=False)
    assert (result.returncode, result.stdout, result.output.exists()) == (status, "", False)
    assert re.fullmatch(r"build-oci: error: [^\n]+\n(hint: [^\n]+\n)?", result.stderr)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"a":' * 100_000,
        b"[" * 900,
        b'{"manifests":[' + b"[" * 5000,
        b"9" * 5000,
    ],
)
def test_index_that_is_no_document(
    refused: Callable[..., str], tmp_path: Path, text: bytes
) -> None:
    parent = hand_made(tmp_path / "parent", TAR)
    (parent / "index.json").write_bytes(text)
    assert str(parent / "index.json") in refused(parent)


def mutations(document: Any) -> Iterator[Any]:
    """DOCUMENT with one value, anywhere in it, replaced by something of another type, by something
    odd, or taken out.
    """
    places = list(document.items() if isinstance(document, dict) else enumerate(document))
    for key, value in places:
        odd: Any
        for odd in (None, -1, 1e999, float("nan"), 2**200, "\ud800", [], {"a": {}}, True):
            changed = copy.copy(document)
            changed[key] = odd
            yield changed
        if isinstance(document, dict):
            yield {name: other for name, other in places if name != key}
        if isinstance(value, dict | list):
            for inner in mutations(value):
                changed = copy.copy(document)
                changed[key] = inner
                yield changed


def test_documents_of_wrong_types(tmp_path: Path) -> None:
    """contract: promise-hostile-input.
    A parent is untrusted: whatever its documents hold is accepted or refused in words, and what is
    accepted gives an image."""
    parent, layer = tmp_path / "parent", tmp_path / "empty"
    layer.mkdir()
    rich: clients.Document = {
        "annotations": {"a": "b"},
        "platform": {"os": "linux", "architecture": "amd64", "variant": "v8"},
    }
    config = {
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [diff_id(TAR)]},
        "history": [{"created": "x", "empty_layer": False}],
    }  # fmt: skip
    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "annotations": {}, "config": {},
        "layers": [put(parent, TAR, LAYER, **rich)],
    }  # fmt: skip

    def write(config: Any, manifest: Any, index: Callable[[clients.Document], Any]) -> None:
        put_index(parent)
        document = {
            "config": put(
                parent, json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"
            )
        }
        document = {**manifest, **document} if manifest.get("config") == {} else manifest
        inner = put(
            parent,
            json.dumps(document).encode(),
            "application/vnd.oci.image.manifest.v1+json",
            **rich,
        )
        (parent / "index.json").write_text(
            json.dumps(index({"schemaVersion": 2, "manifests": [inner]}))
        )

    def outcome() -> bool:
        output = tmp_path / "output"
        try:
            built(output, image_of(layer, parent), compression="disabled")
        except BuildOciError:
            assert not output.exists()
            return False
        clients.layer_tars(output)
        shutil.rmtree(output)
        return True

    write(config, manifest, dict)
    assert outcome()
    accepted = refused = 0
    plans = [(one, manifest, None) for one in mutations(config)]
    plans += [(config, one, None) for one in mutations(manifest)]
    write(config, manifest, dict)
    whole_index, whole_manifest = clients.index_of(parent), clients.manifest_of(parent)
    plans += [
        (config, one, None)
        for one in mutations(
            {"config": whole_manifest["config"], "layers": whole_manifest["layers"]}
        )
    ]
    plans += [(config, manifest, one) for one in mutations(whole_index)]
    for changed_config, changed_manifest, changed_index in plans:
        write(
            changed_config,
            changed_manifest,
            dict if changed_index is None else lambda _, one=changed_index: one,
        )
        fine = outcome()
        accepted, refused = accepted + fine, refused + (not fine)
    assert accepted > 100
    assert refused > 100


def test_deeply_nested_history(tmp_path: Path) -> None:
    """What can be read can be written: the history is taken over, however deep Python's own limit
    lets it be.
    """
    parent = tmp_path / "parent"
    for depth in (100, *range(900, 1000, 3), 5000, 100_000):
        history: clients.Document = {"rootfs": {"diff_ids": []}, "history": [{"a": "DEEP"}]}
        text = json.dumps(history).replace('"DEEP"', "[" * depth + "]" * depth).encode()
        config = put(parent, text, "")
        document = {"config": config, "layers": []}
        put_index(
            parent,
            put(
                parent, json.dumps(document).encode(), "application/vnd.oci.image.manifest.v1+json"
            ),
        )
        try:
            built(tmp_path / "output", image_of(None, parent))
        except ParentError:
            assert depth > 100


# Bombs


def peak(config: clients.Document, output: Path) -> tuple[int, str]:
    """The peak resident memory, in MiB, of a build that fails, and its error."""
    script = (
        # not ru_maxrss, which begins with the memory of the process that forked
        "import re, sys; from build_oci.cli.command import main\ntry: main(sys.argv[1:])\nfinally:"
        " print(int(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]) >> 10)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, "-o", output],
        input=json.dumps(config),
        capture_output=True,
        text=True,
        check=False,
    )
    assert not output.exists(), done.stderr
    return int(done.stdout), done.stderr


DEEP = b"a/" * 32000


def deep_names() -> Iterator[bytes]:
    """Names of 32,000 directories, each of them new."""
    for number in range(3000):
        yield archives.pax((b"path", b"%d/%sf" % (number, DEEP))) + archives.header()


@pytest.mark.parametrize(
    ("archive", "says", "most"),
    [
        pytest.param(
            lambda: islice(deep_names(), 300), "more names than there is memory for", 300, id="deep"
        ),
        pytest.param(deep_names, "need more memory than so many may have", 300, id="long"),
        pytest.param(
            lambda: [bytes(64 << 20)] * 160, "zero bytes at the end", 300, id="10 GiB of zeros"
        ),
    ],
)
def test_bombs(
    tmp_path: Path, archive: Callable[[], Iterable[bytes]], says: str, most: int
) -> None:
    """contract: promise-hostile-input. "decompression bombs against the walk's memory"."""
    (tmp_path / "empty").mkdir()
    parent, pack, digest = tmp_path / "parent", functools.cache(COMPRESS["+zstd"]), hashlib.sha256()
    blob = b""
    for piece in archive():
        blob += pack(piece)
        digest.update(piece)
    assert len(blob) < 1 << 20
    put_index(
        parent,
        put_manifest(
            parent, [put(parent, blob, LAYER + "+zstd")], [f"sha256:{digest.hexdigest()}"]
        ),
    )
    memory, error = peak({"images": [image_of(tmp_path / "empty", parent)]}, tmp_path / "output")
    assert says in error
    assert memory < most


def test_many_layers_share_one_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """contract: promise-memory. "Bounded memory", however many layers there are."""
    monkeypatch.setattr(parent_lower, "_SLACK", 8 << 20)
    (tmp_path / "empty").mkdir()
    tars = [
        b"".join(
            archives.pax((b"path", b"n/" * 30000 + b"%d" % name)) + archives.header()
            for name in range(40 * number, 40 * number + 40)
        )
        for number in range(8)
    ]
    with pytest.raises(ParentError, match="so many may have"):
        built(
            tmp_path / "layout", image_of(tmp_path / "empty", hand_made(tmp_path / "parent", *tars))
        )
