"""The data bases of packages (contract: split-packages): dpkg, distroless, apk, alpm and rpm, whole
and broken.
"""

from __future__ import annotations

import gzip
import os
import sqlite3
import struct
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import clients
import hypothesis
import pytest
from hypothesis import strategies
from split_trees import DictTree, DirectoryTree, error_of, intervals_of, owners_of, split_config

from build_oci.errors import TreeError
from build_oci.split.components import find_owners
from build_oci.split.sources.packages import rpm
from build_oci.split.tree import TreeView

DAY = 86400
FILES: dict[str, bytes | str] = {
    "lib": "usr/lib",
    "bin": "usr/bin",
    "usr/bin/sh": b"sh",
    "usr/bin/python3": b"python",
    "usr/lib/libpython.so": b"python",
    "usr/share/doc/python/README": b"x",
    "usr/share/common/a": b"a",
    "srv/nobody": b"x",
}


def claimed(view: TreeView) -> dict[str, str]:
    """What packages claim in VIEW, but directories and links to them."""
    owners, _ = owners_of(view, "packages")
    directories = {
        os.fsdecode(path)
        for path, is_directory in zip(view.paths, view.directories, strict=True)
        if is_directory
    }
    directories |= {"bin", "lib"}
    return {
        path: name
        for path, name in owners.items()
        if path not in directories and not name.startswith("unclaimed:")
    }


def outside(owners: dict[str, str], prefix: str) -> dict[str, str]:
    return {path: name for path, name in owners.items() if not path.startswith(prefix)}


EXPECTED = {
    "usr/bin/sh": "dash",
    "usr/bin/python3": "python3.11",
    "usr/lib/libpython.so": "python3.11",
    "usr/share/doc/python/README": "python3.11",
}


# -- dpkg


STATUS = """\
Package: dash
Status: install ok installed
Description: a shell
 Source: of confusion
 .

Package: libpython
Source: python3.11 (3.11.2-6)

Package: python3
Source: python3.11

Package: gone
Source: elsewhere
"""
LISTS = {
    "dash": "/.\n/bin\n/bin/sh\n/usr\n/usr/bin\n",
    "libpython:amd64": "/.\n/usr\n/lib\n/lib/libpython.so\n",
    "python3": (
        "/.\n/usr/bin/python3\n/usr/share/doc/python\n/usr/share/doc/python/README\n/usr/share/doc/python/gone\n/usr/lib/../../..\n"
    ),
    "empty": "",
}


def dpkg(
    lists: Mapping[str, str] = LISTS,
    status: str = STATUS,
    more: Mapping[str, bytes | str] | None = None,
) -> DictTree:
    files = {f"var/lib/dpkg/info/{name}.list": text.encode() for name, text in lists.items()}
    return DictTree({**FILES, **files, "var/lib/dpkg/status": status.encode(), **(more or {})})


def changelog(*days: int) -> bytes:
    def entry(day: int) -> str:
        when = time.strftime("%a, %d %b %Y %H:%M:%S +0200", time.gmtime(day * DAY))
        return (
            f"python3.11 (1-{day}) unstable; urgency=medium\n\n  * A change -- of <no> use.\n\n --"
            f" Somebody <a@example.org>  {when}\n\n"
        )

    return gzip.compress("".join(entry(day) for day in days).encode())


def test_dpkg() -> None:
    owners = claimed(dpkg())
    assert outside(owners, "var/lib/dpkg") == EXPECTED
    assert owners["var/lib/dpkg/info/libpython:amd64.list"] == "python3.11"
    assert "var/lib/dpkg/status" not in owners
    assert owners_of(dpkg(), "packages")[1].warnings == ()


def test_dpkg_records_of_a_package_are_its_own() -> None:
    more: dict[str, bytes | str] = {
        "var/lib/dpkg/info/dash.postinst": b"x",
        "var/lib/dpkg/info/dash.x.md5sums": b"x",
    }
    owners = claimed(dpkg(more=more))
    assert owners["var/lib/dpkg/info/dash.postinst"] == "dash"
    assert "var/lib/dpkg/info/dash.x.md5sums" not in owners


def test_dpkg_diversions() -> None:
    """A file that another package has diverted lies elsewhere; that package's own file is where it
    says.
    """
    lists = {"dash": "/usr/bin/sh\n", "other": "/usr/bin/sh\n"}
    more: dict[str, bytes | str] = {
        "usr/bin/sh.distrib": b"x",
        "var/lib/dpkg/diversions": b"/usr/bin/sh\n/usr/bin/sh.distrib\nother\n",
    }
    owners = claimed(dpkg(lists, more=more))
    assert (owners["usr/bin/sh"], owners["usr/bin/sh.distrib"]) == ("other", "dash")


def test_directories_go_to_the_only_component_that_lists_them() -> None:
    lists = LISTS | {
        "shared": "/usr/share/common\n/usr/share/doc/python\n",
        "twin": "/usr/share/common\n",
    }
    status = STATUS + "\nPackage: shared\nSource: both\n\nPackage: twin\nSource: both\n"
    owners, _ = owners_of(dpkg(lists, status), "packages")
    assert owners["usr/share/common"] == "both"
    assert "usr/share/doc/python" not in owners
    assert "usr" not in owners
    # Links to directories too: every package that has a file in /bin lists /bin.
    assert owners["lib"] == "python3.11"
    owners, _ = owners_of(
        dpkg(LISTS | {"other": "/lib\n/bin\n", "dash": "/lib\n"}, status), "packages"
    )
    assert (owners["bin"], owners["lib"]) == ("other", "unclaimed:")


def test_dpkg_intervals() -> None:
    view = dpkg(more={"usr/share/doc/python3/changelog.Debian.gz": changelog(19010, 19000, 18990)})
    assert intervals_of(owners_of(view, "packages")[1])["python3.11"] == 20 / 2.5
    view = dpkg(
        more={
            "usr/share/doc/libpython/changelog.gz": changelog(19014, 19000),
            "usr/share/doc/python3/changelog.gz": changelog(2, 1),
        }
    )
    intervals = intervals_of(owners_of(view, "packages")[1])
    assert (intervals["python3.11"], intervals["dash"]) == (14 / 1.5, 7)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"plain",
        changelog(19010, 19000)[:40],
        gzip.compress(b" -- A <b>  Mon, 99 Xyz 2020 \n" * 9),
    ],
)
def test_a_changelog_can_only_help(content: bytes) -> None:
    view = dpkg(more={"usr/share/doc/python3/changelog.gz": content})
    assert intervals_of(owners_of(view, "packages")[1])["python3.11"] == 7


def test_a_changelog_is_read_within_bounds() -> None:
    bomb = gzip.compress(b"\0" * (64 << 20))
    view = dpkg(
        more={
            "usr/share/doc/python3/changelog.gz": bomb,
            "usr/share/doc/libpython/changelog.gz": "loop",
        }
    )
    assert intervals_of(owners_of(view, "packages")[1])["python3.11"] == 7


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        (
            {"var/lib/dpkg/info/dash.list": b"/usr/bin/s"},
            "info/dash.list",
            "line 1 has no end: the file is cut",
        ),
        (
            {"var/lib/dpkg/info/dash.list": b"/usr\n/" + b"x" * 400_000},
            "info/dash.list",
            "line 2 is longer than 65536 bytes",
        ),
        (
            {"var/lib/dpkg/info/dash.list": "python3.list"},
            "info/dash.list",
            "is not a regular file",
        ),
        ({"var/lib/dpkg/status": b"Package: da"}, "status", "line 1 has no end"),
        (
            {"var/lib/dpkg/status": b"Source: da\n"},
            "status",
            "line 1 names the source of no package",
        ),
        ({"var/lib/dpkg/status": b"Package: dash\n\xff\xff\n"}, "status", "line 2 is no field"),
        (
            {"var/lib/dpkg/status": b"Package: dash\nSource: \xff\n"},
            "info/dash.list",
            "`\\xff`, is not UTF-8",
        ),
        (
            {"var/lib/dpkg/status": b"Package: dash\nSource: unclaimed:x\n"},
            "info/dash.list",
            "begins with `unclaimed:`",
        ),
        (
            {"var/lib/dpkg/diversions": b"/a\n/b\n"},
            "diversions",
            "not three lines for each diversion",
        ),
    ],
)
def test_broken_dpkg(change: dict[str, bytes | str], where: str, what: str) -> None:
    error = error_of(dpkg(more=change), "packages")
    assert isinstance(error, TreeError)
    assert error.where == f"/tree/var/lib/dpkg/{where}"
    assert what in error.what


def test_a_data_base_of_two_gigabytes(tmp_path: Path) -> None:
    for name in ("lib/apk/db/installed", "var/lib/dpkg/info/a.list", "var/lib/rpm/rpmdb.sqlite"):
        root = tmp_path / name.replace("/", "-")
        (root / name).parent.mkdir(parents=True)
        with open(root / name, "wb") as file:
            file.truncate((2 << 30) + 1)
        error = error_of(DirectoryTree(root), "packages")
        assert error is not None
        assert error.where == str(root / name)
        assert "has 2,147,483,649 bytes; at most" in error.what


# -- distroless


def test_distroless() -> None:
    view = DictTree(
        {
            **FILES,
            "var/lib/dpkg/status.d/dash": b"Package: dash\nVersion: 1",
            "var/lib/dpkg/status.d/dash.md5sums": b"0123456789abcdef0123456789abcdef  bin/sh\n",
            "var/lib/dpkg/status.d/cHl0aG9u": b"Package: python3\nSource: python3.11 (3)\n",
            "var/lib/dpkg/status.d/cHl0aG9u.md5sums": b"".join(
                b"0123456789abcdef0123456789abcdef  %s\n" % path
                for path in (
                    b"usr/bin/python3",
                    b"lib/libpython.so",
                    b"./usr/share/doc/python/README",
                    b"gone",
                )
            ),
            "var/lib/dpkg/status.d/base": b"Package: base-files\n",
        }
    )
    owners = claimed(view)
    assert outside(owners, "var/lib/dpkg") == EXPECTED
    assert owners["var/lib/dpkg/status.d/base"] == "base-files"
    assert owners["var/lib/dpkg/status.d/cHl0aG9u.md5sums"] == "python3.11"


def test_broken_distroless() -> None:
    for name, content, what in (
        ("a", b"Version: 1\n", "names no package"),
        ("a.md5sums", b"0123", "line 1 is not a checksum and a path"),
    ):
        view = DictTree(
            {"var/lib/dpkg/status.d/a": b"Package: a\n", f"var/lib/dpkg/status.d/{name}": content}
        )
        error = error_of(view, "packages")
        assert error is not None
        assert error.where == f"/tree/var/lib/dpkg/status.d/{name}"
        assert what in error.what


# -- apk


APK = b"""\
C:Q1abc=
P:dash
V:0.5
F:bin
R:sh
a:0:0:777
Z:Q1x=
F:

P:libpython
o:python3.11
F:lib
R:libpython.so
R:gone

P:python3
o:python3.11
F:usr/bin
R:python3
F:usr/share/doc/python
M:0:0:755
R:README

"""


@pytest.mark.parametrize("place", ["lib/apk/db/installed", "usr/lib/apk/db/installed"])
def test_apk(place: str) -> None:
    files = (
        FILES
        if place.startswith("usr")
        else {name: content for name, content in FILES.items() if name != "lib"}
    )
    owners = claimed(DictTree({**files, place: APK}))
    assert owners == (
        EXPECTED
        if place.startswith("usr")
        else {path: name for path, name in EXPECTED.items() if "usr/lib" not in path}
    )


def test_apk_without_the_last_empty_line() -> None:
    assert (
        claimed(DictTree({**FILES, "usr/lib/apk/db/installed": APK.rstrip() + b"\n"})) == EXPECTED
    )


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (APK[:-30], "has no end: the file is cut"),
        (b"P:a\nnothing\n", "line 2 is not of the form `X:value`"),
        (b"F:usr/bin\nR:sh\n\n", "the package that ends in line 3 has no name"),
        (b"P:\xff\n\n", "is not UTF-8"),
    ],
)
def test_broken_apk(content: bytes, what: str) -> None:
    error = error_of(DictTree({**FILES, "usr/lib/apk/db/installed": content}), "packages")
    assert error is not None
    assert error.where == "/tree/usr/lib/apk/db/installed"
    assert what in error.what


# -- alpm


def alpm(place: str = "var/lib/pacman/local", more: Mapping[str, bytes] | None = None) -> DictTree:
    packages = {
        "dash-1-1": (
            "%NAME%\ndash\n\n%VERSION%\n1-1\n\n",
            "%FILES%\nusr/\nusr/bin/\nusr/bin/sh\n\n%BACKUP%\nsrv/nobody\t0123\n\n",
        ),
        "libpython-1-1": (
            "%NAME%\nlibpython\n\n%BASE%\npython3.11\n\n",
            "%FILES%\nlib/libpython.so\n",
        ),
        "python3-1-1": (
            "%BASE%\npython3.11\n\n%NAME%\npython3\n",
            "%FILES%\nusr/bin/python3\nusr/share/doc/python/README\ngone\n\n",
        ),
    }
    files: dict[str, bytes | str] = {f"{place}/ALPM_DB_VERSION": b"9\n"}
    for name, (desc, listed) in packages.items():
        files |= {
            f"{place}/{name}/desc": desc.encode(),
            f"{place}/{name}/files": listed.encode(),
            f"{place}/{name}/mtree": b"x",
        }
    return DictTree({**FILES, **files, **(more or {})})


@pytest.mark.parametrize("place", ["var/lib/pacman/local", "usr/lib/pacman/local"])
def test_alpm(place: str) -> None:
    owners = claimed(alpm(place))
    assert outside(owners, place) == EXPECTED
    assert owners[f"{place}/libpython-1-1/mtree"] == "python3.11"
    assert f"{place}/ALPM_DB_VERSION" not in owners


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        ({"dash-1-1/desc": b"%NAME%\nda"}, "dash-1-1/desc", "line 2 has no end: the file is cut"),
        ({"dash-1-1/desc": b"%VERSION%\n1\n"}, "dash-1-1/desc", "has no `%NAME%`"),
        ({"dash-1-1/files": b"usr/bin\n"}, "dash-1-1/files", "line 1 belongs to no list"),
        ({"x-1/files": b"%FILES%\n"}, "x-1", "the record of a package has no `desc`"),
    ],
)
def test_broken_alpm(change: dict[str, bytes], where: str, what: str) -> None:
    place = "var/lib/pacman/local"
    error = error_of(
        alpm(more={f"{place}/{name}": content for name, content in change.items()}), "packages"
    )
    assert error is not None
    assert error.where == f"/tree/{place}/{where}"
    assert what in error.what


# -- rpm


def string(value: str) -> tuple[int, int, bytes]:
    return 6, 1, value.encode() + b"\0"


def strings(values: Iterable[str]) -> tuple[int, int, bytes]:
    values = list(values)
    return 8, len(values), "".join(value + "\0" for value in values).encode()


def numbers(values: Iterable[int]) -> tuple[int, int, bytes]:
    values = list(values)
    return 4, len(values), struct.pack(f">{len(values)}I", *values)


def header(*tags: tuple[int, tuple[int, int, bytes]]) -> bytes:
    """A header as the data base holds it: without the eight bytes that begin one in a file."""
    entries, data = b"", b""
    for tag, (kind, count, value) in tags:
        data += b"\0" * (-len(data) % 4)
        entries += struct.pack(">IIII", tag, kind, len(data), count)
        data += value
    return struct.pack(">II", len(tags), len(data)) + entries + data


def package(
    name: str, source: str, paths: list[str], dates: Iterable[int] = (), states: bytes = b""
) -> bytes:
    directories = sorted({os.path.dirname(path) + "/" for path in paths})
    tags = [
        (63, (7, 16, b"\0" * 16)),
        (rpm.NAME, string(name)),
        (1005, (9, 1, b"a description\0")),
        (rpm.BASE_NAMES, strings(os.path.basename(path) for path in paths)),
        (rpm.DIR_NAMES, strings(directories)),
        (
            rpm.DIR_INDEXES,
            numbers(directories.index(os.path.dirname(path) + "/") for path in paths),
        ),
    ]
    tags += [(rpm.SOURCE_RPM, string(source))] if source else []
    tags += [(rpm.CHANGELOG_TIME, numbers(dates))] if dates else []
    tags += [(rpm.FILE_STATES, (1, len(states), states))] if states else []
    return header(*tags)


PACKAGES = [
    package("dash", "dash-0.5.12-3.fc40.src.rpm", ["/bin/sh"]),
    package(
        "libpython",
        "python3.11-3.11.9-1.fc40.src.rpm",
        ["/lib/libpython.so"],
        [(19000 - 5 * number) * DAY for number in range(9)],
    ),
    package(
        "python3",
        "python3.11-3.11.9-1.fc40.src.rpm",
        ["/usr/bin/python3", "/usr/share/doc/python/README", "/usr/gone"],
    ),
    header((rpm.NAME, string("gpg-pubkey"))),
]
MakeRoot = Callable[..., Path]


@pytest.fixture
def rpm_root(tmp_path: Path) -> MakeRoot:
    """A root with FILES and an rpm data base of these rows in PLACE."""

    def make(rows: Iterable[object], place: str = "usr/lib/sysimage/rpm", *statements: str) -> Path:
        root = tmp_path / "root"
        for name, content in FILES.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                (root / name).symlink_to(content)
            else:
                (root / name).write_bytes(content)
        (root / place).mkdir(parents=True)
        with sqlite3.connect(root / place / "rpmdb.sqlite") as connection:
            for statement in statements or (
                (
                    "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT"
                    " NULL)"
                ),
            ):
                connection.execute(statement)
            for row in rows:
                connection.execute("INSERT INTO Packages (blob) VALUES (?)", (row,))
        connection.close()
        return root

    return make


@pytest.mark.parametrize("place", ["usr/lib/sysimage/rpm", "var/lib/rpm", "usr/share/rpm"])
def test_rpm(rpm_root: MakeRoot, place: str) -> None:
    root = rpm_root(PACKAGES, place)
    if place.startswith("usr/lib"):
        (root / "var" / "lib").mkdir(parents=True)
        (root / "var" / "lib" / "rpm").symlink_to("../../usr/lib/sysimage/rpm")
    # As rpm leaves it: made for a write-ahead log, which closing it has emptied.
    with sqlite3.connect(root / place / "rpmdb.sqlite") as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    os.utime(root / place, (1, 1))
    before = sorted(os.listdir(root / place))
    view = DirectoryTree(root)
    assert claimed(view) == EXPECTED
    assert intervals_of(owners_of(view, "packages")[1])["python3.11"] == 40 / 8.5
    assert sorted(os.listdir(root / place)) == before
    assert os.stat(root / place).st_mtime == 1


def test_rpm_write_ahead_log(rpm_root: MakeRoot) -> None:
    """Packages that stand in the log alone are read, and nothing is written into the tree."""
    root = rpm_root([])
    folder = root / "usr/lib/sysimage/rpm"
    connection = sqlite3.connect(folder / "rpmdb.sqlite")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executemany("INSERT INTO Packages (blob) VALUES (?)", [(row,) for row in PACKAGES])
    connection.commit()
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(contents["rpmdb.sqlite-wal"]) > 0
    assert claimed(DirectoryTree(root)) == EXPECTED
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == contents
    connection.close()


def test_rpm_files_that_another_package_replaced(rpm_root: MakeRoot) -> None:
    rows = [
        package("a", "a-1-1.src.rpm", ["/usr/bin/sh", "/usr/bin/python3"], states=b"\1\0"),
        package("b", "", ["/usr/bin/sh"]),
    ]
    assert claimed(DirectoryTree(rpm_root(rows))) == {"usr/bin/sh": "b", "usr/bin/python3": "a"}


def test_rpm_later_entries_hold(rpm_root: MakeRoot) -> None:
    """What rpm changes in a header stands behind the region that was signed."""
    old = (rpm.OLD_FILE_NAMES, strings(["/usr/bin/sh"]))
    assert claimed(
        DirectoryTree(rpm_root([header((rpm.NAME, string("old")), (rpm.NAME, string("new")), old)]))
    ) == {"usr/bin/sh": "new"}


def test_an_older_rpm_is_a_warning() -> None:
    found = owners_of(DictTree({"var/lib/rpm/Packages": b"x"}), "packages")[1]
    assert found.warnings == (
        (
            "/tree/var/lib/rpm/Packages: is a data base of an older rpm, which is not read; `rpmdb"
            " --rebuilddb` makes a new one"
        ),
    )


GOOD = PACKAGES[0]
NAMED = (rpm.NAME, string("a"))


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (b"", "the package number 1 has a header of less than 8 bytes"),
        (GOOD[:-1], "it is cut or damaged"),
        (b"\xff" * 8 + GOOD[8:], "it is cut or damaged"),
        ("text", "has a row in `Packages` that is no package"),
        (header(), "the name of a package, ``, is empty"),
        (header((rpm.NAME, (4, 1, b"abcd"))), "has the tag 1000 with a wrong type"),
        (header((rpm.NAME, (6, 1, b"abcd"))), "has strings in the tag 1000 that do not end"),
        (header((rpm.NAME, string("a\x1b"))), "holds a character that cannot be printed"),
        (
            header(NAMED, (rpm.BASE_NAMES, (8, 3, b"a\0b\0"))),
            "has strings in the tag 1117 that do not end",
        ),
        (
            header(NAMED, (rpm.BASE_NAMES, (8, 1 << 31, b"a\0b\0"))),
            "has the tag 1117 beyond the end of its data",
        ),
        (
            header(NAMED, (rpm.DIR_INDEXES, (4, 3, b"\0" * 8))),
            "has the tag 1116 beyond the end of its data",
        ),
        (
            header(NAMED, (rpm.BASE_NAMES, strings(["a"])), (rpm.DIR_INDEXES, numbers([7]))),
            "has file names without a directory",
        ),
        (header(NAMED, (rpm.BASE_NAMES, strings(["a"]))), "has file names without a directory"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_broken_rpm_headers(rpm_root: MakeRoot, row: object, what: str) -> None:
    root = rpm_root([row])
    error = error_of(DirectoryTree(root), "packages")
    assert error is not None
    assert error.where == str(root / "usr/lib/sysimage/rpm/rpmdb.sqlite")
    assert what in error.what


@pytest.mark.parametrize(
    ("statements", "what"),
    [
        (["CREATE TABLE Other (x)"], "has no table `Packages`"),
        (["CREATE TABLE Packages (blob)"], "cannot be read: no such column: hnum"),
        (
            [
                "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob)",
                "INSERT INTO Packages (blob) VALUES (CAST(x'ff' AS TEXT))",
            ],
            "cannot be read: ",
        ),
        (
            [
                (
                    "CREATE VIEW Packages AS WITH RECURSIVE c(hnum, blob) AS (SELECT 1, x'' UNION"
                    " ALL SELECT hnum + 1, x'' FROM c) SELECT hnum, blob FROM c"
                ),
            ],
            "has no table `Packages`",
        ),
        (
            [
                (
                    "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, x, blob AS"
                    " (zeroblob(1000000000)))"
                ),
                "INSERT INTO Packages (x) VALUES (1)",
            ],
            "cannot be read: ",
        ),
    ],
)
def test_hostile_rpm_tables(rpm_root: MakeRoot, statements: list[str], what: str) -> None:
    error = error_of(DirectoryTree(rpm_root([], "var/lib/rpm", *statements)), "packages")
    assert error is not None
    assert what in error.what


def test_cut_rpm(rpm_root: MakeRoot) -> None:
    root = rpm_root(PACKAGES * 50)
    path = root / "usr/lib/sysimage/rpm/rpmdb.sqlite"
    whole = path.read_bytes()
    for size in (1, 50, 4096, len(whole) // 2, len(whole) - 4096):
        path.write_bytes(whole[:size])
        error = error_of(DirectoryTree(root), "packages")
        assert error is not None, size
        assert error.where == str(path)
    path.write_bytes(b"")
    error = error_of(DirectoryTree(root), "packages")
    assert error is not None
    assert "has no table `Packages`" in error.what


def test_rpm_is_left_at_a_check(rpm_root: MakeRoot) -> None:
    """Within SQLite too, where an exception cannot pass: here one statement would go on for
    ever.
    """
    endless = (
        "(WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c)"
    )
    root = rpm_root([], "var/lib/rpm", "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob)")
    calls = 0

    def stop() -> None:
        nonlocal calls
        calls += 1
        if calls > 20:
            raise KeyboardInterrupt

    view = DirectoryTree(root)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rpm, "SELECT", f"SELECT 1, {endless}")
        with pytest.raises(KeyboardInterrupt):
            find_owners(view, split_config("packages"), check=stop)
        patched.setattr(rpm, "_MOST_CHECKS", 3)
        with pytest.raises(TreeError, match="takes too long to read"):
            find_owners(view, split_config("packages"))


SPEC = """\
Name: shell
Version: 1.0
Release: 1
Summary: x
License: x
BuildArch: noarch
%description
%package libs
Summary: y
%description libs
%install
mkdir -p %{buildroot}/usr/bin %{buildroot}/usr/lib/shell/empty
echo a > %{buildroot}/usr/bin/shell
ln %{buildroot}/usr/bin/shell %{buildroot}/usr/bin/shell-1
ln -s shell %{buildroot}/usr/bin/sh
echo b > "%{buildroot}/usr/lib/shell/größe b"
%files
/usr/bin/*
%files libs
/usr/lib/shell
%changelog
* Fri Mar 01 2024 A <a@example.org> - 1.0-1
- x
* Tue Feb 20 2024 A <a@example.org> - 0.9-1
- x
"""


def test_what_rpm_itself_installs(tmp_path: Path) -> None:
    rpmbuild, program = clients.need("rpmbuild"), clients.need("rpm")
    (tmp_path / "shell.spec").write_text(SPEC)
    root = tmp_path / "root"
    root.mkdir()
    defines = ["--define", f"_topdir {tmp_path}/build", "--define", "_db_backend sqlite"]

    def run(*command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    run(rpmbuild, "-bb", *defines, f"{tmp_path}/shell.spec")
    packages = sorted(str(path) for path in (tmp_path / "build").rglob("*.rpm"))
    assert len(packages) == 2
    run(
        program,
        *defines,
        "--root",
        str(root),
        "--dbpath",
        "/usr/lib/sysimage/rpm",
        "-i",
        "--nodeps",
        "--ignoreos",
        *packages,
    )
    view = DirectoryTree(root)
    owners, found = owners_of(view, "packages")
    files = [
        "usr/bin/sh",
        "usr/bin/shell",
        "usr/bin/shell-1",
        "usr/lib/shell",
        "usr/lib/shell/empty",
        "usr/lib/shell/größe b",
    ]
    assert {path: name for path, name in owners.items() if "rpm" not in path} == dict.fromkeys(
        files, "shell"
    )
    assert intervals_of(found)["shell"] == 10 / 1.5


# -- a real root, held against what dpkg itself says


def test_debian(debian_tree: Path) -> None:
    view = DirectoryTree(debian_tree)
    owners, found = owners_of(view, "packages", unclaimed="warn")
    info = debian_tree / "var/lib/dpkg/info"
    listed = {line for path in info.glob("*.list") for line in path.read_text().splitlines()}
    real = {
        os.path.realpath(debian_tree / line[1:], strict=False)
        for line in listed
        if not os.path.islink(debian_tree / line[1:])
    }
    files = {
        os.fsdecode(path)
        for path, is_directory in zip(view.paths, view.directories, strict=True)
        if not is_directory
    }
    missing = {
        path
        for path in files
        if str(debian_tree / path) in real and owners[path].startswith("unclaimed:")
    }
    assert missing == set()
    assert (owners["usr/bin/bash"], owners["usr/lib/x86_64-linux-gnu/libc.so.6"]) == (
        "bash",
        "glibc",
    )
    assert [
        component.name
        for component in found.components
        if component.source not in ("packages", "unclaimed")
    ] == []
    usr = [
        path
        for path, name in owners.items()
        if path.startswith("usr/") and path in files and name.startswith("unclaimed:")
    ]
    assert len(usr) < 30
    assert len(set(intervals_of(found).values())) > 5


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
