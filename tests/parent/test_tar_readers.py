"""Our reader of archives against Go's archive/tar, which all container clients use (contract:
diff-in-doubt). BUILD_OCI_SEED and BUILD_OCI_ARCHIVES ask for other archives and for more of them.
"""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import stat
import struct
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import clients
import odd_members
import oracles
import pytest
from archives import BLOCK, END

from build_oci._native.lower import TarReader

pytestmark = pytest.mark.platform

SOURCE = Path(__file__).parents[1] / "go" / "tarlist"


@pytest.fixture(scope="session")
def tarlist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go program, built once."""
    program = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if program is None:
        pytest.skip("go is not installed")
    scratch = tmp_path_factory.mktemp("tarlist")
    environment = {
        **os.environ,
        "GOCACHE": str(scratch / "cache"),
        "GOFLAGS": "-mod=mod",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
    }
    if cache := os.environ.get("GOCACHE") or (
        str(Path.home() / ".cache" / "go-build") if Path.home().is_dir() else ""
    ):
        environment["GOCACHE"] = cache
    clients.run(
        program, "build", "-C", str(SOURCE), "-o", str(scratch / "tarlist"), ".", env=environment
    )
    return scratch / "tarlist"


def read_by_us(tar: bytes) -> list[dict[str, Any]] | str:
    reader = TarReader(memory_limit=1 << 24)
    try:
        reader.feed(tar)
        reader.finish()
    except ValueError as error:
        return str(error)
    return [dict(member) for member in reader.members()]


def read_by_go(tarlist: Path, tars: list[bytes]) -> list[dict[str, Any]]:
    data = b"".join(struct.pack(">Q", len(tar)) + tar for tar in tars)
    lines = subprocess.run(
        [tarlist], input=data, capture_output=True, check=True
    ).stdout.splitlines()
    return [json.loads(line) for line in lines]


def as_ours(found: dict[str, Any]) -> dict[str, Any]:
    """A member that Go found, in the terms of TarReader.members()."""
    kinds = {
        "0": stat.S_IFREG,
        "1": stat.S_IFREG,
        "2": stat.S_IFLNK,
        "3": stat.S_IFCHR,
        "4": stat.S_IFBLK,
        "5": stat.S_IFDIR,
        "6": stat.S_IFIFO,
    }
    kind = found["Type"]
    name = oracles.normalised(os.fsdecode(base64.b64decode(found["Name"])))
    target = base64.b64decode(found["Target"])
    xattrs = {
        base64.b64decode(name): base64.b64decode(value) for name, value in found["Xattrs"].items()
    }
    return {
        "name": b"" if name == b"." else name,
        "target": (
            oracles.normalised(os.fsdecode(target))
            if kind == "1"
            else target
            if kind == "2"
            else None
        ),
        "hard_link": kind == "1",
        "mode": kinds.get(kind, 0) | found["Mode"] & 0o7777,
        "uid": found["UID"],
        "gid": found["GID"],
        "size": found["Size"] if kind == "0" else 0,
        "rdev": os.makedev(found["Major"], found["Minor"]) if kind in "34" else 0,
        "mtime_ns": found["Seconds"] * 10**9 + found["Nanoseconds"],
        "digest": bytes.fromhex(found["Digest"]) if kind == "0" else None,
        "xattrs": sorted(
            (name, value)
            for name, value in xattrs.items()
            if not oracles.is_excluded(os.fsdecode(name))
        ),
    }


def difference(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str:
    """What the two readers disagree about and we do not mark, or nothing."""
    theirs = [member for member in theirs if member["Type"] != "g"]
    if len(ours) != len(theirs):
        return f"{len(ours)} members, {len(theirs)} in Go"
    for our, found in zip(ours, theirs, strict=True):
        their = as_ours(found)
        for field, value in their.items():
            mine = our[field]
            if field == "xattrs":  # Go drops empty ones, whoever wrote them: docs/fidelity.md
                mine = [(name, data) for name, data in mine if data]
            if mine != value and not (our["ambiguous"] and field == "xattrs"):
                return f"{field}: {mine!r}, in Go {value!r}"
    return ""


def test_same_as_go(tarlist: Path) -> None:
    """Of what we take, Go reads the same, or refuses it (then no client unpacks the parent), or the
    member is marked as ambiguous.
    """
    rng = random.Random(int(os.environ.get("BUILD_OCI_SEED", "1")))
    size = int(os.environ.get("BUILD_OCI_ARCHIVES", "5000"))
    tars = [
        b"".join(odd_members.random_member(rng) for _ in range(rng.choice([1, 1, 2, 3]))) + END
        for _ in range(size)
    ]
    counts: Counter[str] = Counter()
    for tar, theirs in zip(tars, read_by_go(tarlist, tars), strict=True):
        ours = read_by_us(tar)
        if isinstance(ours, str):
            counts["refused"] += 1
        elif theirs["Error"]:
            counts["refused by Go"] += 1
        else:
            counts["marked" if any(member["ambiguous"] for member in ours) else "same"] += 1
            assert difference(ours, theirs["Members"] or []) == "", tar
    assert counts["same"] > size // 10, counts
    assert counts["marked"] > size // 250, counts
    assert counts["refused by Go"] < size // 5, counts
    assert len(tars[0]) % BLOCK == 0
