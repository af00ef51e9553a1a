"""dpkg (Debian, Ubuntu): `status` names each package's source, `info/PACKAGE.list` has its paths.

Distroless images keep a paragraph for each package in `status.d/PACKAGE`, and its paths in
`status.d/PACKAGE.md5sums`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from itertools import chain
from typing import Any

from build_oci.split.sources.packages import Package, source_name
from build_oci.split.tree import TreeIndex, lines_of

DATABASE = b"var/lib/dpkg"
_MOST_STATUS = 256 << 20
_MOST_LIST = 64 << 20
# A changelog has its newest entries first, and a few of them are enough.
_CHANGELOG_READ = 32 << 10
_CHANGELOG_UNPACKED = 128 << 10
_MOST_CHANGELOG = 1 << 30
# ` -- Name <address>  Mon, 02 Jan 2023 10:11:12 +0100`, of which the day is enough. The match
# begins with the end of the line before: fixed bytes are found several times as fast as `^`.
_TRAILER = re.compile(rb"\n -- .{0,400}?> {1,2}[A-Z][a-z]{2}, {1,2}(\d{1,2} [A-Z][a-z]{2} \d{4}) ")
# Lines of `status`, likewise: one that names a package or its source, an empty one, one that is no
# field.
_FIELD = re.compile(rb"\n(?:Package:([^\n]*)|Source:([^\n]*)|(?=(\n))|(?=([^ \t\n:][^\n:]*\n)))")
_ROOT = b"/.\n"
_MD5SUM = re.compile(rb"[0-9a-fA-F]{32} [ *](.+)")
_MONTHS = {
    name: number
    for number, name in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)
}


def packages(tree: TreeIndex, warn: Callable[[str], None]) -> Iterator[Package]:
    """The packages in the order of their names.

    Of those of one source the first that has a changelog tells its dates.
    """
    database = tree.real_directory(DATABASE)
    if database is None:
        return
    below = {tree.paths[index]: index for index in tree.below(database)}
    dated: set[str] = set()

    def package(name: bytes, source: str, entries: Iterable[int | None]) -> Package:
        dates = [] if source in dated else _changelog(tree, name)
        if dates:
            dated.add(source)
        return Package(source, entries, dates)

    yield from _installed(tree, database, below, package)
    yield from _distroless(tree, database + b"/status.d/", below, package)


_Make = Callable[[bytes, str, Iterable[int | None]], Package]


def _installed(
    tree: TreeIndex, database: bytes, below: Mapping[bytes, int], package: _Make
) -> Iterator[Package]:
    info = database + b"/info/"
    records: dict[bytes, list[int]] = {}  # by package, or package:architecture
    for path, index in below.items():
        if path.startswith(info):
            records.setdefault(path[len(info) :].rpartition(b".")[0], []).append(index)
    lists = sorted(name for name in records if name and info + name + b".list" in below)
    if not lists:
        return
    sources = _sources(tree, database + b"/status", {name.partition(b":")[0] for name in lists})
    diverted = _Diverted(tree, _diversions(tree, database + b"/diversions"))
    for full_name in lists:
        name = full_name.partition(b":")[0]
        path = info + full_name + b".list"
        source = source_name(tree, path, sources.get(name, name))
        listed = chain.from_iterable(_listed(tree, path, name, diverted))
        yield package(name, source, chain(records[full_name], listed))


class _Diverted:
    """What lies elsewhere. paths: see _diversions; entries: those of the paths from where it is
    away.
    """

    def __init__(self, tree: TreeIndex, paths: Mapping[bytes, tuple[bytes, bytes]]) -> None:
        self.paths = paths
        self.entries = {tree.entry(path[1:]) for path in paths}

    def path(self, line: bytes, package: bytes) -> bytes:
        """Where LINE of the list of PACKAGE lies."""
        to, keeper = self.paths.get(line, (b"", package))
        return line[1:] if keeper == package else to


def _listed(
    tree: TreeIndex, path: bytes, name: bytes, diverted: _Diverted
) -> Iterator[list[int | None]]:
    for text in tree.texts(path, _MOST_LIST):
        if text.startswith(_ROOT):  # as nearly all of them do
            yield [tree.find(b".")]
            text = text[len(_ROOT) :]
        found = tree.paths.find_lines(text, 1)
        # Which lines are not to be taken by the letter is asked only where there are any.
        if None in found or not diverted.entries.isdisjoint(found):
            found = [
                tree.find(diverted.path(line, name))
                if index is None or index in diverted.entries
                else index
                for line, index in zip(lines_of(text), found, strict=True)
            ]
        yield found


def _sources(tree: TreeIndex, status: bytes, wanted: set[bytes]) -> dict[bytes, bytes]:
    """The source package of each WANTED package that has another name than its source."""
    sources: dict[bytes, bytes] = {}
    if tree.entry(status) is None:
        return sources
    package = b""
    read = 0  # lines
    for text in tree.texts(status, _MOST_STATUS):
        for found in _FIELD.finditer(b"\n" + text):
            named, source, empty, _ = found.groups()
            if named is not None:
                package = named.strip()
            elif source is not None:
                if not package:
                    number = read + 1 + text.count(b"\n", 0, found.start())
                    raise tree.broken(status, f"line {number} names the source of no package")
                if package in wanted and (source := _first_word(source)):
                    sources[package] = source
            elif empty:
                package = b""
            else:
                number = read + 1 + text.count(b"\n", 0, found.start())
                raise tree.broken(status, f"line {number} is no field")
        read += text.count(b"\n")
    return sources


def _first_word(value: bytes) -> bytes:
    return value.split(None, 1)[0] if value.strip() else b""


def _diversions(tree: TreeIndex, path: bytes) -> dict[bytes, tuple[bytes, bytes]]:
    """Where a package's path really lies, and the package that keeps its own file there; three
    lines each.
    """
    if tree.entry(path) is None:
        return {}
    lines = list(tree.lines(path, 1 << 20))
    if len(lines) % 3:
        raise tree.broken(path, "has not three lines for each diversion: the file is cut")
    return {lines[at]: (lines[at + 1][1:], lines[at + 2]) for at in range(0, len(lines), 3)}


def _distroless(
    tree: TreeIndex, folder: bytes, below: Mapping[bytes, int], package: _Make
) -> Iterator[Package]:
    suffix = b".md5sums"
    for path in sorted(
        path for path in below if path.startswith(folder) and not path.endswith(suffix)
    ):
        if tree.view.directories[below[path]]:
            continue
        name = source = b""
        # Written by other tools than dpkg, some of which leave out the last line's end.
        for line in tree.read(path, 1 << 20).split(b"\n"):
            if line[:8] == b"Package:":
                name = line[8:].strip()
            elif line[:7] == b"Source:":
                source = _first_word(line[7:])
        if not name:
            raise tree.broken(path, "names no package")
        sums = path + suffix
        own = [below[path], *([below[sums]] if sums in below else [])]
        listed = map(tree.find, _summed(tree, sums) if sums in below else ())
        yield package(name, source_name(tree, path, source or name), [*own, *listed])


def _summed(tree: TreeIndex, path: bytes) -> Iterator[bytes]:
    for number, line in enumerate(tree.read(path, 16 << 20).split(b"\n"), 1):
        found = _MD5SUM.fullmatch(line)
        if found:
            yield found[1]
        elif line:
            raise tree.broken(path, f"line {number} is not a checksum and a path: the file is cut")


def _changelog(tree: TreeIndex, name: bytes) -> list[int]:
    """The dates of the package's changelog, where the tree has it; none if there are fewer than
    two.
    """
    from isal import isal_zlib

    inflate: Any = isal_zlib  # whose error is no exception to mypy
    for file in (b"changelog.Debian.gz", b"changelog.gz"):
        index = tree.find(b"usr/share/doc/" + name + b"/" + file)
        if index is None or not tree.view.sizes[index]:
            continue
        packed = tree.read(tree.paths[index], _MOST_CHANGELOG, most=_CHANGELOG_READ)
        try:
            text = inflate.decompressobj(wbits=31).decompress(packed, _CHANGELOG_UNPACKED)
        except inflate.error:
            continue  # a changelog is no part of the data base: it can only help
        days = map(_day, _TRAILER.findall(b"\n" + text))
        if len(found := [day * 86400 for day in days if day is not None]) > 1:
            return found
    return []


@lru_cache(1 << 14)
def _day(text: bytes) -> int | None:
    """The day of `02 Jan 2023` since 1970; None where there is no such day."""
    day, month, year = text.split()
    try:
        return (datetime(int(year), _MONTHS[month], int(day)) - datetime(1970, 1, 1)).days
    except (KeyError, ValueError):
        return None
