"""Trees that change while they are packed (contract: promise-nothing-lost): one clear error that
names the file, never a hang, never what lies outside."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import clients
import oracles
import pytest
from faults import check_layout, fault, quoted, run, unharmed, upon

pytestmark = pytest.mark.once

SECRET = b"this lies outside the tree " * 40_000
SMALL, MEDIUM, LARGE = "020", "medium", "large"  # in a batch; of two segments; of many

# What becomes of the file F. O is another one of the same size and time, outside the tree; P is
# Python.
CHANGES = {
    "grow": "printf x >> {F}",
    "shrink": "truncate -s -1 {F}",
    "empty": "truncate -s 0 {F}",
    "vanish": "rm {F}",
    "symlink": "rm {F}; ln -s {O} {F}",
    "fifo": "rm {F}; mkfifo {F}",
    "directory": "rm {F}; mkdir {F}",
    "socket": (
        "rm {F}; {P} -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' {F}"
    ),
    "replace": "mv {O} {F}",
    "touch": "touch {F}",
    "rewrite": "printf x | dd of={F} conv=notrunc status=none",
}
# Another process maps the file, and its write shows in no time of it.
UNSEEN = "printf x | dd of={F} conv=notrunc status=none; touch -r {O} {F}"

# The file, the call before which it changes, and at which one. Between walk and read; while it is
# read; once its digest is known.
MOMENTS = [
    (SMALL, "open", 1),
    (SMALL, "read", 1),
    (MEDIUM, "open", 1),
    (MEDIUM, "open", 2),
    (LARGE, "open", 2),
    (LARGE, "read", 20),
    (LARGE, "read", 42),
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "d").mkdir(parents=True)
    (root / "e").mkdir()
    (root / "e" / "kept").write_bytes(b"kept")
    for number in range(40):
        (root / "d" / f"{number:03}").write_bytes(os.urandom(9000))
    (root / "d" / MEDIUM).write_bytes(os.urandom((1 << 20) + 12_345))
    (root / "d" / LARGE).write_bytes(os.urandom((5 << 20) - 1))
    return root


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parent that holds another `d/020` and none of the other files."""
    root = tmp_path_factory.mktemp("parent")
    (root / "tree" / "d").mkdir(parents=True)
    (root / "tree" / "d" / SMALL).write_bytes(b"former")
    assert run(clients.layer_config(root / "tree"), root / "layout") == (0, "")
    return root / "layout"


def alternately(first: list[Any], second: list[Any]) -> list[Any]:
    """Every pair of the two, flattened, each with yes or no: everyone in FIRST and in SECOND meets
    both.
    """
    pairs = [
        (one, other, (i + j) % 2 == 1)
        for i, one in enumerate(first)
        for j, other in enumerate(second)
    ]
    return [
        pytest.param(
            one,
            *other,
            on_parent,
            id=f"{one}-{'-'.join(map(str, other))}{'-on-parent' * on_parent}",
        )
        for one, other, on_parent in pairs
    ]


@pytest.mark.parametrize(
    ("change", "name", "call", "nth", "on_parent"), alternately(list(CHANGES), MOMENTS)
)
def test_file_changes(
    change: str,
    name: str,
    call: str,
    nth: int,
    on_parent: bool,
    tree: Path,
    parent: Path,
    output: Path,
    tmp_path: Path,
) -> None:
    path, other = tree / "d" / name, tmp_path / "other"
    other.write_bytes(SECRET.ljust(path.stat().st_size, b".")[: path.stat().st_size])
    shutil.copystat(path, other)
    # Not all of them with all of these: they have little to do with each other.
    compression = ["zstd", "disabled", "gzip"][(list(CHANGES).index(change) + nth + on_parent) % 3]
    config = clients.layer_config(tree, compression=compression)
    do = CHANGES[change].format(F=quoted(path), O=quoted(other), P=quoted(sys.executable))
    happened = tmp_path / "happened"
    with unharmed(output):
        status, said = run(
            upon(config, parent) if on_parent else config,
            output,
            "-j2",
            **fault(call, path, nth, do=do, happened=happened),
        )
    assert happened.exists()
    assert status == 1
    assert (
        said
        == f"build-oci: error: {path}: changed while it was being read\nhint: nothing may write to"
        " the tree during a build\n"
    )


@pytest.mark.parametrize("on_parent", [False, True], ids=["alone", "on-parent"])
@pytest.mark.parametrize(("call", "nth"), [("open", 2), ("read", 2)])
@pytest.mark.parametrize("change", ["shrink", "symlink", "replace", "rewrite", "unseen"])
def test_small_file_changes_after_its_digest(
    change: str,
    call: str,
    nth: int,
    on_parent: bool,
    tree: Path,
    parent: Path,
    output: Path,
    tmp_path: Path,
) -> None:
    """On a parent a small file is hashed first and read again when it is packed; alone, it is read
    once and nothing happens.
    """
    path, other = tree / "d" / SMALL, tmp_path / "other"
    shutil.copy2(path, other)
    happened = tmp_path / "happened"
    config = clients.layer_config(tree)
    do = CHANGES.get(change, UNSEEN).format(
        F=quoted(path), O=quoted(other), P=quoted(sys.executable)
    )
    status, said = run(
        upon(config, parent) if on_parent else config,
        output,
        **fault(call, path, nth, do=do, happened=happened),
    )
    assert happened.exists() == on_parent
    assert status == on_parent
    assert said.startswith(
        f"build-oci: error: {path}: changed while it was being read\n" if on_parent else ""
    )
    check_layout(output)


WALKS = [
    ("open", "d", 1),
    ("readdir", "d", 1),
    ("readdir", "d", 9),
    ("stat", "d/*", 5),
    ("open", "d", 2),
]


@pytest.mark.parametrize(
    ("change", "call", "target", "nth", "on_parent"),
    alternately(["vanish", "symlink", "file", "moved"], WALKS),
)
def test_directory_changes(
    change: str,
    call: str,
    target: str,
    nth: int,
    on_parent: bool,
    tree: Path,
    parent: Path,
    output: Path,
    tmp_path: Path,
) -> None:
    """While the tree is walked and after; a directory that was open when it was moved away may
    still be read: it is what the walk found.
    """
    folder, outside, away = tree / "d", tmp_path / "outside", tmp_path / "away"
    outside.mkdir()
    for name in os.listdir(folder):
        (outside / name).write_bytes(SECRET[:9000])
        shutil.copystat(folder / name, outside / name)
    expected = oracles.expected_tar(tree)
    do = {
        "vanish": quoted("rm", "-r", folder),
        "symlink": f"{quoted('mv', folder, away)}; {quoted('ln', '-s', outside, folder)}",
        "file": f"{quoted('rm', '-r', folder)}; {quoted('touch', folder)}",
        "moved": f"{quoted('mv', folder, away)}; {quoted('cp', '-a', outside, folder)}",
    }[change]
    happened = tmp_path / "happened"
    config = clients.layer_config(tree, compression="disabled")
    faults = fault(call, tree / target, nth, do=do, happened=happened)
    status, said = run(upon(config, parent) if on_parent else config, output, "-j2", **faults)
    assert happened.exists()
    assert check_layout(output) == 1
    if status == 0:
        assert change in ("symlink", "moved")
        layer = clients.layer_tars(output)[-1]
        assert on_parent or layer == expected
        assert SECRET[:1000] not in layer
    else:
        assert status == 1
        assert said.startswith(f"build-oci: error: {folder}")
        assert ": changed while it was being read" in said
        assert clients.index_of(output)["manifests"][0]["platform"]["architecture"] == "arm64"
