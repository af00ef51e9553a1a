"""The native walk against os.walk and the plain-Python order (contract: layer-order,
xattr-bytes).
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import oracles
import pytest
import trees
from preload import need_memory_as_built

from build_oci._native.walk import Tree


def walk(root: Path, threads: int = 3, **options: Any) -> Tree:
    tree = Tree(os.fsencode(root), **options)
    workers = [threading.Thread(target=tree.run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return tree


@pytest.mark.platform
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_same_entries_in_tar_order(tmp_path: Path, threads: int) -> None:
    """contract: layer-order. A directory's entry, its non-directories sorted by bytes, then its
    subdirectories.
    """
    root = tmp_path / "tree"
    root.mkdir()
    trees.materialise(trees.random_tree(random.Random(11), 500), root)
    tree = walk(root, threads)
    sockets = {path for kind, _, _, path in tree.problems() if kind == "socket"}
    expected = [b""]
    for directory, folders, files in os.walk(os.fsencode(root)):
        relative = os.path.relpath(directory, os.fsencode(root))
        expected += [os.path.normpath(os.path.join(relative, name)) for name in folders + files]
    assert sorted(tree.paths()) == sorted(set(expected) - sockets)
    assert len(tree) == len(tree.paths())
    wanted = [os.path.normpath(name) for name, _ in oracles.walk_order(os.fsencode(root))]
    assert [os.path.normpath(b"./" + path) for path in tree.paths()] == [
        name for name in wanted if name not in sockets
    ]


def test_a_link_names_the_root_but_none_below_is_followed(tmp_path: Path) -> None:
    """contract: config-layer-path. "A symlink to a directory is followed, the tree inside never
    is".
    """
    (tmp_path / "tree" / "folder").mkdir(parents=True)
    (tmp_path / "tree" / "folder" / "file").write_text("")
    (tmp_path / "tree" / "link").symlink_to("folder")
    (tmp_path / "named").symlink_to("tree")
    for name in ("named", "named/", "named//."):
        tree = Tree(os.fsencode(tmp_path) + b"/" + name.encode())
        tree.run()
        assert tree.problems() == []
        assert tree.paths() == [b"", b"link", b"folder", b"folder/file"]


def test_problems_are_told(tmp_path: Path) -> None:
    """contract: layer-types (sockets, names of whiteouts), and a root that is none."""
    (tmp_path / ".wh.gone").write_text("")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "s"))
        tree = walk(tmp_path)
    assert [(kind, path) for kind, _, _, path in tree.problems()] == [
        ("whiteout-name", b".wh.gone"),
        ("socket", b"s"),
    ]
    assert tree.paths() == [b"", b".wh.gone"]
    missing = walk(tmp_path / "missing")
    assert [(kind, call, path) for kind, _, call, path in missing.problems()] == [
        ("system", "lstat", b"")
    ]


def test_stop_ends_a_walk(tmp_path: Path) -> None:
    """A walk that was stopped returns from every thread, with less than the whole."""
    for number in range(50):
        (tmp_path / str(number)).mkdir()
    tree = Tree(os.fsencode(tmp_path))
    tree.stop()
    tree.run()
    assert len(tree) == 1


@pytest.mark.once
def test_memory_of_an_entry(tmp_path: Path) -> None:
    """contract: promise-memory. At most 400 bytes an entry, measured on 10,000."""
    need_memory_as_built()
    for number in range(10):
        (tmp_path / str(number)).mkdir()
        for name in range(1000):
            os.mknod(tmp_path / str(number) / f"file-{name:04}")
    script = (
        "import sys; from build_oci._native.walk import Tree; tree = Tree(sys.argv[1].encode());"
        "resident = lambda: int(open('/proc/self/statm').read().split()[1]) * 4096;"
        "before = resident(); tree.run(); print((resident() - before) / len(tree))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 100 < float(done.stdout) <= 400
