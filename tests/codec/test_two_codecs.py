"""One packing, two codecs (contract: codec-chunked): the blobs of two builds, one config, the index
with gzip first and zstd marked.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import clients
import pytest

from build_oci.cli.command import main
from build_oci.config.load import load_config
from build_oci.merge import merge
from build_oci.pipeline import BuildResult, build
from build_oci.work.budget import Budget, RelievedBudget

# These tests hardly depend on the version of Python.
pytestmark = pytest.mark.once

EPOCH = 1_700_000_000
ZSTD = "io.github.containers.compression.zstd"
REF_NAME = "org.opencontainers.image.ref.name"
Image = dict[str, Any]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree whose blocks end elsewhere for each codec."""
    root = tmp_path_factory.mktemp("two") / "root"
    rng = random.Random(3)
    (root / "d").mkdir(parents=True)
    for number in range(300):
        (root / "d" / f"text-{number}").write_bytes(b"%d lines\n" % number * rng.randrange(2000))
    (root / "noise").write_bytes(rng.randbytes(8_500_001))
    # Segments of odd sizes, so that a block of gzip's reaches over the end of one of zstd's.
    for number in range(12):
        (root / "d" / f"x-{number}").write_bytes(rng.randbytes(300_000 + 74_000 * number))
    (root / "z").write_bytes(b"the same line over and over\n" * 300_000)
    return root


def made(
    output: Path,
    compression: object,
    *images: Image,
    workers: int = 2,
    warnings: list[str] | None = None,
    verified: bool = True,
    **more: object,
) -> BuildResult:
    document = {
        "compression": compression,
        "images": images,
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    heard: list[str] = [] if warnings is None else warnings
    result = build(
        load_config(json.dumps(document)),
        output=output,
        workers=workers,
        epoch=EPOCH,
        warn=heard.append,
        sync=False,
    )
    assert not verified or main(["verify", str(output)]) == 0
    return result


def image(layer: Path | None, **more: object) -> Image:
    return {
        "architecture": "amd64",
        "os": "linux",
        **({"layer": str(layer)} if layer else {}),
        **more,
    }


def layers_of(layout: Path, number: int = 0) -> list[Image]:
    layers: list[Image] = clients.manifest_of(layout, number)["layers"]
    return layers


@pytest.mark.parametrize(
    ("kind", "level", "options"),
    [
        ("zstd", None, {}),
        ("zstd:chunked", None, {"workers": 1, "prefetch_limit_mb": 1}),
        ("zstd", 6, {}),
        ("zstd:chunked", 1, {"workers": 5}),
    ],
)
def test_the_blobs_of_two_builds(
    root: Path, tmp_path: Path, kind: str, level: int | None, options: dict[str, Any]
) -> None:
    levels: dict[str, Any] = {} if level is None else {"compression_level": level}
    result = made(tmp_path / "both", [kind, "gzip"], image(root), **levels, **options)
    for number, compression in enumerate(("gzip", kind)):
        made(tmp_path / compression, compression, image(root), verified=False, **levels)
        assert layers_of(tmp_path / "both", number) == layers_of(tmp_path / compression)
        clients.layer_tars(tmp_path / "both", number)
    index = clients.index_of(tmp_path / "both")["manifests"]
    assert [one.get("annotations", {}) for one in index] == [{}, {ZSTD: "true"}]
    assert index[0]["platform"] == index[1]["platform"]
    configs = [clients.manifest_of(tmp_path / "both", number)["config"] for number in (0, 1)]
    assert configs[0] == configs[1] == clients.manifest_of(tmp_path / "gzip")["config"]
    (built,) = result.images
    assert [built.digest, built.others[0].descriptor.digest] == [one["digest"] for one in index]
    assert built.layers_size == layers_of(tmp_path / "both")[0]["size"]
    assert built.others[0].layers_size == layers_of(tmp_path / "both", 1)[0]["size"]


def test_a_budget_that_one_thread_fills() -> None:
    """It waits for nobody else as long as it holds something itself."""
    shared = Budget(10)
    held = [6, 4]

    def relieve() -> bool:
        if held:
            mine.give_back(held.pop())
            return True
        return False

    mine = RelievedBudget(shared, relieve)
    assert all(mine.take(size, block=False) for size in held)
    assert not mine.take(7, block=False)
    assert mine.take(7, block=True)
    assert held == []


def test_several_images(root: Path, tmp_path: Path) -> None:
    """Numbers in the index stay those of the configuration; a name leads to one image."""
    small = [
        image(root / "d", **{"index-annotations": {REF_NAME: "a", "x": "y"}}),
        image(root / "d") | {"architecture": "arm64"},
    ]
    warnings: list[str] = []
    config = load_config(json.dumps({"compression": ["gzip", "zstd"], "images": small}))
    assert ["names the image with gzip only" in line for line in config.warnings] == [True]
    result = made(tmp_path / "out", ["gzip", "zstd"], *small, warnings=warnings)
    index = clients.index_of(tmp_path / "out")["manifests"]
    assert [one["platform"]["architecture"] for one in index] == ["amd64", "arm64"] * 2
    assert [one.get("annotations", {}) for one in index] == [
        {REF_NAME: "a", "x": "y"},
        {},
        {"x": "y", ZSTD: "true"},
        {ZSTD: "true"},
    ]
    assert result.digest not in {one["digest"] for one in index}
    made(tmp_path / "named", ["gzip", "zstd"], *small[1:], ref_name="app")
    (outer,) = clients.index_of(tmp_path / "named")["manifests"]
    inner = json.loads(clients.blob(tmp_path / "named", outer["digest"]))["manifests"]
    assert [one.get("annotations") for one in inner] == [None, {ZSTD: "true"}]
    made(
        tmp_path / "other",
        ["gzip", "zstd"],
        image(root / "d") | {"architecture": "riscv64"},
        ref_name="app",
    )
    merge([str(tmp_path / "named"), str(tmp_path / "other")], tmp_path / "merged")
    (outer,) = clients.index_of(tmp_path / "merged")["manifests"]
    assert len(json.loads(clients.blob(tmp_path / "merged", outer["digest"]))["manifests"]) == 4


@pytest.mark.parametrize("below", ["gzip", "zstd", "disabled"])
def test_a_parent(root: Path, tmp_path: Path, below: str) -> None:
    """Its layers come in both codecs; one that fits is carried."""
    made(tmp_path / "parent", below, image(root / "d"))
    made(
        tmp_path / "both", ["gzip", "zstd"], image(root, parent={"image": str(tmp_path / "parent")})
    )
    for number, compression in enumerate(("gzip", "zstd")):
        made(
            tmp_path / compression,
            compression,
            image(root, parent={"image": str(tmp_path / "parent")}),
            verified=False,
        )
        assert layers_of(tmp_path / "both", number) == layers_of(tmp_path / compression)


def test_a_parent_as_it_is(root: Path, tmp_path: Path) -> None:
    made(tmp_path / "parent", "disabled", image(root / "d"))
    parent = {"image": str(tmp_path / "parent"), "recompress": False}
    result = made(
        tmp_path / "out", ["gzip", "zstd"], image(root, parent=parent), image(None, parent=parent)
    )
    index = clients.index_of(tmp_path / "out")["manifests"]
    # The second image is the same in both codecs, and there once.
    assert [one.get("annotations") for one in index] == [None, None, {ZSTD: "true"}]
    assert (
        layers_of(tmp_path / "out", 0)[0]
        == layers_of(tmp_path / "out", 2)[0]
        == layers_of(tmp_path / "parent")[0]
    )
    assert [len(one.others) for one in result.images] == [1, 0]


def test_many_layers(root: Path, tmp_path: Path) -> None:
    paths = [{"paths": {"a": ["d/text-1*"], "b": ["d/text-2*"], "c": ["noise"]}}]
    many = image(root, split={"components": paths, "unclaimed": "ignore"})
    made(tmp_path / "both", ["gzip", "zstd:chunked"], many)
    assert len(layers_of(tmp_path / "both")) >= 3
    for number, compression in enumerate(("gzip", "zstd:chunked")):
        made(tmp_path / compression, compression, many, verified=False)
        assert layers_of(tmp_path / "both", number) == layers_of(tmp_path / compression)


def test_what_chunked_cannot_say(tmp_path: Path) -> None:
    """With many layers only the one with the odd name becomes plain zstd; gzip is as ever."""
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "b").mkdir()
    (root / "a" / os.fsdecode(b"caf\xe9")).write_bytes(b"x")
    (root / "b" / "good").write_bytes(b"y")
    many = image(
        root, split={"components": [{"paths": {"a": ["a"], "b": ["b"]}}], "unclaimed": "ignore"}
    )
    warnings: list[str] = []
    made(tmp_path / "out", ["gzip", "zstd:chunked"], many, warnings=warnings)
    plain = [
        "io.github.containers.zstd-chunked.manifest-checksum" not in layer["annotations"]
        for layer in layers_of(tmp_path / "out", 1)
    ]
    assert sorted(plain) == [False, True]
    assert ["plain zstd, because a name is not UTF-8" in line for line in warnings] == [True]
    assert len(layers_of(tmp_path / "out", 0)) == 2


def test_metrics(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text(
        json.dumps({"compression": ["zstd", "gzip"], "images": [image(root / "d")]})
    )
    out = tmp_path / "out"
    assert (
        main(
            [
                "-v",
                "-f",
                str(tmp_path / "c.yaml"),
                "-o",
                str(out),
                "--metrics",
                str(tmp_path / "m"),
                "--digestfile",
                str(tmp_path / "d"),
            ]
        )
        == 0
    )
    document = json.loads((tmp_path / "m").read_text())
    assert (document["compression"], document["compressionLevel"]) == ("gzip", 5)
    gzip, zstd = (one["digest"] for one in clients.index_of(out)["manifests"])
    (built,) = document["images"]
    (other,) = built["otherCodecs"]
    assert (built["digest"], other["digest"], other["compression"], other["compressionLevel"]) == (
        gzip,
        zstd,
        "zstd",
        3,
    )
    assert [one["digest"] for one in other["layers"]] == [
        one["digest"] for one in layers_of(out, 1)
    ]
    assert (tmp_path / "d").read_text().startswith("sha256:")
    assert (tmp_path / "d").read_text() not in (gzip, zstd)
    assert f"; {zstd} with zstd " in capsys.readouterr().err
