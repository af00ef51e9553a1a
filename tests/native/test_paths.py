"""Entries by their paths, and the first bytes of files, against a dict of all paths (contract:
split-components).
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import oracles
import pytest
import trees
from split_trees import ListedPaths

from build_oci._native.diff import Digests, mark_unchanged
from build_oci._native.lower import Lower, TarReader
from build_oci._native.tar import Partition
from build_oci._native.walk import Paths, Tree


def walked(root: Path) -> tuple[Tree, Paths]:
    tree = Tree(os.fsencode(root))
    tree.run()
    return tree, tree.listing().paths


def listed(paths: Paths) -> ListedPaths:
    made = ListedPaths()
    made.extend(paths)
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    trees.materialise(trees.random_tree(random.Random(5), 200), root)
    # Names that are the beginning of each other, with what sorts before a slash.
    for name in ("a", "a!", "a/a", "a/a!/a", "ab/a", "ab/a!/b/c"):
        (root / "near" / name).mkdir(parents=True, exist_ok=True)
        (root / "near" / name / "file").touch()
    return root


def questions(paths: ListedPaths, rng: random.Random) -> list[bytes]:
    """Paths that are there and such that nearly are."""
    nearly = []
    for path in paths:
        nearly += [path + b"/", path + b"/x", b"/" + path, path[:-1], path[1:], path + b"!"]
        nearly += [path.replace(b"/", b"//", 1), b"./" + path, path.rpartition(b"/")[0], path * 3]
    return [*paths, *nearly, b"", b"/", b".", b"..", b"x" * 70_000, b"a/" * 40_000]


def test_paths(root: Path) -> None:
    tree, paths = walked(root)
    expected = listed(paths)
    assert list(paths) == tree.paths() == [paths[number] for number in range(len(paths))]
    with pytest.raises(IndexError):
        paths[len(paths)]
    rng = random.Random(1)
    asked = questions(expected, rng)
    for order in (asked, sorted(asked), rng.sample(asked, len(asked))):
        assert [paths.get(path) for path in order] == [expected.get(path) for path in order]


@pytest.mark.parametrize("skip", [0, 1, 3])
def test_lines(root: Path, skip: int) -> None:
    _, paths = walked(root)
    expected = listed(paths)
    rng = random.Random(skip)
    asked = [path for path in questions(expected, rng) if b"\n" not in path]
    for order in (asked, sorted(asked), rng.sample(asked, len(asked))):
        text = b"".join(b"/12"[:skip] + path + b"\n" for path in order)
        assert paths.find_lines(text, skip) == expected.find_lines(text, skip)
    assert paths.find_lines(b"", skip) == []
    assert paths.find_lines(b"\n\n", skip) == [0, 0]
    assert paths.find_lines(b"/12near"[3 - skip :], skip) == [paths.get(b"near")]


def test_numbers_of_somebody_else(tmp_path: Path) -> None:
    """The diff and the partition put others there: none is told then rather than a wrong one."""
    (tmp_path / "d").mkdir()
    for name in ("a", "d/b", "d/c"):
        (tmp_path / name).write_text(name)
    reader = TarReader(kernel=0)
    reader.feed(oracles.expected_tar(os.fspath(tmp_path), epoch=1, trust_checksum_xattrs=False))
    reader.finish()
    lower = Lower(memory_limit=1 << 20)
    lower.apply(reader)
    (tmp_path / "d" / "c").chmod(0o711)
    tree, paths = walked(tmp_path)
    digests = Digests(tree, kernel=0, threads=2)
    assert digests.hash(0) is None
    digests.finish()
    assert mark_unchanged(tree, lower, epoch=1) == (2, 0)
    for _ in range(2):
        found = [paths.get(path) for path in paths]
        assert all(number in (at, None) for at, number in enumerate(found))
        assert None in found
        Partition(tree)


def test_heads(root: Path) -> None:
    os.mkfifo(root / "fifo")
    _, paths = walked(root)
    before = len(os.listdir("/proc/self/fd"))
    for number in random.Random(2).sample(range(len(paths)), len(paths)):
        path = os.path.join(os.fsencode(root), paths[number])
        if not os.path.isfile(path) or os.path.islink(path):
            assert paths.head(number, 100) is None
            continue
        with open(path, "rb") as file:
            content = file.read()
        for most in (0, 1, len(content) - 1, len(content), len(content) + 1, 1 << 40):
            if most >= 0:
                assert paths.head(number, most) == content[:most]
    with pytest.raises(IndexError):
        paths.head(len(paths), 1)
    paths.close()
    paths.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "change", ["grown", "other", "gone", "link", "fifo", "directory", "moved", "linked"]
)
def test_a_file_that_is_no_longer_what_it_was(tmp_path: Path, change: str) -> None:
    """Whoever asked opens it in another way, which tells what is wrong."""
    file, other = tmp_path / "tree" / "d" / "file", tmp_path / "other"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"content")
    other.write_bytes(b"foreign")
    _, paths = walked(tmp_path / "tree")
    number = paths.get(b"d/file")
    assert number is not None
    if change == "grown":
        file.write_bytes(b"content and more")
    elif change in ("moved", "linked"):
        file.parent.rename(tmp_path / "away")
        if change == "linked":
            file.parent.symlink_to(tmp_path / "away")
    else:
        file.rename(tmp_path / "before")
        if change == "other":
            other.rename(file)
        elif change == "link":
            file.symlink_to(tmp_path / "before")
        elif change == "fifo":
            os.mkfifo(file)
        elif change == "directory":
            file.mkdir()
    assert paths.head(number, 100) is None
    if change == "grown":
        assert paths.head(number, 4) == b"cont"
