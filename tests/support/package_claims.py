"""What the data bases of packages claim."""

from __future__ import annotations

import gzip
import os
import struct
import time
from collections.abc import Iterable, Mapping

from split_trees import DictTree, owners_of

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

    return gzip.compress("".join(entry(day) for day in days).encode(), mtime=0)


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
