"""Building an image again inside BuildStream, where nothing in its tree changed.

    python benchmarks/buildstream.py TREE [--rounds 5] [--scratch DIR] [--json FILE]

A project imports TREE and builds it as one layer and as one layer a package: for the first time,
and with the layout of that first build as `previous`, trusted and verified. In each round
BuildStream runs every element anew, because a variable of its environment changed. Printed are
medians of what build-oci took in the sandbox, from the start of Python to its end: by the clock,
and of CPUs, without what the file system's server takes. Every sandbox has a mount of its own, so
the kernel has cached nothing of the tree, of Python or of build-oci there. BuildStream is the one
that `make test-buildstream` uses; where it is missing, it is installed first. That the layers of
the later builds are those of the first is checked.

Behind the times are seconds by stage of one more build, as `--metrics` tells them. On a machine
that others use, as root, `chrt -r 5 python …` goes before them, in the sandbox too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import stat
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests" / "support"))
EPOCH = "1700000000"
# bash, and not Python, takes the time: the interpreter must be as cold as build-oci will find it.
TIMED = """#!/usr/bin/bash
TIMEFORMAT='build-oci took %R %U %S'
time "$@"
"""
# As if no module were compiled, or each for a file of another time.
NO_BYTE_CODE = ("python3", "-B", "-X", "pycache_prefix=/none", "/usr/bin/build-oci")


class Cost(NamedTuple):
    """Seconds, by the clock and of all CPUs."""

    wall: float
    cpu: float


class Case(NamedTuple):
    """A line of the table, and what is special in its element. of: whose layout is its `previous`,
    and must be what comes out.
    """

    title: str
    image: dict[str, Any]
    of: str = ""
    tool: tuple[str, ...] = ("build-oci",)


# An image with neither `split` nor `previous` tells no recipes.
ALONE = {"previous": {"image": "/none", "optional": True}}
SPLIT = {"split": {"max-layers": 120, "unclaimed": "ignore"}}
FIRST = {
    "one": Case("one layer: first build", ALONE),
    "many": Case("by packages: first build", SPLIT),
}
AGAIN = {
    "one-trusted": Case("one layer: again, trusted", {"previous": {"trust": True}}, "one"),
    "one-verified": Case("one layer: again, verified", {"previous": {}}, "one"),
    "many-trusted": Case(
        "by packages: again, trusted", {**SPLIT, "previous": {"trust": True}}, "many"
    ),
    "many-verified": Case("by packages: again, verified", {**SPLIT, "previous": {}}, "many"),
    "many-uncompiled": Case(
        "the same, trusted, no byte code",
        {**SPLIT, "previous": {"trust": True}},
        "many",
        NO_BYTE_CODE,
    ),
    "python": Case("python3 -c pass", ALONE, tool=("python3", "-c", "pass")),
    "version": Case("build-oci --version", ALONE, tool=("build-oci", "--version")),
}
CASES = {**FIRST, **AGAIN}


def element(case: Case, number: int, *options: str) -> dict[str, Any]:
    """The element of CASE in the round NUMBER."""
    depends: list[Any] = ["base.bst", {"filename": "tree.bst", "config": {"layer": "tree"}}]
    image = {"os": "linux", "architecture": "amd64", "layer": "tree", **case.image}
    if case.of:
        depends.append({"filename": f"last-{case.of}.bst", "config": {"previous": "last"}})
        image["previous"] = {"image": "last", **image["previous"]}
    return {
        "kind": "oci_image",
        "build-depends": depends,
        "environment": {"ROUND": str(number)},
        "config": {"tool": ["timed", *case.tool], "options": [*options], "images": [image]},
    }


class Project:
    """A BuildStream project below SCRATCH with a cache of its own."""

    def __init__(self, bst: Path, scratch: Path) -> None:
        self.path = scratch / "project"
        self.scratch = scratch
        self._bst = bst
        (self.path / "elements").mkdir(parents=True)
        plugin = {
            "origin": "local",
            "path": "plugin",
            "elements": ["oci_image"],
        }
        shutil.copytree(REPOSITORY / "buildstream" / "build_oci_buildstream", self.path / "plugin")
        self._write(
            self.path / "project.conf",
            {
                "name": "benchmark",
                "min-version": "2.0",
                "element-path": "elements",
                "plugins": [plugin],
                "environment": {"SOURCE_DATE_EPOCH": EPOCH},
            },
        )
        cache = scratch / "cache"
        self._write(
            scratch / "user.conf",
            {
                "cachedir": f"{cache}",
                "sourcedir": f"{cache}/sources",
                "logdir": f"{scratch}/logs",
                "scheduler": {"builders": 1},
            },
        )

    def imported(self, name: str) -> Path:
        """The directory that the element NAME imports; the caller makes it."""
        source = {"kind": "local", "path": f"files/{name}"}
        self.element(name, {"kind": "import", "sources": [source]})
        return self.path / "files" / name

    def element(self, name: str, document: dict[str, Any]) -> None:
        self._write(self.path / "elements" / f"{name}.bst", document)

    def bst(self, *arguments: str) -> None:
        """Ends the process where it fails."""
        command: list[str | Path] = [
            self._bst,
            "-c",
            self.scratch / "user.conf",
            "--no-colors",
            "--no-interactive",
        ]
        done = subprocess.run(
            [*command, *arguments], cwd=self.path, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(done.stdout + done.stderr)

    def costs(self, cases: dict[str, Case], number: int, *options: str) -> dict[str, Cost]:
        """Builds all of CASES, one after the other."""
        for name, case in cases.items():
            self.element(name, element(case, number, *options))
        shutil.rmtree(self.scratch / "logs", ignore_errors=True)
        self.bst("build", *(f"{name}.bst" for name in cases))
        found = {}
        for name in cases:
            (log,) = (self.scratch / "logs" / "benchmark" / name).glob("*-build*.log")
            (times,) = re.findall(r"build-oci took (\S+) (\S+) (\S+)", log.read_text())
            wall, user, system = map(float, times)
            found[name] = Cost(wall, user + system)
        return found

    def artifact(self, name: str) -> Path:
        """The artifact of the element NAME, in a directory."""
        target = self.scratch / "artifacts" / name
        shutil.rmtree(target, ignore_errors=True)
        self.bst("artifact", "checkout", "--directory", str(target), f"{name}.bst")
        return target

    def _write(self, path: Path, document: dict[str, Any]) -> None:
        path.write_text(json.dumps(document))


def copy_tree(tree: Path, target: Path) -> tuple[int, int]:
    """What BuildStream can hold of TREE, which is not devices; its files and their bytes."""

    def special(folder: str, names: list[str]) -> list[str]:
        modes = {name: os.lstat(os.path.join(folder, name)).st_mode for name in names}
        wanted = (stat.S_ISREG, stat.S_ISDIR, stat.S_ISLNK)
        return [name for name, mode in modes.items() if not any(kind(mode) for kind in wanted)]

    shutil.copytree(tree, target, symlinks=True, ignore=special)
    files = [path for path in target.rglob("*") if path.is_file() and not path.is_symlink()]
    return len(files), sum(path.stat().st_size for path in files)


def layers(layout: Path) -> Any:
    """The layers of the image in LAYOUT: digests, sizes, annotations."""
    index = json.loads((layout / "index.json").read_text())
    digest = index["manifests"][0]["digest"].replace(":", "/")
    return json.loads((layout / "blobs" / digest).read_text())["layers"]


def measure(project: Project, rounds: int) -> dict[str, list[Cost]]:
    """The costs of each case, round by round."""
    project.costs(FIRST, 0)
    for name in FIRST:
        shutil.copytree(project.artifact(name), project.imported(f"last-{name}"))
    found: dict[str, list[Cost]] = {name: [] for name in CASES}
    for number in range(1, rounds + 1):
        for name, cost in project.costs(CASES, number).items():
            found[name].append(cost)
        print(f"round {number} of {rounds}", file=sys.stderr)
    for name, case in AGAIN.items():
        if case.of and layers(project.artifact(name)) != layers(project.artifact(case.of)):
            sys.exit(f"{case.title}: other layers than those of the first build")
    return found


def stages(project: Project, number: int) -> dict[str, dict[str, float]]:
    """Seconds by stage, as build-oci itself tells them, of one more round that does not count."""
    cases = {name: case for name, case in CASES.items() if case.tool == ("build-oci",)}
    project.costs(cases, number, "--metrics", "metrics.json")
    found = {}
    for name in cases:
        metrics = json.loads((project.artifact(name) / "metrics.json").read_text())
        found[name] = {**metrics["images"][0]["stages"], "all": metrics["seconds"]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tree", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scratch", type=Path, help="where the project and BuildStream's cache go")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    tool = REPOSITORY / "tools" / "buildstream"
    said = subprocess.run([tool], stdout=subprocess.PIPE, text=True, check=True).stdout
    bst = Path(said.strip())
    if not bst.is_file():
        sys.exit(said)

    import sandbox_tree

    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        project = Project(bst, Path(scratch))
        base = sandbox_tree.make(project.imported("base"), programs=["bash"], compiled=True)
        timed = base / "usr" / "bin" / "timed"
        timed.write_text(TIMED)
        timed.chmod(0o755)
        count, size = copy_tree(options.tree, project.imported("tree"))
        print(f"{count:,} files, {size / 1e6:.0f} MB; {len(os.sched_getaffinity(0))} CPUs")
        found = measure(project, options.rounds)
        parts = stages(project, options.rounds + 1)
    print(f"{'':32} {'wall':>7} {'least':>7} {'CPU':>7}   s, medians of {options.rounds}")
    for name, costs in found.items():
        wall = [cost.wall for cost in costs]
        cpu = statistics.median(cost.cpu for cost in costs)
        print(
            f"{CASES[name].title:32} {statistics.median(wall):7.2f} {min(wall):7.2f} {cpu:7.2f}  ",
            " ".join(f"{stage} {seconds:.2f}" for stage, seconds in parts.get(name, {}).items()),
        )
    if options.json:
        options.json.write_text(json.dumps({"costs": found, "stages": parts}))


if __name__ == "__main__":
    main()
