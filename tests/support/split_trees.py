"""Trees as the sources of components see them: of a directory, and of a dict."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from build_oci._native.walk import Tree
from build_oci.config.model import ComponentSource, SplitConfig
from build_oci.errors import BuildOciError
from build_oci.split.component import NO_OWNER
from build_oci.split.components import Ownership, find_owners
from build_oci.split.root import RootFiles
from build_oci.split.tree import TreeView


class ListedPaths(list[bytes]):
    """build_oci.split.tree.Paths, said in a few lines."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[bytes, int] = {}

    def get(self, path: bytes) -> int | None:
        if len(self._numbers) != len(self):
            self._numbers = {path: number for number, path in enumerate(self)}
        return self._numbers.get(path)

    def find_lines(self, text: bytes, skip: int) -> list[int | None]:
        return [self.get(line[skip:]) for line in text.split(b"\n")[: text.count(b"\n")]]

    def head(self, number: int, most: int) -> bytes | None:
        return None


class DirectoryTree(RootFiles):
    """The TreeView of a directory, by os.scandir."""

    def __init__(self, root: Path | str) -> None:
        super().__init__(str(root))
        self.paths = ListedPaths()
        self.directories = bytearray()
        self.sizes: list[int] = []
        self.links: list[int] = []
        self.symlinks: dict[bytes, bytes] = {}
        self.components: dict[int, bytes] = {}
        self.intervals: dict[int, bytes] = {}
        self._groups: dict[tuple[int, int], int] = {}
        self._add(b"", os.stat(root))
        self._walk(b"")
        seen = Counter(self.links)
        self.links = [group if seen[group] > 1 else 0 for group in self.links]

    def _walk(self, directory: bytes) -> None:
        here = os.path.join(os.fsencode(self.root), directory)
        names = sorted(os.listdir(here))
        below = []
        for name in names:
            path = directory + b"/" + name if directory else name
            found = os.lstat(os.path.join(here, name))
            if stat.S_ISDIR(found.st_mode):
                below.append((path, found))
            else:
                self._add(path, found)
        for path, found in below:
            self._add(path, found)
            self._walk(path)

    def _add(self, path: bytes, found: os.stat_result) -> None:
        whole = os.path.join(os.fsencode(self.root), path) if path else os.fsencode(self.root)
        index = len(self.paths)
        self.paths.append(path)
        self.directories.append(stat.S_ISDIR(found.st_mode))
        self.sizes.append(found.st_size if stat.S_ISREG(found.st_mode) else 0)
        shared = stat.S_ISREG(found.st_mode) and found.st_nlink > 1
        self.links.append(
            self._groups.setdefault((found.st_dev, found.st_ino), len(self._groups) + 1)
            if shared
            else 0
        )
        if stat.S_ISLNK(found.st_mode):
            self.symlinks[path] = os.readlink(whole)
        else:
            for name, values in (
                ("user.component", self.components),
                ("user.update-interval", self.intervals),
            ):
                try:
                    values[index] = os.getxattr(whole, name, follow_symlinks=False)
                except OSError:
                    continue


class WalkedTree(RootFiles):
    """The TreeView of a directory that is walked natively."""

    def __init__(self, root: Path | str) -> None:
        super().__init__(str(root))
        tree = Tree(os.fsencode(root))
        tree.run()
        listing = tree.listing()
        self.paths = listing.paths
        self.directories, self.sizes, self.links = (
            listing.directories,
            listing.sizes,
            listing.links,
        )
        self.symlinks = listing.symlinks
        self.components, self.intervals = listing.components, listing.intervals


class DictTree:
    """The TreeView of files that are bytes, of symbolic links that are strings, and of their
    directories.
    """

    root = "/tree"

    def __init__(
        self, files: Mapping[str, bytes | str], *, links: Iterable[Iterable[str]] = ()
    ) -> None:
        self.files = {name.encode(): content for name, content in files.items()}
        known = {b""} | {
            b"/".join(parts[:end])
            for parts in (path.split(b"/") for path in self.files)
            for end in range(1, len(parts))
        }
        self.paths = ListedPaths()
        self._order(b"", known, set(self.files))
        self.directories = bytes(path in known for path in self.paths)
        contents = [self.files.get(path, b"") for path in self.paths]
        self.sizes = [len(content) if isinstance(content, bytes) else 0 for content in contents]
        groups = {name.encode(): number for number, names in enumerate(links, 1) for name in names}
        self.links = [groups.get(path, 0) for path in self.paths]
        self.symlinks = {
            path: content.encode()
            for path, content in self.files.items()
            if isinstance(content, str)
        }
        self.components: dict[int, bytes] = {}
        self.intervals: dict[int, bytes] = {}

    def _order(self, directory: bytes, directories: set[bytes], files: set[bytes]) -> None:
        def inside(path: bytes) -> bool:
            return path != b"" and path.rpartition(b"/")[0] == directory

        self.paths.append(directory)
        self.paths += sorted(path for path in files if inside(path))
        for path in sorted(path for path in directories if inside(path)):
            self._order(path, directories, files)

    def write(self, root: Path) -> None:
        """Make it the directory ROOT."""
        for path, content in self.files.items():
            target = root / os.fsdecode(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                target.symlink_to(content)
            else:
                target.write_bytes(content)

    def open_file(self, path: bytes) -> int | None:
        content = self.files.get(path)
        if not isinstance(content, bytes):
            return None
        file = os.memfd_create("file")
        os.write(file, content)
        os.lseek(file, 0, os.SEEK_SET)
        return file


_KNOWN = ("xattr", "packages")


def split_config(
    *sources: str | dict[str, list[str]] | Path, unclaimed: str = "ignore"
) -> SplitConfig:
    """A configuration with these SOURCES: a word, the globs of `paths`, or the Path of a map
    file.
    """
    components = []
    for number, source in enumerate(sources):
        where = f"config.yaml: components[{number}]"
        if isinstance(source, Path):
            components.append(ComponentSource("file", where, path=str(source)))
        elif isinstance(source, dict):
            components.append(
                ComponentSource(
                    "paths", where, paths={name: tuple(globs) for name, globs in source.items()}
                )
            )
        else:
            assert source in _KNOWN
            components.append(ComponentSource(source, where))
    return SplitConfig(
        64, tuple(components), unclaimed, None, "config.yaml: split", "config.yaml: split"
    )


def owners_of(
    view: TreeView, *sources: str | dict[str, list[str]] | Path, unclaimed: str = "ignore"
) -> tuple[dict[str, str], Ownership]:
    """The name of the component of each path that has one, and the whole result, held against what
    it promises.
    """
    found = find_owners(view, split_config(*sources, unclaimed=unclaimed))
    assert len(found.owners) == len(view.paths)
    assert memoryview(found.owners).format == "I"
    assert memoryview(found.owners).itemsize == 4
    assert [component.name for component in found.components] == sorted(
        {component.name for component in found.components}
    )
    assert set(found.owners) - {NO_OWNER} == set(range(len(found.components)))
    assert all(
        view.directories[index] for index, owner in enumerate(found.owners) if owner == NO_OWNER
    )
    named = {
        os.fsdecode(path): found.components[owner].name
        for path, owner in zip(view.paths, found.owners, strict=True)
        if owner != NO_OWNER
    }
    return named, found


def intervals_of(found: Ownership) -> dict[str, float]:
    return {component.name: component.interval_days for component in found.components}


def error_of(view: TreeView, *sources: str | dict[str, list[str]] | Path) -> BuildOciError | None:
    """The error that SOURCES end in, a line and its hint; None where they do not. Any other
    exception passes through.
    """
    try:
        owners_of(view, *sources)
    except BuildOciError as error:
        lines = error.lines()
        assert lines[0].isprintable(), lines
        return error
    return None


TREE = DictTree(
    {
        "lib": "usr/lib",
        "etc/passwd": b"12345",
        "usr/bin/ls": b"ls",
        "usr/lib/libc.so": b"123",
        "usr/lib/modules/6.1/a.ko": b"1234",
        "usr/share/fonts/x.ttf": b"1",
    }
)


def files_of(view: DictTree, owners: dict[str, str], prefix: str = "unclaimed:") -> dict[str, str]:
    """What a source claims, without what was made for the rest."""
    return {path: name for path, name in owners.items() if not name.startswith(prefix)}


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(content: bytes | str | dict[str, Any]) -> Path:
        path = tmp_path / "map"
        data = json.dumps(content) if isinstance(content, dict) else content
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    return write
