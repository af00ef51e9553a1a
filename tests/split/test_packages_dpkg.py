"""The data bases of dpkg and of distroless images (contract: split-packages), whole and broken."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from package_claims import (
    EXPECTED,
    FILES,
    LISTS,
    STATUS,
    changelog,
    claimed,
    dpkg,
    outside,
)
from split_trees import (
    DictTree,
    DirectoryTree,
    WalkedTree,
    error_of,
    intervals_of,
    owners_of,
)

from build_oci.errors import TreeError
from build_oci.split.tree import TreeView


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


def test_the_dates_of_a_changelog() -> None:
    """Of every trailer, wherever it stands; a day that does not exist is none."""
    lines = (
        " -- A <b>  Sat, 20 Jan 2024 10:11:12 +0100",
        " -- C <d> Tue,  9 Jan 2024 10:11:12 +0100",
        "",
        "  * no trailer: -- A <b>  Sat, 13 Jan 2024 10:11:12 +0100",
        " -- A <b>  Fri, 31 Feb 2025 10:11:12 +0100",
        " -- A > B <b>  Wed, 10 Jan 2024 10:11:12 +0100 ",
        " -- A <b>  Sat, 13 Jan 2024",
    )
    text = gzip.compress("\n".join(lines).encode(), mtime=0)
    view = dpkg(more={"usr/share/doc/python3/changelog.gz": text})
    assert intervals_of(owners_of(view, "packages")[1])["python3.11"] == 11 / 2.5


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"plain",
        changelog(19010, 19000)[:40],
        gzip.compress(b" -- A <b>  Mon, 99 Xyz 2020 \n" * 9, mtime=0),
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


BROKEN: list[tuple[dict[str, bytes | str], str, str]] = [
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
    (
        {"var/lib/dpkg/status": b"Package: dash\n\nSource: da\n"},
        "status",
        "line 3 names the source of no package",
    ),
    ({"var/lib/dpkg/status": b"Package: dash\n\xff\xff\n"}, "status", "line 2 is no field"),
    (
        {"var/lib/dpkg/status": b"Package: dash\n more\n\n" * 40_000 + b"no\n:\n"},
        "status",
        "line 120001 is no field",
    ),
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
]


@pytest.mark.parametrize(("change", "where", "what"), BROKEN)
def test_broken_dpkg(change: dict[str, bytes | str], where: str, what: str) -> None:
    error = error_of(dpkg(more=change), "packages")
    assert isinstance(error, TreeError)
    assert error.where == f"/tree/var/lib/dpkg/{where}"
    assert what in error.what


@pytest.mark.parametrize(
    "change",
    [
        {"var/lib/dpkg/diversions": b"/usr/bin/sh\n/usr/bin/sh.distrib\nother\n"},
        {"usr/share/doc/python3/changelog.gz": changelog(19010, 19000, 18990)},
        {"var/lib/dpkg/info/large.list": b"/usr/bin/python3\n/gone\n" * 40_000},
        *(change for change, _, _ in BROKEN),
    ],
)
def test_a_tree_that_was_walked(change: dict[str, bytes | str], tmp_path: Path) -> None:
    """Its files are opened and its paths found in another way."""
    more = {"usr/bin/sh.distrib": b"x", **change}
    dpkg(LISTS | {"other": "/usr/bin/sh\n"}, more=more).write(tmp_path)

    def outcome(view: TreeView) -> object:
        if (error := error_of(view, "packages")) is not None:
            return error.lines()
        owners, found = owners_of(view, "packages")
        return owners, found.components, found.warnings, found.unclaimed

    before = os.listdir("/proc/self/fd")
    with DirectoryTree(tmp_path) as listed, WalkedTree(tmp_path) as walked:
        assert outcome(walked) == outcome(listed)
        walked.paths.close()
    assert len(os.listdir("/proc/self/fd")) == len(before)


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


# -- a real root, held against what dpkg itself says


def test_debian(debian_tree: Path) -> None:
    view = DirectoryTree(debian_tree)
    owners, found = owners_of(view, "packages", unclaimed="warn")
    assert owners_of(WalkedTree(debian_tree), "packages", unclaimed="warn") == (owners, found)
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
