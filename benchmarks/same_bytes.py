"""Holds the layouts of two installed versions against each other, byte by byte.

    python benchmarks/same_bytes.py --other PYTHON [--trees N] [--only WORD] [--set KEY=JSON]
        [--expect REGEX] [--scratch DIR]

PYTHON is an interpreter that has the other build-oci installed. Both build the same seeded trees
with every codec at several levels, upon parents, split, and as several images. Printed is a line a
layout: `same`, `same but for what is expected`, or what differs, document by document. The exit
status is 1 if anything does. --set adds a key to every configuration. --expect names differences
that a change of the contract explains, such as `config .: history`; what follows from one (the
digest of a document that differs) is none of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rootfs import TREES, change

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "support"))
EPOCH = "1700000000"
MODES: dict[str, dict[str, Any]] = {
    "zstd 1": {"compression-level": 1},
    "zstd 3": {},
    "zstd 9": {"compression-level": 9},
    "zstd 19": {"compression-level": 19},
    "gzip 1": {"compression": "gzip", "compression-level": 1},
    "gzip 5": {"compression": "gzip"},
    "gzip 9": {"compression": "gzip", "compression-level": 9},
    "disabled": {"compression": "disabled"},
}
CHUNKED = {"zstd:chunked": {"compression": "zstd:chunked"}}
TWO = {"gzip and zstd": {"compression": ["gzip", "zstd"]}}
COMPONENTS = {letter: [f"**/*{letter}*"] for letter in "024"}


class Case(NamedTuple):
    """A configuration, and how it is built. upon: the name of the case that made its parent."""

    name: str
    config: dict[str, Any]
    arguments: tuple[str, ...] = ("-j2",)
    upon: str = ""


def image(**settings: Any) -> dict[str, Any]:
    return {"architecture": "amd64", "os": "linux", **settings}


def trees(scratch: Path, odd: int) -> Iterator[tuple[str, Path]]:
    """Seeded trees by name: those of the benchmarks, and ODD ones with every kind of entry."""
    for name, make in TREES.items():
        make(scratch / name)
        yield name, scratch / name
    from trees import materialise, random_tree

    for seed in range(odd):
        root = scratch / f"odd {seed}"
        root.mkdir()
        materialise(random_tree(random.Random(seed), 150), root)
        yield root.name, root


def cases(made: dict[str, Path], changed: Path) -> Iterator[Case]:
    for name, root in made.items():
        modes = MODES | (CHUNKED | TWO if name in ("many small", "odd 0") else {})
        for mode, settings in modes.items():
            yield Case(f"{name}, {mode}", {**settings, "images": [image(layer=str(root))]})
    small = made["many small"]
    for mode in ("zstd 3", "gzip 5", "disabled"):
        for below in ("zstd 3", "gzip 5", "disabled"):
            yield Case(
                f"changed upon {below}, {mode}",
                {**MODES[mode], "images": [image(layer=str(changed))]},
                upon=f"many small, {below}",
            )
    split = {"components": [{"paths": COMPONENTS}], "max-layers": 6}
    yield Case("split", {"images": [image(layer=str(small), split=split)]})
    both = [image(layer=str(small)), image(layer=str(changed), variant="v8", author="me")]
    yield Case("two images", {"images": both, "annotations": {"a": "b"}})
    config = {"config": {"Env": ["A=b"], "Labels": {"x": "y"}}, "comment": "c"}
    yield Case("image config", {"images": [image(**config), image(layer=str(small), **config)]})
    yield Case(
        "options",
        {
            "hardlinks": "copy",
            "skip-xattrs": True,
            "images": [image(layer=str(made["hard-linked"]), owner="1:2", exclude=["**/0"])],
        },
        ("-j1",),
    )


def built(python: str, case: Case, out: Path, layouts: Path) -> str:
    """The layout OUT of CASE; returns what the command says if it fails."""
    config = json.loads(json.dumps(case.config))
    if case.upon:
        for one in config["images"]:
            one["parent"] = {"image": str(layouts / case.upon)}
    done = subprocess.run(
        [python, "-P", "-m", "build_oci", "-q", *case.arguments, "-o", str(out)],
        input=json.dumps(config),
        env=os.environ | {"SOURCE_DATE_EPOCH": EPOCH},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr if done.returncode else ""


def files(layout: Path) -> dict[str, str]:
    return {
        str(path.relative_to(layout)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(layout.rglob("*"))
        if path.is_file()
    }


def document(layout: Path, descriptor: dict[str, Any]) -> dict[str, Any]:
    path = layout / "blobs" / descriptor["digest"].replace(":", "/")
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def documents(layout: Path) -> dict[str, Any]:
    """All documents of LAYOUT, each by what it is; of a layer its descriptor. A descriptor of
    another document says nothing here of that one's bytes.
    """
    index = json.loads((layout / "index.json").read_bytes())
    found: dict[str, Any] = {"index": index}
    for number, descriptor in enumerate(index["manifests"]):
        manifest = document(layout, descriptor)
        found[f"manifest {number}"] = manifest
        found[f"config {number}"] = document(layout, manifest["config"])
        for layer, one in enumerate(manifest.pop("layers")):
            found[f"layer {number}.{layer}"] = one
        for one in (descriptor, manifest["config"]):
            del one["digest"], one["size"]
    return found


def differences(a: Any, b: Any, path: str = "") -> Iterator[str]:
    """Every place in which the documents A and B differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            yield from differences(a.get(key), b.get(key), f"{path}.{key}".lstrip("."))
        if list(a) != list(b) and a.keys() == b.keys():
            yield f"{path}: the order of its keys"
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from differences(x, y, f"{path}[{number}]")
    elif a != b:
        yield f"{path}: {json.dumps(a)[:100]} here, {json.dumps(b)[:100]} there"


def compared(ours: Path, others: Path) -> list[str]:
    """In what the two layouts differ."""
    if files(ours) == files(others):
        return []
    a, b = documents(ours), documents(others)
    found = [
        f"{name}: {line}"
        for name in sorted(a.keys() | b.keys())
        for line in differences(a.get(name), b.get(name))
    ]
    return found or ["the bytes of a document's text, or a file that no document names"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--other", required=True, help="an interpreter with another build-oci")
    parser.add_argument("--trees", type=int, default=4, help="how many odd trees (default: 4)")
    parser.add_argument("--only", default="", help="only the cases whose name has this in it")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=JSON")
    parser.add_argument("--expect", action="append", default=[], metavar="REGEX")
    parser.add_argument("--scratch", type=Path, help="where trees and layouts go")
    options = parser.parse_args()
    settings = [one.split("=", 1) for one in options.set]
    different = 0
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        scratch = Path(folder)
        (scratch / "trees").mkdir()
        made = dict(trees(scratch / "trees", options.trees))
        changed = scratch / "trees" / "changed"
        subprocess.run(["cp", "-a", str(made["many small"]), str(changed)], check=True)
        change(changed)
        for case in cases(made, changed):
            if options.only not in case.name:
                continue
            case.config.update((key, json.loads(value)) for key, value in settings)
            outputs = [scratch / side / case.name for side in ("ours", "other")]
            said = [
                built(python, case, out, scratch / "ours")
                for python, out in zip((sys.executable, options.other), outputs, strict=True)
            ]
            if any(said):
                found = [
                    f"{side}: {text}"
                    for side, text in zip(("ours", "other"), said, strict=True)
                    if text
                ]
            else:
                found = compared(*outputs)
            left = [line for line in found if not any(re.match(x, line) for x in options.expect)]
            different += bool(left)
            expected = "same but for what is expected" if found else "same"
            print(f"{case.name}: {'DIFFERENT' if left else expected}", flush=True)
            for line in left[:20]:
                print(f"    {line.rstrip()}")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
