"""A parent of as many levels of directories as a tree may have (contract: promise-memory,
diff-merge): 64 MiB and 400 bytes a member are enough for its names."""

from __future__ import annotations

import io
import itertools
import os
import random
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import archives
import clients
import pytest
from parents import built, hand_made, image_of, top_layer

pytestmark = pytest.mark.once

LEVELS = 10_000


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """The tree, and a descriptor of its lowest directory, which has two files."""
    root = tmp_path_factory.mktemp("deep") / "tree"
    root.mkdir()
    fd = os.open(root, os.O_RDONLY)
    for _ in range(LEVELS):
        os.mkdir("d", dir_fd=fd)
        above, fd = fd, os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(above)
    for name in ("changed", "same"):
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=fd))
    yield root, fd
    os.close(fd)
    # Python's own removal recurses.
    subprocess.run(["rm", "-r", root], check=True)


@pytest.fixture(scope="module")
def parent(deep: tuple[Path, int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("parent") / "layout", image_of(deep[0]), epoch=1)


def test_unchanged(deep: tuple[Path, int], parent: Path, tmp_path: Path) -> None:
    layout = built(tmp_path / "layout", image_of(deep[0], parent), epoch=1)
    assert top_layer(layout) == ["."]


def test_a_change_at_the_bottom(deep: tuple[Path, int], parent: Path, tmp_path: Path) -> None:
    """With the directories that lead to it, and nothing else."""
    root, lowest = deep
    os.chmod("changed", 0o600, dir_fd=lowest)
    layout = built(tmp_path / "layout", image_of(root, parent), epoch=1)
    names = [name.removeprefix("./") for name in top_layer(layout)]
    assert names == [
        ".",
        *("/".join("d" * level) for level in range(1, LEVELS + 1)),
        "d/" * LEVELS + "changed",
    ]


@pytest.mark.parametrize("seed", range(8))
def test_members_in_any_order(seed: int, tmp_path: Path) -> None:
    """contract: diff-merge. The directory of a member is found wherever the member before was."""
    tree = tmp_path / "tree"
    for folder in ("aa", "ab", "aa/bb", "ab/bb", "aa/bb/c", "ba"):
        (tree / folder).mkdir(parents=True)
        for name in ("f", "g"):
            (tree / folder / name).write_text(f"{folder}/{name}")
    (tar,) = clients.layer_tars(built(tmp_path / "whole", image_of(tree), epoch=1))
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        starts = [member.offset for member in archive]
        end = archive.offset
    members = [tar[start:stop] for start, stop in itertools.pairwise([*starts, end])]
    random.Random(seed).shuffle(members)
    parent = hand_made(tmp_path / "parent", b"".join(members) + archives.END)
    assert top_layer(built(tmp_path / "layout", image_of(tree, parent), epoch=1)) == ["."]
