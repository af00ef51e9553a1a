"""Runs of the command while something goes wrong, and what must hold afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clients
import pytest
import warm
from places import C_SOURCES
from preload import preload
from warm import SOURCE

# Seconds: a run that takes longer hangs. It waits for the disk, and that for all others: a minute
# was too short on a busy machine.
TIMEOUT = 300
SHIM = C_SOURCES / "faultshim.c"
BIG = 5 << 20  # a file of several segments, with a digest of its own


def fault(
    call: str,
    path: Path | str,
    nth: int = 1,
    *,
    do: str = "",
    error: int = 0,
    happened: Path | None = None,
) -> dict[str, str]:
    """The environment of a run in which, at the NTH time that CALL meets PATH, the shell runs DO or
    the call fails with ERROR.
    """
    env = {**preload(SHIM), "FAULT_CALL": call, "FAULT_PATH": str(path), "FAULT_NTH": str(nth)}
    env |= {"FAULT_DO": do} if do else {"FAULT_ERRNO": str(error)}
    return env | ({"FAULT_HAPPENED": str(happened)} if happened else {})


def quoted(*words: Path | str) -> str:
    return shlex.join(map(str, words))


def command(output: Path, *args: str) -> list[str | Path]:
    return [sys.executable, "-P", "-m", "build_oci", "-o", output, *args]


def environment(**env: str) -> dict[str, str]:
    environ = {**os.environ, "PYTHONPATH": SOURCE}
    environ.pop("SOURCE_DATE_EPOCH", None)
    return environ | env


def run(
    config: clients.Document, output: Path, *args: str, preexec: Any = None, **env: str
) -> tuple[int, str]:
    """Exit status (negative: killed by that signal) and standard error of a run in a process of its
    own, with PREEXEC in a new interpreter; one that hangs fails the test.
    """
    done = warm.run(
        ["-o", output, *args], input=json.dumps(config), env=environment(**env),
        timeout=TIMEOUT, preexec=preexec,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    assert done.stdout == ""
    # Without root every file of a test belongs to who runs it; the tests of that warning read
    # standard error themselves.
    said = (
        done.stderr
        if os.geteuid() == 0
        else re.sub("build-oci: warning: .*: all of it belongs to user .*\n", "", done.stderr)
    )
    return done.returncode, said


def upon(config: clients.Document, parent: Path) -> clients.Document:
    """CONFIG with its images on top of the first one of the layout PARENT."""
    return {
        **config,
        "images": [{**image, "parent": {"image": str(parent)}} for image in config["images"]],
    }


def make_tree(root: Path, large: int = BIG) -> Path:
    """A hundred small files and one of LARGE bytes."""
    (root / "d").mkdir(parents=True)
    for number in range(100):
        (root / "d" / f"{number:03}").write_bytes(os.urandom(9000))
    (root / "d" / "large").write_bytes(os.urandom(large))
    return root


def make_former(path: Path) -> Path:
    """A layout that holds an image without layers, for arm64."""
    assert run({"images": [{"os": "linux", "architecture": "arm64"}]}, path) == (0, "")
    return path


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every path below FOLDER with its content; None for a directory."""
    return {
        name: None if (folder / name).is_dir() else (folder / name).read_bytes()
        for name in names(folder)
    }


@contextlib.contextmanager
def unharmed(output: Path) -> Iterator[None]:
    """contract: layout-atomic. A build that fails leaves the output as it was, and no temporary
    file.
    """
    before = snapshot(output)
    yield
    assert snapshot(output) == before


def check_unbroken(before: dict[str, bytes | None], output: Path) -> None:
    """A build that failed in its commit has left the former index.json and no temporary file; blobs
    that are whole may be new.
    """
    after = snapshot(output)
    assert {name: after.pop(name, None) for name in before} == before
    for name, content in after.items():
        folder, _, digest = name.rpartition("/")
        assert folder == "blobs/sha256"
        assert content is not None
        assert hashlib.sha256(content).hexdigest() == digest


def check_layout(layout: Path) -> int:
    """Holds every blob that index.json reaches against its digest, size and diff_id; the number of
    images. No temporary file is there.
    """
    assert sorted(os.listdir(layout)) == ["blobs", "index.json", "oci-layout"]
    manifests = clients.index_of(layout)["manifests"]
    for number, descriptor in enumerate(manifests):
        assert len(clients.blob(layout, descriptor["digest"])) == descriptor["size"]
        manifest = clients.manifest_of(layout, number)
        for part in (manifest["config"], *manifest["layers"]):
            assert len(clients.blob(layout, part["digest"])) == part["size"]
        clients.layer_tars(layout, number)
    return len(manifests)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, zstd and gzip."""
    folder = tmp_path_factory.mktemp("parent")
    for name, compression in (("below", "gzip"), ("layout", "zstd")):
        tree = make_tree(folder / f"tree-{name}", 400_000)
        config = clients.layer_config(tree, compression=compression)
        if name == "layout":
            config = upon(config, folder / "below")
            config["images"][0]["parent"]["recompress"] = False
        assert run(config, folder / name) == (0, "")
    return folder / "layout"
