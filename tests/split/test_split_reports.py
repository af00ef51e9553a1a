"""What is said of the layers of a split image: history, annotations, plan, metrics, warnings
(contract: split-told)."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import clients
import pytest
import trees
from conftest import Build
from split_images import (
    EPOCH,
    built,
    layer_digests,
    letters,
    merged,
    root,
    split_config,
    written_map,
)

from build_oci.cli.command import main
from build_oci.errors import OutputError

__all__ = ["root"]


def names_in(tar: bytes) -> list[str]:
    with tarfile.open(
        fileobj=io.BytesIO(tar), errors="surrogateescape", encoding="utf-8"
    ) as archive:
        return [member.name for member in archive.getmembers()]


def config_of(layout: Path) -> clients.Document:
    document: clients.Document = json.loads(
        clients.blob(layout, clients.manifest_of(layout)["config"]["digest"])
    )
    return document


# What is said of them


def test_history_and_annotations(root: Path, tmp_path: Path) -> None:
    """contract: split-told.
    "`config.history` has an entry for each layer; its comment names the components"; the layout
    remembers the plan."""
    built(split_config(root, letters()), tmp_path / "layout", epoch=None)
    config, layers = (
        config_of(tmp_path / "layout"),
        clients.manifest_of(tmp_path / "layout")["layers"],
    )
    comments = [entry["comment"] for entry in config["history"]]
    assert sorted(comments[:-1]) == ["a", "b", "c", "unclaimed:var"]
    assert comments[-1] == "directories"
    assert len(config["rootfs"]["diff_ids"]) == len(layers) == len(comments)
    for comment, tar in zip(comments, clients.layer_tars(tmp_path / "layout"), strict=True):
        files = {os.path.basename(name) for name in names_in(tar) if "file-" in name}
        assert files == ({f"file-{comment}"} if comment in ("a", "b", "c") else set())
    remembered = [
        json.loads(layer["annotations"]["io.build-oci.components"])["components"]
        for layer in layers[:-1]
    ]
    assert [[name for name, *_ in rows] for rows in remembered] == [
        [comment] for comment in comments[:-1]
    ]
    assert list(layers[-1]["annotations"]) == ["io.build-oci.recipe"]


def test_history_of_many_components(tmp_path: Path) -> None:
    """A comment stays short however many components share a layer."""
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(300):
        (root / f"file-{number:03}").touch()
    source = [
        {
            "file": os.fspath(
                written_map(
                    tmp_path / "map", {b"file-%03d" % n: f"component-{n:03}" for n in range(300)}
                )
            )
        }
    ]
    document = json.loads(split_config(root, source, most=2))
    document["images"][0]["comment"] = "Release 7"
    built(json.dumps(document), tmp_path / "layout", epoch=EPOCH)
    comments = [entry["comment"] for entry in config_of(tmp_path / "layout")["history"]]
    assert all(
        comment.startswith("Release 7: component-") and len(comment) < 320 for comment in comments
    )
    assert any(comment.endswith(" more") for comment in comments)


def test_plan_file_and_metrics(root: Path, tmp_path: Path, build: Build) -> None:
    """contract: split-told.
    `plan` is written, relative to the current directory; `--metrics` and `-v` say layers,
    components, unclaimed bytes."""
    config = split_config(root, letters("ab"), plan="layers.json")
    done = build(
        config,
        args=["-v", "--metrics", "metrics.json"],
        cwd=tmp_path,
        env={"SOURCE_DATE_EPOCH": "5"},
    )
    plan = json.loads((tmp_path / "layers.json").read_bytes())
    components = [sorted(layer) for layer in plan["layers"]]
    assert all(fields["digest"] for layer in plan["layers"] for fields in layer.values())
    (image,) = json.loads((tmp_path / "metrics.json").read_bytes())["images"]
    assert [layer["components"] for layer in image["layers"]] == components
    assert [layer["digest"] for layer in image["layers"]] == layer_digests(done.output)
    assert image["layerSize"] == sum(layer["size"] for layer in image["layers"])
    unclaimed = [
        path for path in root.rglob("*") if path.is_file() and path.name in ("file-c", "nobody")
    ]
    assert image["unclaimedFiles"] == len(unclaimed)
    assert image["unclaimedSize"] == sum(path.stat().st_size for path in unclaimed)
    assert any(
        line.startswith("build-oci: layer 0: sha256:") and line.endswith(components[0][0])
        for line in done.stderr.splitlines()
    )
    assert f"{len(components)} layers" in done.stderr.splitlines()[-1]


def test_plan_does_not_depend_on_the_epoch(root: Path, tmp_path: Path) -> None:
    """contract: split-plan. "independent of SOURCE_DATE_EPOCH, `-j`, readdir order"."""
    plans = set()
    for number, epoch in enumerate((None, 0, EPOCH)):
        plan = tmp_path / f"plan-{number}"
        built(
            split_config(root, letters(), plan=os.fspath(plan)),
            tmp_path / "layout",
            epoch=epoch,
            workers=1 + number,
        )
        plans.add(plan.read_bytes())
    assert len(plans) == 1


def test_a_plan_that_cannot_be_written(root: Path, tmp_path: Path) -> None:
    """contract: cli-user-files. Known before the build; nothing is written."""
    with pytest.raises(OutputError, match="no file can be written here"):
        built(
            split_config(root, letters(), plan=os.fspath(tmp_path / "missing" / "plan")),
            tmp_path / "layout",
            epoch=None,
        )
    assert not (tmp_path / "layout").exists()


def test_more_layers_than_docker_loads(tmp_path: Path) -> None:
    """contract: split-told. "a warning when the image passes 127 in all"."""
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(128):
        (root / f"file-{number:03}").touch()
    source = [
        {
            "file": os.fspath(
                written_map(tmp_path / "map", {b"file-%03d" % n: f"c{n}" for n in range(128)})
            )
        }
    ]
    for most, expected in ((127, 0), (128, 1)):
        warnings: list[str] = []
        built(
            split_config(root, source, most=most),
            tmp_path / f"layout-{most}",
            epoch=EPOCH,
            warnings=warnings,
        )
        assert sum("127" in line for line in warnings) == expected


@pytest.mark.skipif(
    "user" not in trees.abilities().xattrs, reason="no user.* extended attributes here"
)
def test_attributes_that_are_instructions(root: Path, tmp_path: Path) -> None:
    """contract: split-instructions. "While this source is on, both attributes are instructions and
    are not written into the layer".
    """
    os.setxattr(root / "usr", "user.component", b"all")
    os.setxattr(root / "usr/bin/file-a", "user.update-interval", b"daily")

    def attributes(source: Sequence[Any]) -> set[str]:
        built(split_config(root, source), tmp_path / "layout", epoch=EPOCH)
        return {name for node in merged(tmp_path / "layout").values() for name in node.xattrs}

    assert attributes(["xattr"]) == set()
    assert attributes(["packages"]) == {"user.component", "user.update-interval"}


@pytest.mark.platform
def test_most_layers_are_verified(tmp_path: Path) -> None:
    """contract: split-layers, promise-memory. Up to 499 layers; each takes little memory where it
    is read again.
    """
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(499):
        (root / f"file-{number:03}").touch()
    source = [
        {
            "file": os.fspath(
                written_map(tmp_path / "map", {b"file-%03d" % n: f"c{n}" for n in range(499)})
            )
        }
    ]
    built(split_config(root, source, most=499), tmp_path / "layout", epoch=EPOCH)
    assert len(clients.manifest_of(tmp_path / "layout")["layers"]) == 499
    assert main(["verify", os.fspath(tmp_path / "layout")]) == 0
