"""A previous image or plan that lies, is broken or is not there: one clear error, or a fresh plan
with a warning (contract: promise-hostile-input, previous-blobs)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import clients
import pytest
import zstandard
from previous_images import assert_holds, built, config_of, layers_of, put, rewrite, root, trust

from build_oci.config.load import load_config
from build_oci.config.paths import check_paths
from build_oci.errors import BuildOciError, ConfigError, ParentError, PlanError

__all__ = ["root", "trust"]
EPOCH = 1_700_000_000


@pytest.fixture(params=[2, 100], ids=["side-by-side", "alone"])
def layout(
    root: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """An image of the tree, six layers, which are read two at a time or each by itself."""
    monkeypatch.setattr("build_oci.previous.check._ENOUGH", request.param)
    built(config_of(root), tmp_path / "layout")
    return tmp_path / "layout"


def test_a_wrong_blob_under_a_right_name(
    root: Path, tmp_path: Path, layout: Path, trust: dict[str, Any]
) -> None:
    path = layout / "blobs" / layers_of(layout)[2].replace(":", "/")
    path.write_bytes(
        bytes(byte ^ 1 for byte in path.read_bytes()[-3000:]).rjust(path.stat().st_size, b"\0")
    )
    with pytest.raises(
        ParentError, match=r"damaged|no tar header|truncated|after the end"
    ) as found:
        built(config_of(root, {"image": layout, **trust}), tmp_path / "out")
    assert str(path) in found.value.where
    assert not (tmp_path / "out").exists()


def test_a_missing_blob(root: Path, tmp_path: Path, layout: Path, trust: dict[str, Any]) -> None:
    (layout / "blobs" / layers_of(layout)[2].replace(":", "/")).unlink()
    with pytest.raises(ParentError, match="is missing"):
        built(config_of(root, {"image": layout, **trust}), tmp_path / "out")


def _evil(layout: Path) -> str:
    """The layer of the component `a` with another content, its record of the digest as it was,
    under the recipe of the right one.
    """
    digest = layers_of(layout)[0]
    tar = bytearray(clients.blob(layout, digest))
    at = tar.index(b"a/file1\0")
    at = tar.index(b"ustar\x0000", at) - 257 + 512
    tar[at : at + 10] = b"evil evil!"
    made = put(layout, bytes(tar))

    def change(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        manifest["layers"][0] |= made
        config["rootfs"]["diff_ids"][0] = made["digest"]

    rewrite(layout, change)
    return str(made["digest"])


def test_a_lying_record_is_found(root: Path, tmp_path: Path, layout: Path) -> None:
    """Every digest of the layout is right, and so is the recipe: the content alone is another."""
    evil = _evil(layout)
    with pytest.raises(ParentError, match="a lying record") as found:
        built(config_of(root, {"image": layout}), tmp_path / "out")
    assert evil.removeprefix("sha256:") in found.value.where


def test_trust_believes_it(root: Path, tmp_path: Path, layout: Path) -> None:
    """docs/previous.md: `trust` is for images that nobody else can write."""
    evil = _evil(layout)
    built(config_of(root, {"image": layout, "trust": True}), tmp_path / "out")
    assert evil in layers_of(tmp_path / "out")


SKIPPABLE = b"\x5a\x2a\x4d\x18\x05\0\0\0hello"
NOTHING = {
    "empty": lambda blob: blob + zstandard.compress(b""),
    "skippable": lambda blob: blob + SKIPPABLE,
    "in front": lambda blob: SKIPPABLE + blob,
}


@pytest.mark.parametrize("what", NOTHING)
def test_frames_that_hold_nothing_are_carried(
    root: Path, tmp_path: Path, trust: dict[str, Any], what: str
) -> None:
    """docs/previous.md: how a blob compresses its archive is not looked at."""
    layout = tmp_path / "layout"
    built(config_of(root, compression="zstd"), layout)
    made = put(layout, NOTHING[what](clients.blob(layout, layers_of(layout)[1])))

    def change(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        manifest["layers"][1] |= made

    rewrite(layout, change)
    image = built(config_of(root, {"image": layout, **trust}, compression="zstd"), tmp_path / "out")
    assert all(layer.reused for layer in image.layers)
    assert layers_of(tmp_path / "out") == layers_of(layout)
    assert layers_of(layout)[1] == made["digest"]
    assert_holds(tmp_path / "out", root, EPOCH)


def test_a_lying_recipe_is_found(root: Path, tmp_path: Path, layout: Path) -> None:
    """The layer of `b` under the recipe of that of `a`."""

    def swap(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        first, second = manifest["layers"][0]["annotations"], manifest["layers"][1]["annotations"]
        key = "io.build-oci.recipe"
        first[key], second[key] = second[key], first[key]

    rewrite(layout, swap)
    with pytest.raises(ParentError, match="another recipe"):
        built(config_of(root, {"image": layout}), tmp_path / "out")


@pytest.mark.platform
@pytest.mark.parametrize(
    "recipe",
    ["", "sha256:", "sha256:" + "g" * 64, "sha512:" + "0" * 128, "sha256:" + "0" * 64, "\n" * 1000],
)
def test_recipes_that_are_none_of_ours(
    root: Path, tmp_path: Path, layout: Path, trust: dict[str, Any], recipe: str
) -> None:
    def change(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        for layer in manifest["layers"]:
            layer["annotations"]["io.build-oci.recipe"] = recipe

    before = layers_of(layout)
    rewrite(layout, change)
    built(config_of(root, {"image": layout, **trust}), tmp_path / "out")
    assert layers_of(tmp_path / "out") == before
    assert_holds(tmp_path / "out", root, EPOCH)


def test_diff_ids_that_are_not_those_of_the_layers(
    root: Path, tmp_path: Path, layout: Path, trust: dict[str, Any]
) -> None:
    def change(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        config["rootfs"]["diff_ids"][0] = "sha256:" + "0" * 64

    rewrite(layout, change)
    with pytest.raises(ParentError, match="the image's config says"):
        built(config_of(root, {"image": layout, **trust}), tmp_path / "out")


@pytest.mark.platform
@pytest.mark.parametrize(
    "note",
    [
        "{",
        "[" * 10_000,
        '{"layer": 0, "of": 2, "components": [["a", 7, 0, 0, ""]]}',
        '{"layer": 0, "of": 1, "components": [["a", 7, 0, 0, ""], ["a", 7, 0, 0, ""]]}',
        '{"layer": 0, "of": 1, "components": [["", 7, 0, 0, ""]]}',
    ],
)
def test_broken_notes_of_components(root: Path, tmp_path: Path, layout: Path, note: str) -> None:
    """A fresh plan, with a warning; layers that come out the same are used all the same."""

    def change(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        for layer in manifest["layers"]:
            layer["annotations"]["io.build-oci.components"] = note

    rewrite(layout, change)
    warnings: list[str] = []
    image = built(config_of(root, {"image": layout}), tmp_path / "out", warnings=warnings)
    assert any("planned anew" in warning for warning in warnings)
    assert all(layer.reused for layer in image.layers)


def test_names_that_the_tree_lacks(root: Path, tmp_path: Path, layout: Path) -> None:
    """Unknown components, with newlines in their names, leave their place; they never reach a
    terminal as they are.
    """
    note = json.dumps({"layer": 0, "of": 1, "components": [["evil\n\x1b[31m", 7, 0, 0, ""]]})

    def change(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        for layer in manifest["layers"][1:]:
            del layer["annotations"]["io.build-oci.components"]
        manifest["layers"][0]["annotations"]["io.build-oci.components"] = note

    rewrite(layout, change)
    said: list[str] = []
    built(config_of(root, {"image": layout}), tmp_path / "out", explained=said, warnings=said)
    assert not any("\x1b" in line for line in said)
    assert_holds(tmp_path / "out", root, EPOCH)


def test_a_foreign_image(root: Path, tmp_path: Path, trust: dict[str, Any]) -> None:
    """One that no build of ours made: nothing of it fits, and nothing is wrong with that."""
    layout = tmp_path / "layout"
    built(config_of(root, split=False), layout)
    tar = clients.layer_tars(layout)[0]

    def change(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        manifest["layers"][0] |= put(layout, tar + bytes(8192))
        config["rootfs"]["diff_ids"] = [manifest["layers"][0]["digest"]]

    rewrite(layout, change)
    for compression in ("disabled", "zstd"):
        image = built(
            config_of(root, {"image": layout, **trust}, split=False, compression=compression),
            tmp_path / compression,
        )
        assert [layer.reused for layer in image.layers] == [False]


def test_a_plan_of_a_million_components(root: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan"
    components = ",".join(f'"c{number}":{{"interval":7}}' for number in range(1_000_000))
    plan.write_text('{"layers":[{' + components + '}],"schema":"io.build-oci.plan/1"}')
    with pytest.raises(PlanError, match="more than the 4194304 of a plan"):
        built(config_of(root, {"plan": plan}), tmp_path / "out")


def test_a_plan_file_is_kept_to(root: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan"
    interval = {"interval": 7}
    layers = [
        {"a": interval, "f": interval},
        {"b": interval, "no such\ncomponent": interval},
        {"gone": interval},
    ]
    plan.write_text(json.dumps({"layers": layers, "schema": "io.build-oci.plan/1"}))
    image = built(config_of(root, {"plan": plan}), tmp_path / "out")
    assert [layer.components for layer in image.layers][:2] == [("a", "f"), ("b",)]
    assert_holds(tmp_path / "out", root, EPOCH)
    plan.write_text("nonsense")
    with pytest.raises(PlanError, match="is no JSON document"):
        built(config_of(root, {"plan": plan}), tmp_path / "out")


# The configuration


def problems(previous: Any, **more: Any) -> list[str]:
    image = {"os": "linux", "architecture": "amd64", "layer": ".", "previous": previous, **more}
    try:
        config = load_config(json.dumps({"images": [image]}), source="c.yaml")
        check_paths(config)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return list(config.warnings)


def test_a_previous_that_does_not_exist(tmp_path: Path, root: Path) -> None:
    """contract: previous-blobs. "an error, unless `previous.optional: true`"."""
    missing = os.fspath(tmp_path / "missing")
    assert problems({"image": missing}) == [
        f"c.yaml:1: images[0].previous.image: `{missing}` does not exist"
    ]
    assert problems({"plan": missing}, split={}) == [
        f"c.yaml:1: images[0].previous.plan: `{missing}` does not exist"
    ]
    assert problems({"image": missing, "plan": missing, "optional": True}, split={}) == []
    (tmp_path / "file").write_text("")
    assert "is no archive" in problems({"image": os.fspath(tmp_path / "file"), "optional": True})[0]
    (tmp_path / "empty").mkdir()
    assert "holds no `index.json`" in problems({"image": os.fspath(tmp_path / "empty")})[0]
    assert problems({"image": os.fspath(tmp_path / "empty"), "optional": True}) == []
    assert problems({"plan": os.fspath(tmp_path), "optional": True}, split={}) == [
        f"c.yaml:1: images[0].previous.plan: `{tmp_path}` is not a regular file"
    ]


def test_what_previous_needs() -> None:
    assert "names nothing to build upon" in problems({})[0]
    assert (
        "has no effect: the image has no `split`"
        in problems({"image": "x", "plan": "p", "optional": True})[0]
    )
    assert (
        "has no effect: there is no `image`"
        in problems({"plan": "p", "trust": True, "optional": True}, split={})[0]
    )
    assert (
        "has no effect: the image has no `layer`"
        in problems({"image": "x", "optional": True}, layer=None)[-1]
    )
    assert "`imgae` is not a key" in problems({"imgae": "x"})[0]


def test_an_index_that_is_not_there(root: Path, tmp_path: Path, layout: Path) -> None:
    with pytest.raises(BuildOciError, match="has no manifest number 1") as found:
        built(config_of(root, {"image": layout, "index": 1}), tmp_path / "out")
    assert found.value.hint == "previous.index counts from 0"
