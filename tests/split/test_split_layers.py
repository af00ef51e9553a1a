"""Images of many layers, built by the command: what they hold, what an update changes
(contract: split-layers, split-stable)."""

from __future__ import annotations

import json
import os
import random
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import clients
import oracles
import pytest
import trees
from hypothesis import given, settings
from hypothesis import strategies as st
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
from test_clients import as_umoci_unpacks, assert_same_tree, changed

__all__ = ["root"]


def random_map(rng: random.Random, root: str | Path, path: Path, components: int) -> Path:
    """Most files of ROOT dealt out to so many components; the rest has no owner."""
    names = [
        name[2:] if name.startswith(b"./") else name
        for name, _ in oracles.walk_order(root)
        if name != b"."
    ]
    return written_map(
        path, {name: f"c{rng.randrange(components)}" for name in names if rng.random() < 0.8}
    )


def expected_model(root: str | Path, epoch: int | None) -> oracles.Model:
    model = oracles.tree_model(root)
    for node in model.values():
        node.mtime = node.mtime if epoch is None else epoch * oracles.SECOND
    return model


# What the layers hold


@pytest.mark.platform
@settings(max_examples=25)
@given(
    items=trees.trees(whiteout_names=False),
    rng=st.randoms(use_true_random=False),
    epoch=st.sampled_from([None, EPOCH]),
    most=st.integers(1, 6),
)
def test_layers_unpack_to_the_tree(
    items: list[trees.Item], rng: random.Random, epoch: int | None, most: int
) -> None:
    """contract: split-layers. "Unpacked by any client, the image equals the tree"; at most
    `max-layers`; the same bytes for any -j.
    """
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "tree")
        root.mkdir()
        trees.materialise(items, root)
        components = [{"file": os.fspath(random_map(rng, root, Path(scratch, "map"), 5))}]
        config = split_config(root, components, most=most)
        digests = set()
        for workers in (1, 4):
            output = Path(scratch, f"layout-{workers}")
            built(config, output, epoch=epoch, workers=workers)
            digests.add(tuple(layer_digests(output)))
        assert len(digests) == 1
        assert 1 <= len(clients.manifest_of(output)["layers"]) <= most
        assert oracles.compare(merged(output), expected_model(root, epoch)) == []


@pytest.mark.platform
@settings(max_examples=15)
@given(
    items=trees.trees(whiteout_names=False),
    rng=st.randoms(use_true_random=False),
    epoch=st.sampled_from([None, EPOCH]),
)
def test_layers_upon_a_parent(
    items: list[trees.Item], rng: random.Random, epoch: int | None
) -> None:
    """contract: split-layers. `split` packs "what it changes on top of its parent"."""
    with tempfile.TemporaryDirectory() as scratch:
        before, root = Path(scratch, "before"), Path(scratch, "tree")
        before.mkdir()
        root.mkdir()
        trees.materialise(items, root)
        trees.materialise(
            [item for item in items if item.type != 0 and b"/" not in item.path], before
        )
        parent, output = Path(scratch, "parent"), Path(scratch, "layout")
        built(
            json.dumps(
                {"images": [{"os": "linux", "architecture": "amd64", "layer": os.fspath(before)}]}
            ),
            parent,
            epoch=epoch,
        )
        (root / "new").write_text("new")
        components = [{"file": os.fspath(random_map(rng, root, Path(scratch, "map"), 4))}]
        built(split_config(root, components, parent=parent), output, epoch=epoch)
        assert oracles.compare(merged(output), expected_model(root, epoch)) == []


@pytest.mark.platform
@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_many_layers_of_an_odd_tree(odd_tree: Path, tmp_path: Path, compression: str) -> None:
    """contract: split-layers.
    "one tar, one frame or member, made in parallel with the others"; some of several blocks, most
    of a few bytes."""
    for number in range(3):
        (odd_tree / f"large-{number}").write_bytes(random.Random(number).randbytes(9 << 20))
    components = [{"file": os.fspath(random_map(random.Random(1), odd_tree, tmp_path / "map", 60))}]
    config = split_config(odd_tree, components, compression=compression, most=50)
    for workers in (1, 5):
        built(config, tmp_path / f"layout-{workers}", epoch=EPOCH, workers=workers)
    assert (tmp_path / "layout-1" / "index.json").read_bytes() == (
        tmp_path / "layout-5" / "index.json"
    ).read_bytes()
    assert len(clients.manifest_of(tmp_path / "layout-1")["layers"]) == 50
    assert oracles.compare(merged(tmp_path / "layout-1"), expected_model(odd_tree, EPOCH)) == []


@pytest.mark.clients
@pytest.mark.parametrize("epoch", [None, EPOCH])
def test_umoci(odd_tree: Path, tmp_path: Path, epoch: int | None) -> None:
    """contract: split-layers. With hard links across components, odd names, devices, capabilities
    and empty directories.
    """
    components = [{"file": os.fspath(random_map(random.Random(2), odd_tree, tmp_path / "map", 20))}]
    built(split_config(odd_tree, components), tmp_path / "layout", epoch=epoch)
    unpacked = clients.umoci_unpack(tmp_path / "layout", tmp_path / "bundle")
    assert_same_tree(
        unpacked, changed(expected_model(odd_tree, epoch), as_umoci_unpacks), root_time=False
    )


def test_gnu_tar(odd_tree: Path, tmp_path: Path) -> None:
    """contract: split-layers. The layers, extracted one over the other."""
    clients.need_root()
    components = [{"file": os.fspath(random_map(random.Random(3), odd_tree, tmp_path / "map", 20))}]
    built(split_config(odd_tree, components), tmp_path / "layout", epoch=EPOCH)
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    command = [
        "tar",
        "--warning=no-unknown-keyword",
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
        "--overwrite",
        "-xpf",
        "-",
        "-C",
    ]
    for tar in clients.layer_tars(tmp_path / "layout"):
        subprocess.run([*command, unpacked], input=tar, check=True, capture_output=True)
    found, expected = oracles.tree_model(unpacked), expected_model(odd_tree, EPOCH)
    for node in [*found.values(), *expected.values()]:
        node.mode &= ~0o2000  # tar leaves a directory the bit that it inherits
    assert oracles.compare(found, expected, ignore=["xattrs"]) == []


def differing(root: Path, tmp_path: Path, epoch: int | None, change: Any) -> list[bool]:
    """For each layer of ROOT: does it differ after CHANGE?"""
    config = split_config(root, letters())
    built(config, tmp_path / "before", epoch=epoch)
    change()
    built(config, tmp_path / "after", epoch=epoch)
    assert oracles.compare(merged(tmp_path / "after"), expected_model(root, epoch)) == []
    return [
        one != other
        for one, other in zip(
            layer_digests(tmp_path / "before"), layer_digests(tmp_path / "after"), strict=True
        )
    ]


@pytest.mark.parametrize("epoch", [None, EPOCH])
def test_a_changed_file_changes_its_layer(root: Path, tmp_path: Path, epoch: int | None) -> None:
    """contract: split-stable. "a layer whose files did not change keeps its digest"."""

    def change() -> None:
        (root / "usr/bin/file-b").write_text("another text")

    differs = differing(root, tmp_path, epoch, change)
    assert differs == [False, True, False, False] + [False] * (epoch is None)


@pytest.mark.parametrize("epoch", [None, EPOCH])
def test_a_replaced_file_changes_two_layers_at_most(
    root: Path, tmp_path: Path, epoch: int | None
) -> None:
    """contract: split-stable. Without an epoch the time of the directory is in the last small
    layer, with one nowhere.
    """

    def change() -> None:
        (root / "usr/bin/new").write_text("another text")
        os.replace(root / "usr/bin/new", root / "usr/bin/file-b")
        os.utime(root / "usr/bin", (7, 7))

    differs = differing(root, tmp_path, epoch, change)
    assert differs == [False, True, False, False] + [True] * (epoch is None)


@pytest.mark.parametrize("epoch", [None, EPOCH])
def test_a_touched_directory(root: Path, tmp_path: Path, epoch: int | None) -> None:
    """contract: split-directories. "a shared directory's time would spoil every layer at each
    touch".
    """
    differs = differing(root, tmp_path, epoch, lambda: os.utime(root / "usr", (7, 7)))
    assert differs == [False] * 4 + [True] * (epoch is None)


def test_one_layer_without_an_epoch(root: Path, tmp_path: Path) -> None:
    """contract: split-directories. `max-layers: 1` is one layer: there is none to share a directory
    with.
    """
    built(split_config(root, letters(), most=1), tmp_path / "layout", epoch=None)
    assert clients.layer_tars(tmp_path / "layout") == [
        oracles.expected_tar(root, trust_checksum_xattrs=False)
    ]
