"""The documents of a layout, as anything that reads it will find them (contract:
layout-documents).
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import clients
import pytest
from conftest import Build

EPOCH = 1_700_000_000
CREATED = "2023-11-14T22:13:20Z"
# What every entry of the history says: without `created` umoci fails, and podman tells of 292
# years.
MADE = {"created": CREATED, "created_by": "build-oci"}
MEDIA_TYPE = "application/vnd.oci.image."
FULL: clients.Document = {
    "author": "An Author <author@example.org>",
    "comment": "größer",
    "architecture": "arm64",
    "variant": "v8",
    "os": "linux",
    "os.version": "6.1",
    "os.features": ["b", "a"],
    "config": {
        "Env": ["PATH=/bin"],
        "ExposedPorts": {"80/tcp": {}},
        "unheard-of": [None, 1, True, "ö"],
        "Cmd": ["/bin/sh"],
    },
    "annotations": {"org.example.z": "1", "org.example.a": "on the manifest"},
    "index-annotations": {"org.opencontainers.image.ref.name": "full"},
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    (root / "file").write_bytes(b"content" * 1000)
    return root


def build_at_epoch(build: Build, config: clients.Document) -> Path:
    return build(config, env={"SOURCE_DATE_EPOCH": str(EPOCH)}).output


def image_config(layout: Path, image: int = 0) -> clients.Document:
    document: clients.Document = json.loads(
        clients.blob(layout, clients.manifest_of(layout, image)["config"]["digest"])
    )
    return document


def all_documents(layout: Path) -> list[bytes]:
    """Every JSON document as it stands in the layout."""
    manifests = [descriptor["digest"] for descriptor in clients.index_of(layout)["manifests"]]
    configs = [
        clients.manifest_of(layout, number)["config"]["digest"] for number in range(len(manifests))
    ]
    return [(layout / name).read_bytes() for name in ("oci-layout", "index.json")] + [
        clients.blob(layout, digest) for digest in manifests + configs
    ]


def all_descriptors(layout: Path) -> list[clients.Document]:
    found = list(clients.index_of(layout)["manifests"])
    for number in range(len(found)):
        manifest = clients.manifest_of(layout, number)
        found += [manifest["config"], *manifest["layers"]]
    return found


def test_full_image(build: Build, tree: Path) -> None:
    """contract: layout-documents, layout-created.
    Every key of the configuration in its place, `config` untouched, and the places in order."""
    layout = build_at_epoch(
        build, {"annotations": {"of": "the index"}, "images": [{**FULL, "layer": str(tree)}]}
    )
    index, manifest, config = (
        clients.index_of(layout),
        clients.manifest_of(layout),
        image_config(layout),
    )
    assert (index["schemaVersion"], index["mediaType"], index["annotations"]) == (
        2,
        MEDIA_TYPE + "index.v1+json",
        {"of": "the index"},
    )
    assert (manifest["schemaVersion"], manifest["mediaType"]) == (
        2,
        MEDIA_TYPE + "manifest.v1+json",
    )
    assert manifest["annotations"] == FULL["annotations"]
    (descriptor,) = index["manifests"]
    assert descriptor["platform"] == {
        key: FULL[key] for key in ("architecture", "os", "variant", "os.version", "os.features")
    }
    assert descriptor["annotations"] == FULL["index-annotations"]
    assert manifest["config"]["mediaType"] == MEDIA_TYPE + "config.v1+json"
    assert {key: config[key] for key in FULL if key in config} == {
        key: value
        for key, value in FULL.items()
        if key not in ("comment", "annotations", "index-annotations")
    }
    assert json.dumps(config["config"]) == json.dumps(FULL["config"])
    assert config["created"] == CREATED
    assert config["history"] == [{**MADE, "author": FULL["author"], "comment": FULL["comment"]}]
    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}


def test_original_keys_only(build: Build, tree: Path) -> None:
    """contract: layout-documents. "The config of an image that uses only the original's keys equals
    the original's, key for key".
    """
    image: dict[str, Any] = {"os": "linux", "architecture": "amd64", "layer": str(tree)}
    layout = build_at_epoch(build, {"images": [image, {**image, "author": "me", "config": {}}]})
    diff_id = image_config(layout)["rootfs"]["diff_ids"][0]
    rootfs = {"type": "layers", "diff_ids": [diff_id]}
    assert list(image_config(layout).items()) == [
        ("created", CREATED), ("architecture", "amd64"), ("os", "linux"), ("rootfs", rootfs),
        ("history", [MADE]),
    ]  # fmt: skip
    assert list(image_config(layout, 1).items()) == [
        ("created", CREATED), ("author", "me"), ("architecture", "amd64"), ("os", "linux"),
        ("config", {}), ("rootfs", rootfs),
        ("history", [{**MADE, "author": "me"}]),
    ]  # fmt: skip


def test_image_without_layer(build: Build) -> None:
    """contract: layout-history. "history entry: `empty_layer: true` without a layer"."""
    layout = build_at_epoch(
        build, {"images": [{"os": "linux", "architecture": "amd64", "comment": "nothing"}]}
    )
    assert clients.manifest_of(layout)["layers"] == []
    assert image_config(layout)["rootfs"] == {"type": "layers", "diff_ids": []}
    assert image_config(layout)["history"] == [{"empty_layer": True, **MADE, "comment": "nothing"}]


def test_no_images(build: Build) -> None:
    """contract: config-images. `images` defaults to none, with a warning."""
    result = build("compression: zstd\n")
    assert clients.index_of(result.output)["manifests"] == []
    assert "warning" in result.stderr


def test_created_is_now_without_epoch(build: Build) -> None:
    """contract: layout-created. "`created`: `%Y-%m-%dT%H:%M:%SZ` of SOURCE_DATE_EPOCH, else
    now".
    """
    layout = build({"images": [{"os": "linux", "architecture": "amd64"}]}).output
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", image_config(layout)["created"])
    assert image_config(layout)["created"] > CREATED


@pytest.mark.parametrize(
    ("compression", "suffix"), [("zstd", "+zstd"), ("gzip", "+gzip"), ("disabled", "")]
)
def test_descriptors(build: Build, tree: Path, compression: str, suffix: str) -> None:
    """contract: layout-documents.
    Media types; "Descriptors: mediaType, digest, size, then platform, annotations"; every size and
    digest is right."""
    images = [
        {**FULL, "layer": str(tree)},
        {"os": "linux", "architecture": "amd64", "layer": str(tree)},
    ]
    layout = build_at_epoch(build, {"compression": compression, "images": images})
    descriptors = all_descriptors(layout)
    order = ["mediaType", "digest", "size", "platform", "annotations"]
    for descriptor in descriptors:
        assert list(descriptor) == [key for key in order if key in descriptor]
        assert len(clients.blob(layout, descriptor["digest"])) == descriptor["size"]
    for number in range(2):
        (layer,) = clients.manifest_of(layout, number)["layers"]
        assert layer["mediaType"] == f"{MEDIA_TYPE}layer.v1.tar{suffix}"
        assert len(clients.layer_tars(layout, number)) == 1
    # nothing but what the index leads to, and what two images share only once
    names = {f"sha256:{path.name}" for path in (layout / "blobs" / "sha256").iterdir()}
    assert names == {descriptor["digest"] for descriptor in descriptors}
    assert sorted(path.name for path in layout.iterdir()) == ["blobs", "index.json", "oci-layout"]


def test_json_is_compact(build: Build, tree: Path) -> None:
    """contract: layout-json. "JSON is compact UTF-8 with a fixed key order, no trailing space"."""
    layout = build_at_epoch(
        build, {"annotations": {"ä": "ö"}, "images": [{**FULL, "layer": str(tree)}]}
    )
    for data in all_documents(layout):
        assert (
            data == json.dumps(json.loads(data), separators=(",", ":"), ensure_ascii=False).encode()
        )


def test_key_order_does_not_follow_the_configuration(build: Build, tree: Path) -> None:
    """contract: layout-json. "a fixed key order": the image's own keys may stand in any."""
    image = {**FULL, "layer": str(tree)}
    there = build_at_epoch(build, {"images": [image]})
    back = build_at_epoch(build, {"images": [dict(reversed(image.items()))]})
    assert (there / "index.json").read_bytes() == (back / "index.json").read_bytes()


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_readable_by_everyone(build: Build, tree: Path, umask: int) -> None:
    """contract: layout-files. "files 0644, folders 0755, less umask"."""
    layout = build({"images": [{**FULL, "layer": str(tree)}]}, umask=umask).output
    for directory, _, files in os.walk(layout):
        assert stat.S_IMODE(os.stat(directory).st_mode) == 0o755 & ~umask
        for name in files:
            assert stat.S_IMODE(os.stat(os.path.join(directory, name)).st_mode) == 0o644 & ~umask


def test_nothing_on_standard_output(build: Build, tree: Path) -> None:
    """contract: cli-silence. "Standard output stays empty during a build"."""
    result = build({"images": [{**FULL, "layer": str(tree)}]}, args=["-v"])
    assert result.stdout == ""
    assert clients.index_of(result.output)["manifests"][0]["digest"] in result.stderr
