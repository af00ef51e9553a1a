"""A whole build in this process, and whole processes."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from build_oci.config.load import load_config
from build_oci.pipeline import BuildResult, build

pytest_plugins = ("rootfs",)

CODECS = [("zstd", 3), ("gzip", 1), ("gzip", 5), ("disabled", None)]


def configured(
    layer: Path | None,
    codec: str = "zstd",
    level: int | None = None,
    parent: Path | None = None,
    split: dict[str, object] | None = None,
) -> bytes:
    parts = {
        "layer": layer and str(layer),
        "parent": parent and {"image": str(parent)},
        "split": split,
    }
    image = {"architecture": "amd64", "os": "linux", **parts}
    document = {
        "compression": codec,
        "compression-level": level,
        "images": [{k: v for k, v in image.items() if v}],
    }
    return json.dumps({key: value for key, value in document.items() if value is not None}).encode()


@pytest.mark.parametrize(
    ("codec", "level"), CODECS, ids=[f"{codec}-{level}" for codec, level in CODECS]
)
def test_build(
    benchmark: BenchmarkFixture, tree: Path, codec: str, level: int | None, tmp_path: Path
) -> None:
    number = count()
    config = load_config(configured(tree, codec, level))

    def run() -> BuildResult:
        return build(config, output=tmp_path / str(next(number)), workers=2)

    size = benchmark(run).images[0].uncompressed_size
    if benchmark.stats is not None:  # not when benchmarks are disabled
        benchmark.extra_info["MB/s"] = round(size / 1e6 / benchmark.stats.stats.min)


@pytest.mark.parametrize("layers", [1, 120])
@pytest.mark.parametrize(("codec", "level"), [("zstd", 3), ("gzip", 5)])
def test_split(
    benchmark: BenchmarkFixture,
    tree: Path,
    codec: str,
    level: int | None,
    layers: int,
    tmp_path: Path,
) -> None:
    """The files dealt out to 240 components, which share so many layers: 120 should take no longer
    than 1.
    """
    number = count()
    files = sorted(
        str(path.relative_to(tree))
        for path in tree.rglob("*")
        if path.is_file() and not path.is_symlink()
    )
    owners = tmp_path / "owners"
    owners.write_text("".join(f"{file}\tcomponent-{at % 240}\n" for at, file in enumerate(files)))
    split: dict[str, object] = {
        "max-layers": layers,
        "unclaimed": "ignore",
        "components": [{"file": str(owners)}],
    }
    config = load_config(configured(tree, codec, level, split=split))
    result = benchmark(
        lambda: build(config, output=tmp_path / str(next(number)), workers=2, epoch=1)
    )
    assert len(result.images[0].layers) <= layers


def test_upon_parent(benchmark: BenchmarkFixture, made: dict[str, Path], tmp_path: Path) -> None:
    """A parent of which 1 % has changed."""
    number = count()
    build(load_config(configured(made["many small"])), output=tmp_path / "parent", workers=2)
    config = load_config(configured(made["changed"], parent=tmp_path / "parent"))
    result = benchmark(lambda: build(config, output=tmp_path / str(next(number)), workers=2))
    assert result.images[0].files == 40


@pytest.mark.parametrize(
    "what", ["build-oci without a layer", "build-oci --version", "python -c pass"]
)
def test_start_up(benchmark: BenchmarkFixture, what: str, tmp_path: Path) -> None:
    arguments = {
        "build-oci without a layer": ["-P", "-m", "build_oci", "-o", str(tmp_path / "image")],
        "build-oci --version": ["-P", "-m", "build_oci", "--version"],
        "python -c pass": ["-c", "pass"],
    }
    command = [sys.executable, *arguments[what]]
    benchmark(
        lambda: subprocess.run(
            command, input=configured(None), check=True, stdout=subprocess.DEVNULL
        )
    )
