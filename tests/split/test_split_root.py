"""Reading the files below a root that say who owns what (contract: split-components): nothing
outside of it is opened.
"""

from __future__ import annotations

import os
from pathlib import Path

from split_trees import DirectoryTree, owners_of
from trees import abilities

from build_oci.split.root import RootFiles
from build_oci.split.tree import TreeIndex

# -- reading below a root


def test_nothing_outside_the_root_is_opened(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("outside")
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "file").write_text("inside")
    (root / "outside").mkdir()
    (root / "outside" / "file").write_text("own")
    for name, target in {
        "up": "..",
        "a/b/up": "../../../../../../outside",
        "absolute": "/outside",
        "a/b/absolute": "/outside",
        "real": str(tmp_path / "outside"),
        "loop": "loop",
        "ring": "ring2/x",
        "ring2": "ring",
        "link": "a/file",
        "self": ".",
        "a/b/c": "../../a/b/../.",
        "file": "a/file",
    }.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "fifo")
    files = RootFiles(str(root))

    def read(path: str) -> bytes | None:
        file = files.open_file(os.fsencode(path))
        if file is None:
            return None
        with os.fdopen(file, "rb") as opened:
            return opened.read()

    tree = TreeIndex(DirectoryTree(root))
    directories = {
        "up": "",
        "a/b/up": "outside",
        "a/b/absolute": "outside",
        "self/self/a": "a",
        "a/b/c": "a",
        "a/b/c/..": "",
        "a/b": "a/b",
    }
    assert {
        path: os.fsdecode(tree.real_directory(os.fsencode(path)) or b"") for path in directories
    } == directories
    assert [
        path
        for path in ("real", "loop", "ring", "ring/x", "link", "gone/..", "fifo")
        if tree.real_directory(path.encode())
    ] == []
    assert tree.paths[tree.find(b"/absolute/./file") or 0] == b"outside/file"
    before = len(os.listdir("/proc/self/fd"))
    inside = {
        "a/file": "inside",
        "./a//file": "inside",
        "self/self/a/file": "inside",
        "a/b/c/file": "inside",
        "a/b/../file": "inside",
    }
    own = [
        "up/outside/file",
        "a/b/absolute/file",
        "a/b/up/file",
        "absolute/file",
        "a/../../outside/file",
    ]
    nothing = [
        "",
        "..",
        "a",
        "gone",
        "gone/x",
        "a/file/x",
        "loop/x",
        "ring/x",
        "link",
        "fifo",
        "real/file",
        "up/secret",
        "a/..",
    ]
    with files:
        assert {path: (read(path) or b"").decode() for path in inside} == inside
        assert {read(path) for path in own} == {b"own"}
        assert [path for path in nothing if read(path) is not None] == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_few_directories_stay_open(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"usr/{number}/deep").mkdir(parents=True)
        (tmp_path / f"usr/{number}/deep/file").write_text(str(number))
    (tmp_path / "usr/link").symlink_to("/usr/7")
    before = len(os.listdir("/proc/self/fd"))
    most = 0
    with RootFiles(str(tmp_path)) as files:
        for number in [*range(50), *range(49, -1, -3), 3, 3]:
            for path in (f"usr/{number}/deep/file", f"usr/link/../{number}/deep/file"):
                file = files.open_file(path.encode())
                assert file is not None
                with os.fdopen(file) as opened:
                    assert opened.read() == str(number)
            most = max(most, len(os.listdir("/proc/self/fd")) - before)
    assert 0 < most < 20
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_directory_of_the_disk(tmp_path: Path) -> None:
    """All of it on real files: directory links, hard links, attributes."""
    (tmp_path / "usr" / "lib").mkdir(parents=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "usr" / "lib" / "a").write_bytes(b"1" * 10)
    os.link(tmp_path / "usr" / "lib" / "a", tmp_path / "usr" / "lib" / "b")
    expected = {"usr/lib/a": "x", "usr/lib/b": "x", "lib": "unclaimed:"}
    assert owners_of(DirectoryTree(tmp_path), {"x": ["lib/a"]})[0] == expected
    if "user" in abilities().xattrs:
        os.setxattr(tmp_path / "usr", "user.component", b"y")
        assert owners_of(DirectoryTree(tmp_path), "xattr")[0]["usr/lib/b"] == "y"
