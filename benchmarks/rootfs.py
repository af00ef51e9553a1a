"""Root file systems made from a seed, one for each thing that can be slow; a pytest plugin with
them as fixtures.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def many_small(root: Path) -> None:
    """4,000 files of 1 KiB, 100 to a directory."""
    generator = random.Random(1)
    for number in range(4000):
        folder = root / f"{number // 100:02}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}").write_bytes(_content(generator, 1024))


def few_large(root: Path) -> None:
    """4 files of 8 MiB."""
    generator = random.Random(2)
    root.mkdir()
    for number in range(4):
        (root / f"large{number}").write_bytes(_content(generator, 8 << 20))


def deep(root: Path) -> None:
    """40 chains of 50 directories, a file in each."""
    for chain in range(40):
        folder = root / f"chain{chain}"
        for level in range(50):
            folder /= f"l{level}"
            folder.mkdir(parents=True)
            (folder / "file").write_bytes(b"%d %d" % (chain, level))


def wide(root: Path) -> None:
    """5,000 empty files in one directory."""
    root.mkdir()
    for number in range(5000):
        (root / f"{number:05}.conf").touch()


def hard_linked(root: Path) -> None:
    """500 files of 16 KiB with 8 names each."""
    generator = random.Random(3)
    for number in range(500):
        first = root / "0" / f"file{number}"
        for copy in range(8):
            name = root / str(copy) / f"file{number}"
            name.parent.mkdir(parents=True, exist_ok=True)
            if copy:
                os.link(first, name)
            else:
                first.write_bytes(_content(generator, 16 << 10))


TREES: dict[str, Callable[[Path], None]] = {
    "many small": many_small,
    "few large": few_large,
    "deep": deep,
    "wide": wide,
    "hard-linked": hard_linked,
}


def change(root: Path) -> None:
    """Another byte at the end of every hundredth file."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    for path in files[::100]:
        with path.open("ab") as file:
            file.write(b"\n")


def _content(generator: random.Random, size: int) -> bytes:
    """Half noise, half text, as a root file system may hold."""
    text = b" ".join(b"word%d" % generator.randrange(1000) for _ in range(size // 12 + 1))
    return (text[: size // 2] + generator.randbytes(size))[:size]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every tree by its name, and `changed`: `many small` with every hundredth file changed."""
    top = tmp_path_factory.mktemp("trees")
    found = {}
    for name, make in TREES.items():
        found[name] = top / name.replace(" ", "-")
        make(found[name])
    found["changed"] = top / "changed"
    shutil.copytree(found["many small"], found["changed"], copy_function=shutil.copy2)
    change(found["changed"])
    return found


@pytest.fixture(params=TREES)
def tree(request: pytest.FixtureRequest, made: dict[str, Path]) -> Path:
    """Each tree in turn."""
    return made[request.param]
