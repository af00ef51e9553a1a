"""The data base of rpm (contract: split-packages), whole and broken."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import clients
import pytest
from conftest import Build
from package_claims import (
    EXPECTED,
    FILES,
    PACKAGES,
    claimed,
    header,
    numbers,
    package,
    string,
    strings,
)
from split_trees import DictTree, DirectoryTree, error_of, intervals_of, owners_of, split_config

from build_oci.errors import TreeError
from build_oci.split.components import find_owners
from build_oci.split.sources.packages import rpm

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


@pytest.mark.parametrize("log", ["none", "empty", "full"])
def test_rpm_in_an_image(rpm_root: MakeRoot, build: Build, log: str) -> None:
    """contract: late-image-tree. The data base is a file of an archive, without a name."""
    root = rpm_root([] if log == "full" else PACKAGES)
    connection = sqlite3.connect(root / "usr/lib/sysimage/rpm/rpmdb.sqlite")
    if log != "none":
        connection.execute("PRAGMA journal_mode = WAL")
    if log == "full":
        rows = [(row,) for row in PACKAGES]
        connection.executemany("INSERT INTO Packages (blob) VALUES (?)", rows)
        connection.commit()
    else:
        connection.close()
    env = {"SOURCE_DATE_EPOCH": "1"}
    image = build(clients.layer_config(root, compression="zstd"), env=env).output
    found = []
    for layer in (str(root), {"image": str(image)}):
        config = clients.layer_config(root, compression="zstd")
        split = {"components": ["packages"], "unclaimed": "ignore"}
        config["images"][0] |= {"layer": layer, "split": split}
        found.append(clients.manifest_of(build(config, env=env).output)["layers"])
    assert found[0] == found[1]
    assert any('"python3.11"' in str(layer["annotations"]) for layer in found[0])
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
        # Without what this process was started with: rpmbuild waits for ever beside a sanitizer.
        done = subprocess.run(
            command, capture_output=True, text=True, check=False,
            env={**os.environ, "LD_PRELOAD": ""},
        )  # fmt: skip
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
