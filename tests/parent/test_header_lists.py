"""Header lists: the names of a layer, read without decoding it (contract: parent-header-lists)."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import clients
import layouts
import parents
import pytest
from header_lists import (
    HEADERS,
    LARGE,
    NO_LIST,
    RECIPE,
    compressed,
    edited,
    essence,
    headers_of,
    layout,
    list_path,
    lists_of,
    never_decoded,
    relisted,
    root,
)
from previous_images import EPOCH, built, config_of, layers_of

from build_oci.errors import ParentError
from build_oci.oci.archive_source import ArchiveSource

__all__ = ["layout", "never_decoded", "root"]
pytestmark = pytest.mark.once


@pytest.mark.parametrize("compression", ["zstd", "gzip", "disabled", ["gzip", "zstd:chunked"]])
@pytest.mark.parametrize("epoch", [None, EPOCH])
def test_a_list_is_the_headers_of_the_archive(
    root: Path, tmp_path: Path, compression: str | list[str], epoch: int | None
) -> None:
    """And its digest is the recipe; a small layer has none."""
    output = tmp_path / "out"
    built(config_of(root, compression=compression), output, epoch=epoch)
    for image in range(len(clients.index_of(output)["manifests"])):
        layers = clients.manifest_of(output, image)["layers"]
        assert len(layers) == (5 if epoch is None else 4)
        for layer, tar in zip(layers, clients.layer_tars(output, image), strict=True):
            recipe = layer["annotations"][RECIPE]
            headers = headers_of(tar)
            assert recipe == f"sha256:{hashlib.sha256(headers).hexdigest()}"
            assert (HEADERS in layer["annotations"]) is (len(tar) >= LARGE)
    for tar, found in zip(clients.layer_tars(output), lists_of(output), strict=True):
        assert found == (headers_of(tar) if len(tar) >= LARGE else None)


def test_a_layer_that_is_used_again_has_the_same_list(
    root: Path, tmp_path: Path, layout: Path
) -> None:
    """contract: previous-same."""
    config = config_of(root, {"image": layout}, compression="zstd")
    built(config, tmp_path / "again")
    assert clients.manifest_of(tmp_path / "again") == clients.manifest_of(layout)
    assert lists_of(tmp_path / "again") == lists_of(layout) != [None] * 4


def test_a_list_of_a_trusted_previous_image_is_carried(
    root: Path, tmp_path: Path, layout: Path
) -> None:
    """As it is, whoever compressed it; not one that is gone, of a layer that changed, or of a small
    layer. Out of an image that is not trusted none is.
    """
    made = lists_of(layout)
    assert made[0]
    assert made[2]
    carried = relisted(layout, 0, compressed(made[0]))
    list_path(layout, 1).unlink()
    small = relisted(layout, 3, compressed(headers_of(clients.layer_tars(layout)[3])))
    (root / "c" / "new").touch()
    changed = relisted(layout, 2, compressed(made[2]))
    for trust in (True, False):
        previous = {"image": layout, "trust": trust}
        output = tmp_path / f"{trust}"
        built(config_of(root, previous, compression="zstd"), output)
        found = lists_of(output)
        assert found[:2] == made[:2]
        assert found[2] == headers_of(clients.layer_tars(output)[2])
        assert found[3] is None
        blobs = set(os.listdir(output / "blobs" / "sha256"))
        assert {carried.name, small.name, changed.name} & blobs == (
            {carried.name} if trust else set()
        )
        assert layouts.found(output) == ([], [])
    carried.write_bytes(b"damaged")
    with pytest.raises(ParentError) as caught:
        built(
            config_of(root, {"image": layout, "trust": True}, compression="zstd"), tmp_path / "bad"
        )
    assert caught.value.where == str(carried)
    assert caught.value.hint
    # Larger than its archive: nobody reads a blob whose size no manifest tells to its end.
    os.truncate(carried, 4 * LARGE)
    built(config_of(root, {"image": layout, "trust": True}, compression="zstd"), tmp_path / "large")
    assert lists_of(tmp_path / "large")[:2] == made[:2]


@pytest.mark.parametrize("trust", [True, False])
def test_layers_of_a_late_edit_are_recorded(
    root: Path, tmp_path: Path, layout: Path, never_decoded: list[str], trust: bool
) -> None:
    """Upon an image that has recipes, each of several new layers has one, and a list if it is
    large. So the next edit decodes no new layer.
    """
    for name in ("first", "second"):
        (tmp_path / name / "new").mkdir(parents=True)
        (tmp_path / name / "new" / name).write_bytes(os.urandom(LARGE))
    parent = {"image": str(layout), "trust": trust}
    items = [
        {"add": str(tmp_path / "first"), "remove": ["/a/empty"]},
        {"remove": ["/b"]},
        {"add": str(tmp_path / "second")},
    ]
    image = {"os": "linux", "architecture": "amd64", "parent": parent, "layers": items}
    built({"compression": ["gzip", "zstd"], "images": [image]}, tmp_path / "two")
    for number in range(2):
        assert_recorded(tmp_path / "two", number, new=3)
    built({"compression": "zstd", "images": [image]}, tmp_path / "out")
    assert_recorded(tmp_path / "out", 0, new=3)
    never_decoded.clear()
    edited(tmp_path / "out", tmp_path, removes=False)
    new = {layer.removeprefix("sha256:") for layer in layers_of(tmp_path / "out")[4::2]}
    assert not new & set(never_decoded)


@pytest.mark.parametrize("trust", [True, False])
def test_layers_made_of_an_image_that_records_are_recorded(
    root: Path, tmp_path: Path, layout: Path, trust: bool
) -> None:
    """A part below an addition, an image that is squashed, a tree upon a parent."""
    new = tmp_path / "new"
    new.mkdir()
    (new / "large").write_bytes(os.urandom(LARGE))
    source = {"image": str(layout)} | ({"trust": True} if trust else {})
    made: list[dict[str, Any]] = [
        {"layers": [{"image": source["image"], **source}, {"add": str(new)}]},
        {"layer": {"image": str(layout)}},
        {"layer": str(new), "parent": source},
    ]
    for number, more in enumerate(made):
        output = tmp_path / f"out-{number}"
        image = {"os": "linux", "architecture": "amd64", **more}
        built({"compression": "zstd", "images": [image]}, output)
        assert_recorded(output, 0, new=1)


def assert_recorded(layout: Path, image: int, *, new: int) -> None:
    """The NEW topmost layers have recipes, and lists if they are large."""
    layers = clients.manifest_of(layout, image)["layers"][-new:]
    for layer, tar in zip(layers, clients.layer_tars(layout, image)[-new:], strict=True):
        recipe = hashlib.sha256(headers_of(tar)).hexdigest()
        assert layer["annotations"][RECIPE] == f"sha256:{recipe}"
        assert (HEADERS in layer["annotations"]) is (len(tar) >= LARGE)
    assert layouts.found(layout) == ([], [])


def test_an_image_that_records_nothing_has_no_list(root: Path, tmp_path: Path) -> None:
    """contract: layout-documents."""
    built(config_of(root, split=False), tmp_path / "out")
    assert "annotations" not in clients.manifest_of(tmp_path / "out")["layers"][0]
    assert len(list((tmp_path / "out" / "blobs" / "sha256").iterdir())) == 3


@pytest.mark.parametrize("compression", ["zstd", "gzip", "disabled", "zstd:chunked"])
def test_a_late_edit_with_and_without_lists(
    root: Path, tmp_path: Path, never_decoded: list[str], compression: str
) -> None:
    """One image, whether the lists were there or not; the large layers are decoded only where they
    were not. A late edit of that one reads the lists as well.
    """
    layout = tmp_path / "layout"
    built(config_of(root, compression=compression), layout)
    small = layers_of(layout)[3].removeprefix("sha256:")
    first, said = edited(layout, tmp_path, compression=compression)
    assert never_decoded == ([small] if compression != "disabled" else [])
    assert not [line for line in said if NO_LIST in line and small not in line]
    never_decoded.clear()
    decoded, said = edited(layout, tmp_path, trust=False, name="decoded", compression=compression)
    assert len(never_decoded) == 4
    assert essence(first) == essence(decoded)
    assert not any(lists_of(decoded))  # claims of an image that is not trusted go
    assert lists_of(first)[:4] == lists_of(layout)
    (tmp_path / "overlay" / "a" / "new").write_bytes(b"new")
    never_decoded.clear()
    second, _ = edited(first, tmp_path, name="second", removes=False, compression=compression)
    assert len(never_decoded) == (2 if compression != "disabled" else 0)
    assert lists_of(second)[:4] == lists_of(layout)
    assert parents.top_layer(second)[-1] == "a/new"
    assert layouts.found(second) == ([], [])


def test_a_copy_without_lists_is_decoded(
    tmp_path: Path, layout: Path, never_decoded: list[str]
) -> None:
    expected, _ = edited(layout, tmp_path)
    for number in range(3):
        list_path(layout, number).unlink()
    never_decoded.clear()
    copied, said = edited(layout, tmp_path, name="copied")
    assert len(never_decoded) == 4
    assert len([line for line in said if NO_LIST in line]) == 4
    # An annotation that names a blob which is not there goes.
    layers = clients.manifest_of(copied)["layers"]
    assert all(HEADERS not in layer.get("annotations", {}) for layer in layers)
    assert all(RECIPE in layer["annotations"] for layer in layers[:4])
    assert clients.layer_tars(copied) == clients.layer_tars(expected)
    assert layouts.found(layout) == ([], [])


def test_a_tree_upon_a_trusted_parent(
    root: Path, tmp_path: Path, layout: Path, never_decoded: list[str]
) -> None:
    """An ordinary `layer`, and a `split` one, with the lists of the parent's layers and without."""
    (root / "b" / "large").write_bytes(b"changed")
    (root / "c" / "linked").unlink()
    for split in (False, True):
        found = []
        for trust in (True, False):
            config = config_of(root, compression="zstd", parent=layout, split=split)
            config["images"][0]["parent"]["trust"] = trust
            never_decoded.clear()
            built(config, tmp_path / f"{split}-{trust}")
            assert len(never_decoded) == (1 if trust else 4)
            found.append(essence(tmp_path / f"{split}-{trust}"))
        assert found[0] == found[1]


def test_parts_are_compared_by_their_lists(
    root: Path, tmp_path: Path, never_decoded: list[str]
) -> None:
    """contract: late-edits. And `trust` of a part changes nothing of the image or the warnings."""
    parts = []
    for number in range(3):
        parts.append(tmp_path / f"part-{number}")
        (root / "d" / f"of-{number}").write_bytes(b"x" * LARGE)
        built(config_of(root, compression="zstd"), parts[-1])
        shutil.rmtree(root / "abc"[number])
    found = []
    for trust in (True, False):
        items = [{"image": str(part), "trust": trust} for part in parts]
        image = {"os": "linux", "architecture": "amd64", "layers": items}
        warned: list[str] = []
        never_decoded.clear()
        built({"images": [image]}, tmp_path / str(trust), warnings=warned)
        assert len(never_decoded) == (0 if trust else sum(len(layers_of(part)) for part in parts))
        found.append((warned, essence(tmp_path / str(trust))))
    assert found[0] == found[1]
    assert len(found[0][0]) == 3
    assert " names of it hide what " in found[0][0][0]


def test_claims_of_a_parent_that_is_not_trusted_go(tmp_path: Path, layout: Path) -> None:
    """contract: parent-header-lists. In the new image they would count as what this build found:
    `trust` would believe them, and `verify` would refuse the image.
    """
    parent = {"image": str(layout), "config": "inherit"}
    images = [
        {
            "os": "linux",
            "architecture": "amd64",
            "parent": parent,
            "config": {"Labels": {"a": "b"}},
        },
        {"os": "linux", "architecture": "amd64", "layers": [{"image": str(layout)}]},
    ]
    for number, image in enumerate(images):
        output = tmp_path / f"out{number}"
        built({"images": [image]}, output)
        layers = clients.manifest_of(output)["layers"]
        assert [layer["digest"] for layer in layers] == [
            layer["digest"] for layer in clients.manifest_of(layout)["layers"]
        ]
        for layer in layers:
            assert not {HEADERS, RECIPE} & layer.get("annotations", {}).keys()
        assert layouts.found(output) == ([], [])


def test_labels_keep_the_lists(tmp_path: Path, layout: Path) -> None:
    image = {
        "os": "linux",
        "architecture": "amd64",
        "parent": {"image": str(layout), "config": "inherit", "trust": True},
        "config": {"Labels": {"a": "b"}},
    }
    built({"images": [image]}, tmp_path / "out")
    assert clients.manifest_of(tmp_path / "out")["layers"] == clients.manifest_of(layout)["layers"]
    assert lists_of(tmp_path / "out") == lists_of(layout)
    built({"compression": "gzip", "images": [image]}, tmp_path / "gzip")
    for layer in clients.manifest_of(tmp_path / "gzip")["layers"]:
        assert HEADERS not in layer.get("annotations", {})
    list_path(layout, 1).write_bytes(b"damaged")
    with pytest.raises(ParentError, match="is damaged") as caught:
        built({"images": [image]}, tmp_path / "bad")
    assert caught.value.where == str(list_path(layout, 1))
    assert caught.value.hint


def test_archives_hold_the_lists(tmp_path: Path, layout: Path, never_decoded: list[str]) -> None:
    """contract: parent-archive, output-archive."""
    image = {
        "os": "linux",
        "architecture": "amd64",
        "parent": {"image": str(layout), "config": "inherit", "trust": True},
    }
    archive = tmp_path / "image.tar"
    built({"images": [image]}, f"oci-archive:{archive}")
    assert all(
        ArchiveSource(archive).has_blob(f"sha256:{list_path(layout, number).name}")
        for number in range(3)
    )
    expected, _ = edited(layout, tmp_path)
    never_decoded.clear()
    found, _ = edited(archive, tmp_path, name="of-archive")
    assert len(never_decoded) == 1
    assert lists_of(found)[:4] == lists_of(expected)[:4]
    assert clients.manifest_of(found)["layers"] == clients.manifest_of(expected)["layers"]


def test_prune_keeps_the_lists(tmp_path: Path, layout: Path, root: Path) -> None:
    """contract: cli-prune."""
    (layout / "blobs" / "sha256" / ("0" * 64)).write_bytes(b"")
    clients.run_build(
        config_of(root, compression="zstd"),
        layout,
        args=["--prune"],
        env={"SOURCE_DATE_EPOCH": str(EPOCH)},
        cwd=tmp_path,
    )
    assert not (layout / "blobs" / "sha256" / ("0" * 64)).exists()
    assert [found is not None for found in lists_of(layout)] == [True] * 3 + [False]


def test_merge_keeps_the_lists(tmp_path: Path, layout: Path) -> None:
    """contract: output-merge. One that a copy lacks is not missed."""
    from build_oci.merge import merge

    gone = list_path(layout, 1)
    lists = lists_of(layout)
    merge([str(layout)], tmp_path / "merged", sync=False)
    assert lists_of(tmp_path / "merged") == lists
    gone.unlink()
    merge([str(layout)], tmp_path / "again", sync=False)
    assert list_path(tmp_path / "again", 0).exists()
    assert not (tmp_path / "again" / "blobs" / "sha256" / gone.name).exists()
