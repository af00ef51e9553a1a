"""Images built again with what an earlier build made."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clients
import oracles
import pytest

from build_oci.config.load import load_config
from build_oci.image.result import BuiltImage
from build_oci.pipeline import build

EPOCH = 1_700_000_000
LETTERS = [{"paths": {letter: [f"{letter}/**"] for letter in "abcdef"}}]


def config_of(
    layer: Path,
    previous: dict[str, Any] | None = None,
    *,
    split: bool = True,
    compression: str | list[str] = "disabled",
    parent: Path | None = None,
) -> dict[str, Any]:
    image: dict[str, Any] = {"os": "linux", "architecture": "amd64", "layer": os.fspath(layer)}
    if split:
        image["split"] = {"components": LETTERS, "unclaimed": "ignore", "max-layers": 9}
    if previous is not None:
        image["previous"] = {
            key: os.fspath(value) if isinstance(value, Path) else value
            for key, value in previous.items()
        }
    if parent is not None:
        image["parent"] = {"image": os.fspath(parent)}
    return {"compression": compression, "images": [image]}


def built(
    config: dict[str, Any],
    output: Path | str,
    *,
    epoch: int | None = EPOCH,
    warnings: list[str] | None = None,
    explained: list[str] | None = None,
    differences: bool = True,
) -> BuiltImage:
    warned: list[str] = [] if warnings is None else warnings
    said: list[str] = [] if explained is None else explained
    found = build(
        load_config(json.dumps(config)),
        output=output,
        workers=2,
        epoch=epoch,
        warn=warned.append,
        explain=said.append,
        sync=False,
        differences=differences,
    )
    return found.images[0]


def layers_of(layout: Path) -> list[str]:
    return [layer["digest"] for layer in clients.manifest_of(layout)["layers"]]


def assert_holds(layout: Path, root: Path, epoch: int | None) -> None:
    """The layers, applied in order, are the tree ROOT."""
    model: oracles.Model = {}
    for tar in clients.layer_tars(layout):
        oracles.apply_layer(io.BytesIO(tar), model)
    expected = oracles.tree_model(root)
    for node in expected.values():
        node.mtime = node.mtime if epoch is None else epoch * oracles.SECOND
    assert oracles.compare(model, expected) == []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six components of a few files each."""
    root = tmp_path / "root"
    rng = random.Random(0)
    for letter in "abcdef":
        (root / letter / "deep").mkdir(parents=True)
        for number in range(3):
            (root / letter / f"file{number}").write_bytes(rng.randbytes(3000) * (number + 1))
        (root / letter / "deep" / "link").symlink_to("../file0")
    os.link(root / "a" / "file0", root / "a" / "hard")
    (root / "b" / "large").write_bytes(rng.randbytes(3 << 20))
    return root


@pytest.fixture(params=[{}, {"trust": True}], ids=["verified", "trusted"])
def trust(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.param
    return found


def rewrite(layout: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Let CHANGE edit the manifest and the config of the one image of LAYOUT, and make all digests
    right again.
    """
    manifest = clients.manifest_of(layout)
    config = json.loads(clients.blob(layout, manifest["config"]["digest"]))
    change(manifest, config)
    index = clients.index_of(layout)
    manifest["config"] |= put(layout, json.dumps(config).encode())
    index["manifests"][0] |= put(layout, json.dumps(manifest).encode())
    (layout / "index.json").write_text(json.dumps(index))


def put(layout: Path, data: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs" / "sha256" / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}
