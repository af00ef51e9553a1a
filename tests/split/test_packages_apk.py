"""The data bases of apk and alpm (contract: split-packages), whole and broken."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from package_claims import EXPECTED, FILES, claimed, outside
from split_trees import DictTree, error_of

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
