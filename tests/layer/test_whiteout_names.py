"""Whiteouts that meet odd names (contract: diff-own-whiteouts): never two members of one name, and
what a client unpacks is the tree.
"""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import clients
import layouts
import pytest
from faults import run, upon

pytestmark = pytest.mark.platform

WARNED = "stored as it is, but every client will read this name as a whiteout"


def names(layout: Path) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(clients.layer_tars(layout)[-1])) as archive:
        return archive.getnames()


def tree_of(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "d" / "below").mkdir(parents=True)
    for name in ("x", "y", "d/x", "d/y", "d/below/z"):
        (root / name).write_text(name)
    return root


@pytest.fixture
def parent(root: Path, tmp_path: Path) -> Path:
    assert run(clients.layer_config(root), tmp_path / "parent") == (0, "")
    return tmp_path / "parent"


def build(root: Path, parent: Path, output: Path) -> str:
    status, said = run(upon(clients.layer_config(root), parent), output)
    assert status == 0
    return said


@pytest.mark.parametrize("directory", [False, True], ids=["file", "directory"])
def test_the_trees_own_name_is_the_whiteout(
    directory: bool, root: Path, parent: Path, tmp_path: Path
) -> None:
    """The parent's `x` is gone and the tree has a `.wh.x`: clients hide `x` because of it, and a
    second member is forbidden.
    """
    (root / "x").unlink()
    if directory:
        (root / ".wh.x").mkdir()
    else:
        (root / ".wh.x").write_text("")
    assert WARNED in build(root, parent, tmp_path / "out")
    assert names(tmp_path / "out") == [".", ".wh.x" if directory else "./.wh.x"]


def test_what_the_trees_own_name_hides_is_written_anew(
    root: Path, parent: Path, tmp_path: Path
) -> None:
    """`y` is unchanged, but a client would lose it because of the tree's `.wh.y`; and all below
    `d/below` likewise.
    """
    (root / ".wh.y").write_text("")
    (root / "d" / ".wh.below").write_text("")
    assert WARNED in build(root, parent, tmp_path / "out")
    assert names(tmp_path / "out") == [
        ".",
        "./.wh.y",
        "./y",
        "d",
        "d/.wh.below",
        "d/below",
        "d/below/z",
    ]


def test_the_trees_own_opaque_name(root: Path, parent: Path, tmp_path: Path) -> None:
    """`.wh..wh..opq` hides all that the parent has in that directory: all of it is written anew,
    and nothing needs a whiteout.
    """
    (root / "d" / ".wh..wh..opq").write_text("")
    (root / "d" / "y").unlink()
    assert WARNED in build(root, parent, tmp_path / "out")
    assert names(tmp_path / "out") == [".", "d", "d/.wh..wh..opq", "d/x", "d/below", "d/below/z"]


@pytest.fixture
def implicit(tmp_path: Path) -> Path:
    """A parent with whiteouts in directories that none of its layers has, and one below a file."""
    layers = [
        layouts.archive(("a", None), ("a/f", b"f"), ("file", b"x")),
        layouts.archive(("gone/deep/.wh.x", b""), ("a/no/.wh.y", b""), ("a/kept/.wh.y", b"")),
    ]
    layout = layouts.Layout(tmp_path / "parent")
    return layout.index(layouts.image(layout, layers))


def test_directories_that_a_whiteout_made(implicit: Path, tmp_path: Path) -> None:
    """containers/storage makes the directory of a whiteout: what the tree has not of these is
    hidden too.
    """
    root = tmp_path / "root"
    (root / "a" / "kept").mkdir(parents=True)
    (root / "a" / "f").write_text("f")
    (root / "file").write_text("x")
    assert build(root, implicit, tmp_path / "out") == ""
    found = names(tmp_path / "out")
    assert {"./.wh.gone", "a/.wh.no", "a/kept"} <= set(found)
    assert not {name for name in found if "gone/" in name or "a/no/" in name}


@pytest.mark.clients
def test_what_buildah_unpacks(implicit: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "a" / "f").write_text("f")
    (root / "file").write_text("x")
    build(root, implicit, tmp_path / "out")
    with clients.buildah_mount(tmp_path / "out", tmp_path / "scratch") as unpacked:
        assert tree_of(unpacked) == tree_of(root)


@pytest.mark.clients
def test_what_umoci_unpacks(implicit: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "a" / "f").write_text("f")
    (root / "file").write_text("x")
    assert run(
        upon(clients.layer_config(root, compression="gzip"), implicit), tmp_path / "out"
    ) == (0, "")
    assert tree_of(clients.umoci_unpack(tmp_path / "out", tmp_path / "bundle")) == tree_of(root)


@pytest.mark.parametrize("seconds", [-(2**63), -(2**63) + 1, -1, 2**63 - 1])
def test_times_at_the_edge(seconds: int, tmp_path: Path) -> None:
    """contract: layer-times. A time that the file system holds is written, and can be read again by
    `verify` and as a parent.
    """
    root = tmp_path / "root"
    root.mkdir()
    (root / "f").write_text("f")
    shm = Path("/dev/shm")
    if not shm.is_dir() or not os.access(shm, os.W_OK):
        pytest.skip("no tmpfs, which holds any time")
    import ctypes
    import tempfile

    with tempfile.TemporaryDirectory(dir=shm) as folder:
        path = Path(folder) / "f"
        path.write_text("f")
        times = (ctypes.c_long * 4)(0, 0, seconds, 0)
        assert ctypes.CDLL(None, use_errno=True).utimensat(-100, os.fsencode(path), times, 0) == 0
        if path.stat().st_mtime_ns != seconds * 10**9:
            pytest.skip("this file system does not hold the time")
        config = clients.layer_config(Path(folder))
        assert run(config, tmp_path / "out") == (0, "")
        clients.run(*verify(tmp_path / "out"))
        again = tmp_path / "again"
        assert run(upon(config, tmp_path / "out"), again) == (0, "")
        assert names(again) == ["."]


def verify(layout: Path) -> list[str | Path]:
    import sys

    return [sys.executable, "-P", "-m", "build_oci", "verify", layout]
