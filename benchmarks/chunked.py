"""Measures zstd:chunked against plain zstd and against the writer that podman uses.

Prints processor seconds, wall time and bytes, for each tree given.

    python benchmarks/chunked.py [--go PROGRAM] [--runs N] [--scratch DIR] TREE...

PROGRAM is tests/support/chunked_go, built: `CGO_ENABLED=0 go build -tags
exclude_graphdriver_btrfs,containers_image_openpgp`. It gets the archive that build-oci made and
need not read a tree or hash it as a whole, which is to its advantage.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple


class Cost(NamedTuple):
    """Seconds."""

    processor: float
    wall: float


def run(*command: str | Path, stdin: str = "") -> Cost:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(
        command, input=stdin, text=True, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": "0"}
    )
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall)


def build(tree: Path, output: Path, compression: str) -> Cost:
    shutil.rmtree(output, ignore_errors=True)
    document = {
        "compression": compression,
        "images": [{"architecture": "amd64", "os": "linux", "layer": str(tree)}],
    }
    return run(sys.executable, "-P", "-m", "build_oci", "-o", output, stdin=json.dumps(document))


def layer(output: Path) -> tuple[Path, dict[str, str]]:
    blobs = output / "blobs"
    index = json.loads((output / "index.json").read_bytes())
    manifest = json.loads((blobs / index["manifests"][0]["digest"].replace(":", "/")).read_bytes())
    (descriptor,) = manifest["layers"]
    return blobs / descriptor["digest"].replace(":", "/"), descriptor.get("annotations", {})


def median(costs: list[Cost]) -> Cost:
    return Cost(
        statistics.median(cost.processor for cost in costs),
        statistics.median(cost.wall for cost in costs),
    )


def measure(tree: Path, scratch: Path, runs: int, go: Path | None) -> None:
    costs: dict[str, list[Cost]] = {"zstd": [], "zstd:chunked": [], "podman's writer": []}
    build(tree, scratch / "tar", "disabled")
    tar, _ = layer(scratch / "tar")
    theirs = scratch / "theirs"
    for _ in range(runs):
        for compression in ("zstd", "zstd:chunked"):
            costs[compression].append(build(tree, scratch / compression, compression))
        if go:
            costs["podman's writer"].append(run(go, "write", tar, theirs, scratch / "annotations"))
    blob, annotations = layer(scratch / "zstd:chunked")
    sizes = {"zstd": layer(scratch / "zstd")[0].stat().st_size, "zstd:chunked": blob.stat().st_size}
    if go:
        sizes["podman's writer"] = theirs.stat().st_size
    print(f"\n{tree}: {tar.stat().st_size / 1e6:.1f} MB")
    for name, size in sizes.items():
        cost = median(costs[name])
        print(
            f"  {name:16} {cost.processor:7.2f} s of processors {cost.wall:7.2f} s "
            f" {size / 1e6:8.1f} MB  {size / sizes['zstd']:.3f}"
        )
    for name, key in (("TOC", "manifest-position"), ("tar-split", "tarsplit-position")):
        _, packed, plain, *_ = annotations[f"io.github.containers.zstd-chunked.{key}"].split(":")
        print(
            f"  {name:16} {int(packed) / 1e6:.2f} MB of the blob, {int(plain) / 1e6:.1f} MB"
            " uncompressed"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trees", nargs="+", type=Path)
    parser.add_argument("--go", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scratch", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        for tree in arguments.trees:
            measure(tree, Path(scratch), arguments.runs, arguments.go)


if __name__ == "__main__":
    main()
