"""Building again with `previous`: a first build, the same tree again, and after an update. `python
benchmarks/previous.py TREE [UPDATED]`.

Without UPDATED, some files of a copy of TREE are changed instead: a file in every fortieth of its
directories. Each build is a process; the best of ROUNDS counts. Prints seconds, and how much of the
first build's that is.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROUNDS = 3
# As an installed package, whose modules are compiled once. To compile them at each start takes
# 0.25 s.
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
} | {"SOURCE_DATE_EPOCH": "1700000000"}


def config(tree: Path, previous: dict[str, Any] | None, *, trust_digests: bool) -> str:
    image: dict[str, Any] = {
        "os": "linux",
        "architecture": "amd64",
        "layer": os.fspath(tree),
        "split": {"max-layers": 120, "unclaimed": "ignore"},
    }
    if previous:
        image["previous"] = previous
    return json.dumps({"trust-checksum-xattrs": trust_digests, "images": [image]})


class Cost(NamedTuple):
    """Seconds: by the clock, and of all CPUs, which tell more where others use the machine as
    well.
    """

    wall: float
    cpu: float


def measure(document: str, output: Path) -> Cost:
    """The least of some builds."""
    best = Cost(float("inf"), float("inf"))
    for _ in range(ROUNDS):
        shutil.rmtree(output, ignore_errors=True)
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "build_oci", "--no-sync", "-o", os.fspath(output)]
        subprocess.run(
            command,
            input=document,
            text=True,
            check=True,
            env=ENVIRONMENT,
            stderr=subprocess.DEVNULL,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        best = Cost(min(best.wall, time.perf_counter() - started), min(best.cpu, cpu))
    return best


def with_digests(tree: Path) -> None:
    """Give every file of TREE the attribute that tells its digest."""
    for directory, _, names in os.walk(tree):
        for name in names:
            path = os.path.join(directory, name)
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as file:
                    os.setxattr(
                        path,
                        "user.checksum.sha256",
                        hashlib.file_digest(file, "sha256").hexdigest().encode(),
                    )


def update(tree: Path) -> None:
    """Change a file in every fortieth directory of TREE."""
    for number, (directory, _, names) in enumerate(sorted(os.walk(tree))):
        files = [
            path
            for path in (os.path.join(directory, name) for name in names)
            if os.path.isfile(path) and not os.path.islink(path)
        ]
        if number % 40 == 0 and files:
            with open(min(files), "ab") as file:
                file.write(b"updated")


def main() -> None:
    tree = Path(sys.argv[1])
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as scratch:
        first, updated = (
            Path(scratch, "first"),
            Path(sys.argv[2]) if len(sys.argv) > 2 else Path(scratch, "updated"),
        )
        if len(sys.argv) < 3:
            subprocess.run(["cp", "-a", tree, updated], check=True)
            update(updated)
        again = Path(scratch, "again")
        known = Path(scratch, "known")
        subprocess.run(["cp", "-a", tree, known], check=True)
        with_digests(known)
        verified = {"image": os.fspath(first)}
        trusted = verified | {"trust": True}
        results = {
            "first build": measure(config(tree, None, trust_digests=False), first),
            "again, verified": measure(config(tree, verified, trust_digests=False), again),
            "again, trusted": measure(config(tree, trusted, trust_digests=False), again),
            "again, trusted, digests known": measure(
                config(known, trusted, trust_digests=True), again
            ),
        }
        with_digests(first)  # which those below do not believe
        results |= {
            "the same, of blobs as well": measure(
                config(known, trusted, trust_digests=True), again
            ),
            "updated, without previous": measure(config(updated, None, trust_digests=False), again),
            "updated, verified": measure(config(updated, verified, trust_digests=False), again),
            "updated, trusted": measure(config(updated, trusted, trust_digests=False), again),
        }
        base = results["first build"]
        for name, cost in results.items():
            print(
                f"{name:32} {cost.wall:7.2f} s {cost.wall / base.wall:5.2f}   CPU {cost.cpu:7.2f} s"
                f" {cost.cpu / base.cpu:5.2f}"
            )


if __name__ == "__main__":
    main()
