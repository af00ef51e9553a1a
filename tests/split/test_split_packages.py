"""The data bases of packages (contract: split-packages): whatever is in them, they are read or
refused.
"""

from __future__ import annotations

import os
import sqlite3

import hypothesis
import pytest
from hypothesis import strategies
from package_claims import FILES, PACKAGES
from split_trees import DictTree, DirectoryTree, error_of

from build_oci.split.sources.packages import rpm

# These tests hardly depend on the version of Python.
pytestmark = pytest.mark.once

# -- whatever is in a data base

PIECES = [
    b"Package: ",
    b"Source:",
    b"P:",
    b"o:",
    b"F:",
    b"R:",
    b"%NAME%",
    b"%FILES%",
    b"%BASE%",
    b"/usr/bin/sh",
    b"usr",
    b"..",
    b"/",
    b"\n",
    b"\n\n",
]

ANY = strategies.binary(max_size=60) | strategies.lists(
    strategies.sampled_from([*PIECES, b"\xff", b"\0", b"a"]), max_size=25
).map(b"".join)

PLACES = [
    "var/lib/dpkg/info/a.list",
    "var/lib/dpkg/status",
    "var/lib/dpkg/diversions",
    "var/lib/dpkg/status.d/a",
    "var/lib/dpkg/status.d/a.md5sums",
    "usr/share/doc/a/changelog.gz",
    "usr/lib/apk/db/installed",
    "var/lib/pacman/local/a/desc",
    "var/lib/pacman/local/a/files",
]


@hypothesis.settings(max_examples=300)
@hypothesis.given(
    strategies.dictionaries(strategies.sampled_from(PLACES), ANY, min_size=1, max_size=4)
)
def test_any_text_is_read_or_refused(files: dict[str, bytes]) -> None:
    if error := error_of(DictTree({**FILES, **files}), "packages"):
        assert any(error.where.startswith(f"/tree/{os.path.dirname(path)}") for path in files)


@hypothesis.settings(max_examples=300)
@hypothesis.given(strategies.data())
def test_any_rpm_header_is_read_or_refused(data: strategies.DataObject) -> None:
    blob = bytearray(data.draw(strategies.sampled_from(PACKAGES)))
    for _ in range(data.draw(strategies.integers(1, 6))):
        at = data.draw(strategies.integers(0, len(blob) - 1))
        blob[at] = data.draw(strategies.sampled_from([0, 1, 4, 8, 0x7F, 0x80, 0xFF]))
    cut = data.draw(strategies.sampled_from([0, 0, 1, 8, 100]))
    try:
        found = rpm.Header(bytes(blob[cut:]))
        for path in found.paths():
            assert len(path) <= len(blob)
        assert len(found.numbers(rpm.CHANGELOG_TIME)) * 4 <= len(blob)
        found.string(rpm.NAME)
    except ValueError:
        pass


@hypothesis.settings(max_examples=60)
@hypothesis.given(strategies.data())
def test_any_sqlite_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: strategies.DataObject
) -> None:
    """Bytes of a data base changed at random, most often in the headers of its pages: cycles,
    lengths, page numbers.
    """
    root = tmp_path_factory.getbasetemp() / "any-rpm"
    path = root / "var/lib/rpm/rpmdb.sqlite"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)"
        )
        connection.executemany(
            "INSERT INTO Packages (blob) VALUES (?)",
            [(PACKAGES[number % 3],) for number in range(60)],
        )
    connection.close()
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(strategies.integers(1, 8))):
        page = data.draw(strategies.integers(0, len(content) // 4096 - 1))
        at = page * 4096 + data.draw(strategies.integers(0, 60) | strategies.integers(0, 4095))
        content[at] = data.draw(strategies.integers(0, 255))
    path.write_bytes(content)
    if error := error_of(DirectoryTree(root), "packages"):
        assert error.where == str(path)
