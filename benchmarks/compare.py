"""Measures build-oci and its peers on one root file system, and compares their outputs.

    python benchmarks/compare.py ROOTFS [--runs 5] [--original DIR] [--rs BINARY] [--json FILE]
        [--chart FILE.png] [--scratch DIR]

Each case is one job at one setting. Its rivals run in turn, A B C A B C …, after one warm-up each,
so that a drift of the machine's speed meets all of them alike. Printed are medians of the
wall-clock time, the ratio to build-oci's, the median memory peak of the largest process (from 30
MiB on, what this one has) and the size of the layer. Peers that are not there are named as skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

from comparison_table import chart, table
from layer_digest import tree_in
from rootfs import change

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Rival:
    """One way to do a job: a shell command over $ROOTFS that writes to $OUT, and how to find its
    layer there.
    """

    name: str
    command: str
    stdin: str = ""
    prepare: str = ""  # not timed, before each run
    layer: Callable[[Path], Path | None] = field(default=lambda out: out)
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A job, and who does it; the first rival is build-oci."""

    name: str
    rivals: list[Rival]
    # Makes what all rivals need, once, in a directory of its own; the variables are added to the
    # environment of their commands.
    setup: Callable[[Path, Path], dict[str, str]] = lambda rootfs, scratch: {}
    same_tree: bool = True  # must the outputs hold the same?


def layout_layer(out: Path) -> Path | None:
    """The last layer of the first image in an OCI layout."""
    index = json.loads((out / "index.json").read_text())
    manifest = json.loads(
        (out / "blobs" / index["manifests"][-1]["digest"].replace(":", "/")).read_text()
    )
    return out / "blobs" / str(manifest["layers"][-1]["digest"]).replace(":", "/")


def document(
    compression: dict[str, Any], layer: str | None = None, parent: str | None = None
) -> str:
    """A configuration for every builder that reads such documents."""
    image: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "layer": layer or os.environ.get("ROOTFS", ""),
    }
    if parent:
        image["parent"] = {"image": parent}
    return json.dumps({**compression, "images": [image]})


@dataclass(frozen=True)
class Peers:
    """The peers that are found here, each as the rivals for one job: none where it is not there."""

    original_path: Path | None
    original_python: str
    rs_path: Path | None
    other_python: str | None

    def other(self, mode: dict[str, Any], redirect: str = "") -> list[Rival]:
        """Another build-oci, of another revision say."""
        command = f"{shlex.quote(str(self.other_python))} -P -m build_oci -o $OUT {redirect}"
        return (
            [Rival("the other build-oci", command, document(mode), layer=layout_layer)]
            if self.other_python
            else []
        )

    def original(self, mode: dict[str, Any], redirect: str = "") -> list[Rival]:
        command = (
            f"cd $OUT && {shlex.quote(self.original_python)} -c 'from oci_builder.cmd import main;"
            f" main()' {redirect}"
        )
        rival = Rival(
            "Python original",
            command,
            document(mode),
            "mkdir $OUT",
            layout_layer,
            {"PYTHONPATH": str(self.original_path)},
        )
        return [rival] if self.original_path else []

    def rust(self, mode: dict[str, Any]) -> list[Rival]:
        rival = Rival(
            "build-oci-rs",
            f"cd $OUT && {shlex.quote(str(self.rs_path))}",
            document(mode),
            "mkdir $OUT",
            layout_layer,
        )
        return [rival] if self.rs_path else []

    def floor(self, tool: str, arguments: str = "") -> list[Rival]:
        """`tar` alone, or with a compressor that hashes nothing."""
        rival = Rival(
            f"tar | {tool} {arguments}".strip(),
            f"tar -C $ROOTFS -cf - . | {tool} {arguments} > $OUT",
        )
        return [rival] if has(tool) else []

    def umoci(self) -> list[Rival]:
        prepare = "umoci init --layout $OUT && umoci new --image $OUT:image"
        rival = Rival(
            "umoci insert (its gzip level)",
            "umoci insert --image $OUT:image $ROOTFS /",
            "",
            prepare,
            layout_layer,
        )
        return [rival] if has("umoci") else []

    def buildah(self) -> list[Rival]:
        tool = "buildah --storage-driver vfs --root $OUT.root --runroot $OUT.run"
        command = (
            f"c=$({tool} from scratch) && {tool} copy -q $c $ROOTFS / && {tool} commit -q $c"
            " oci:$OUT"
        )
        return (
            [Rival("buildah copy + commit", command, layer=layout_layer)] if has("buildah") else []
        )


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """Every comparison; the first rival of each is build-oci."""
    peers = Peers(options.original, options.original_python, options.rs, options.other)
    ours = f"{shlex.quote(sys.executable)} -P -m build_oci -o $OUT"
    twin = f"{shlex.quote(sys.executable)} {shlex.quote(str(HERE / 'baseline.py'))} $ROOTFS $OUT"
    yield Case(
        "zstd 3 (default)",
        [
            Rival("build-oci", ours, document({}), layer=layout_layer),
            *peers.other({}),
            *peers.floor("zstd", "-q -3 -T0"),
            *peers.original({"gzip": "gzip"}),
            Rival("plain Python, gzip 5", twin, layer=layout_layer),
        ],
    )
    for level in (1, 5, 9):
        mode = {"compression": "gzip", "compression-level": level}
        yield Case(
            f"gzip {level}",
            [
                Rival("build-oci", ours, document(mode), layer=layout_layer),
                *peers.other(mode),
                *peers.floor("pigz", f"-{level}"),
                *peers.original({"gzip": "gzip", "compression-level": level}),
                *peers.rust(mode),
                *(peers.umoci() + peers.buildah() if level == 5 else []),
                Rival(f"plain Python, gzip {level}", f"{twin} --level {level}", layer=layout_layer),
            ],
        )
    mode = {"compression": "disabled"}
    yield Case(
        "disabled",
        [
            Rival("build-oci", ours, document(mode), layer=layout_layer),
            *peers.other(mode),
            *peers.floor("cat"),
            *peers.original({"gzip": "disabled"}),
            *peers.rust(mode),
            Rival("plain Python, disabled", f"{twin} --disabled", layer=layout_layer),
        ],
    )

    small = [
        Rival("build-oci", f"{ours} < $SMALL", layer=layout_layer),
        *peers.original({"gzip": "gzip"}, "< $SMALL"),
    ]
    yield Case("20,000 files of 1 KiB", small, many_small_files)
    modes: dict[str, dict[str, Any]] = {"zstd 3": {}, "gzip 5": {"compression": "gzip"}}
    for name, mode in modes.items():
        yield Case(
            f"workers, {name}",
            [
                Rival(
                    f"build-oci -j {count}",
                    f"{ours} -j {count}",
                    document(mode),
                    layer=layout_layer,
                )
                for count in (2, 1)
            ],
        )
    python = shlex.quote(sys.executable)
    yield Case(
        "start-up",
        [
            Rival(
                "build-oci, no layer",
                ours,
                json.dumps({"images": [{"architecture": "amd64", "os": "linux"}]}),
                layer=lambda out: None,
            ),
            Rival("python -c pass", f"{python} -c pass", layer=lambda out: None),
        ],
        same_tree=False,
    )
    if os.geteuid() == 0:
        cold = "sync; echo 3 > /proc/sys/vm/drop_caches"
        yield Case(
            "cold cache, disabled",
            [
                Rival("build-oci", ours, document({"compression": "disabled"}), cold, layout_layer),
                Rival("tar", "tar -C $ROOTFS -cf $OUT .", prepare=cold),
            ],
        )
    yield Case(
        "parent, 1 % changed",
        [
            Rival("build-oci", f"{ours} < $UPON_ZSTD", layer=layout_layer),
            Rival("build-oci, gzip 5", f"{ours} < $UPON_GZIP", layer=layout_layer),
            Rival(
                "floor: hash all files, decompress",
                f"{python} {shlex.quote(str(HERE / 'floor.py'))} $CHANGED $LAYER",
                layer=lambda out: None,
            ),
            *peers.other({}, "< $UPON_ZSTD"),
            *peers.original({}, "< $UPON_GZIP"),
            Rival(
                "plain Python, gzip 5",
                f"{python} {shlex.quote(str(HERE / 'baseline.py'))} $CHANGED $OUT --parent"
                " $PARENT_GZIP",
                layer=layout_layer,
            ),
        ],
        parent_and_change,
        same_tree=False,
    )


def many_small_files(rootfs: Path, scratch: Path) -> dict[str, str]:
    """20,000 files of 1 KiB of noise and text, 100 to a directory."""
    random = Random(1)
    tree = scratch / "small"
    for number in range(20_000):
        folder = tree / f"{number // 100:03}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).write_bytes(random.randbytes(512) + b"%d and so on " % number * 39)
    (scratch / "small.json").write_text(document({}, str(tree)))
    return {"SMALL": str(scratch / "small.json")}


def parent_and_change(rootfs: Path, scratch: Path) -> dict[str, str]:
    """The tree as two parents, and a copy of it in which every hundredth file has another byte at
    its end.

    Both without devices: the Python original gives up on one that the parent has.
    """
    base, changed = scratch / "base", scratch / "changed"
    subprocess.run(["cp", "-a", str(rootfs), str(base)], check=True)
    for path in base.rglob("*"):
        if path.is_block_device() or path.is_char_device():
            path.unlink()
    subprocess.run(["cp", "-a", str(base), str(changed)], check=True)
    change(changed)
    variables = {"CHANGED": str(changed), "PARENT_GZIP": str(scratch / "gzip")}
    for name, mode in (("zstd", {"compression": "zstd"}), ("gzip", {"gzip": "gzip"})):
        command = [sys.executable, "-P", "-m", "build_oci", "-o", str(scratch / name)]
        subprocess.run(command, input=document(mode, str(base)).encode(), check=True)
        upon = scratch / f"upon-{name}.json"
        upon.write_text(document(mode, str(changed), str(scratch / name)))
        variables[f"UPON_{name.upper()}"] = str(upon)
    return variables | {"LAYER": str(layout_layer(scratch / "zstd"))}


def has(tool: str) -> bool:
    """Is there such a command? Says so if not."""
    if shutil.which(tool):
        return True
    print(f"skipped: {tool} is not installed", file=sys.stderr)
    return False


def run(rival: Rival, variables: dict[str, str], scratch: Path) -> tuple[float, int, Path]:
    """Seconds, peak of memory in KiB, and where the output is."""
    out = scratch / "out"
    for left in scratch.glob("out*"):
        shutil.rmtree(left, ignore_errors=True)
        left.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "OUT": str(out),
        "BUILDAH_ISOLATION": "chroot",
        **rival.environment,
        **variables,
    }
    if rival.prepare:
        subprocess.run(
            ["bash", "-ec", rival.prepare], env=environment, check=True, stdout=subprocess.DEVNULL
        )
    started = time.perf_counter()
    child = subprocess.Popen(
        ["bash", "-ec", "set -o pipefail; " + rival.command],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert child.stdin is not None
    child.stdin.write(rival.stdin.encode())
    child.stdin.close()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"{rival.name} failed: {rival.command}")
    return seconds, usage.ru_maxrss, out


def compare(case: Case, options: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    """One row a rival."""
    times: dict[str, list[float]] = {rival.name: [] for rival in case.rivals}
    peaks: dict[str, list[int]] = {rival.name: [] for rival in case.rivals}
    sizes: dict[str, int] = {}
    trees: dict[str, str] = {}
    once = scratch / "once"
    once.mkdir()
    variables = {"ROOTFS": str(options.rootfs), **case.setup(options.rootfs, once)}
    for number in range(options.runs + 1):
        for rival in case.rivals:
            seconds, peak, out = run(rival, variables, scratch)
            if number == 0:  # the warm-up is where outputs are looked at
                if layer := rival.layer(out):
                    sizes[rival.name] = layer.stat().st_size
                    # Elsewhere: what this process once held would count as the peak of every
                    # process that it starts.
                    with ProcessPoolExecutor(1, get_context("spawn")) as elsewhere:
                        trees[rival.name] = elsewhere.submit(tree_in, layer).result()
                continue
            times[rival.name].append(seconds)
            peaks[rival.name].append(peak)
    shutil.rmtree(once)
    ours = statistics.median(times[case.rivals[0].name])
    reference = trees[case.rivals[0].name] if case.same_tree else None
    return [
        {
            "case": case.name,
            "rival": rival.name,
            "seconds": statistics.median(times[rival.name]),
            "fastest": min(times[rival.name]),
            "slowest": max(times[rival.name]),
            # Pair by pair: the two runs stood next to each other.
            "ratio": statistics.median(
                b / a for a, b in zip(times[case.rivals[0].name], times[rival.name], strict=True)
            ),
            "peak_mib": statistics.median(peaks[rival.name]) / 1024,
            "size": sizes.get(rival.name),
            "same_tree": (
                None
                if reference is None or rival.name not in trees
                else trees[rival.name] == reference
            ),
            "ours": ours,
        }
        for rival in case.rivals
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("rootfs", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="", help="only the cases whose name starts so")
    parser.add_argument(
        "--original", type=Path, help="a checkout of the Freedesktop SDK's Python builder"
    )
    parser.add_argument(
        "--original-python",
        default=sys.executable,
        help="an interpreter for it: Python >= 3.12 with PyYAML",
    )
    parser.add_argument("--rs", type=Path, help="the binary of build-oci-rs")
    parser.add_argument("--other", help="an interpreter that has another build-oci installed")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--chart", type=Path)
    parser.add_argument(
        "--scratch", type=Path, help="where outputs go; the same file system for all"
    )
    options = parser.parse_args()
    options.rootfs = options.rootfs.resolve()
    os.environ["ROOTFS"] = str(options.rootfs)
    for peer in ("original", "rs"):
        if getattr(options, peer) is None:
            print(f"skipped: --{peer} was not given", file=sys.stderr)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        for case in cases(options):
            if case.name.startswith(options.only):
                rows += compare(case, options, Path(scratch))
                print(table(rows[-len(case.rivals) :]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    if options.chart:
        chart(rows, options.chart)


if __name__ == "__main__":
    main()
