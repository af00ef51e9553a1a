"""Layers of a previous image in each codec of a build (contract: previous-codecs)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import clients
import pytest
from previous_images import built, config_of, root, trust

from build_oci.codec.chunked.container import chunked_annotations

pytestmark = pytest.mark.once

__all__ = ["root", "trust"]


def blobs_of(layout: Path) -> list[list[tuple[str, dict[str, str]]]]:
    """Digest and annotations of zstd:chunked of each layer, for each image of LAYOUT."""
    return [
        [
            (layer["digest"], chunked_annotations(layer.get("annotations", {})))
            for layer in json.loads(clients.blob(layout, image["digest"]))["layers"]
        ]
        for image in clients.index_of(layout)["manifests"]
    ]


PAIR = ["gzip", "zstd:chunked"]


@pytest.mark.parametrize("before", ["gzip", "zstd", "zstd:chunked", ["gzip", "zstd"], PAIR])
@pytest.mark.parametrize("after", ["zstd:chunked", ["gzip", "zstd"], PAIR])
@pytest.mark.parametrize("recipes", [True, False])
def test_two_codecs(
    root: Path,
    tmp_path: Path,
    trust: dict[str, Any],
    before: str | list[str],
    after: str | list[str],
    recipes: bool,
) -> None:
    """contract: previous-codecs. Layers are used again for the images of both codecs, and the blobs
    are those of a build without a previous one; what is there is not made again.
    """
    previous = {"image": tmp_path / "none", "optional": True} if recipes else None
    built(config_of(root, previous, split=False, compression=before), tmp_path / "first")
    said: list[str] = []
    image = built(
        config_of(root, {"image": tmp_path / "first", **trust}, split=False, compression=after),
        tmp_path / "second",
        explained=said,
    )
    assert [layer.reused for layer in image.layers] == [True]
    built(config_of(root, split=False, compression=after), tmp_path / "fresh")
    assert blobs_of(tmp_path / "second") == blobs_of(tmp_path / "fresh")
    there = {before} if isinstance(before, str) else set(before)
    wanted = {after} if isinstance(after, str) else set(after)
    made = {line.rpartition(" to ")[2] for line in said if "recompressed from" in line}
    assert made == wanted - there


@pytest.mark.parametrize("position", ["manifest-checksum", "tarsplit-position"])
def test_metadata_that_do_not_hold(
    root: Path, tmp_path: Path, trust: dict[str, Any], position: str
) -> None:
    """contract: previous-codecs. A layer whose metadata lie is made anew, unless the image is
    trusted.
    """
    config = config_of(root, {"image": tmp_path / "none", "optional": True}, split=False)
    built({**config, "compression": "zstd:chunked"}, tmp_path / "first")
    manifest = clients.manifest_of(tmp_path / "first")
    key = f"io.github.containers.zstd-chunked.{position}"
    told = manifest["layers"][0]["annotations"]
    told[key] = told[key][:-1] + ("0" if told[key][-1] != "0" else "1")
    data = json.dumps(manifest).encode()
    digest = hashlib.sha256(data).hexdigest()
    (tmp_path / "first" / "blobs" / "sha256" / digest).write_bytes(data)
    index = clients.index_of(tmp_path / "first")
    index["manifests"][0].update(digest=f"sha256:{digest}", size=len(data))
    (tmp_path / "first" / "index.json").write_text(json.dumps(index))
    config = config_of(root, {"image": tmp_path / "first", **trust}, split=False)
    image = built({**config, "compression": "zstd:chunked"}, tmp_path / "second")
    assert [layer.reused for layer in image.layers] == [True]
    ((found,),) = blobs_of(tmp_path / "second")
    assert (found[1][key] == told[key]) == bool(trust)
