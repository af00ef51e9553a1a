"""Too many open files, at every limit that there may be: one clear error, or a build within it
(contract: cli-errors, layout-atomic). Modules are imported late in a build, too.
"""

from __future__ import annotations

import functools
import hashlib
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clients
import pytest
from faults import environment, parent, run, snapshot, upon

import build_oci.cli.command
from build_oci.errors import OPEN_FILES, BuildOciError
from build_oci.work.hashes import openssl_hash

__all__ = ["parent"]
pytestmark = pytest.mark.once

HINT = "raise the limit of open files (ulimit -n), or use fewer workers (-j)"


def limited(limit: int) -> Callable[[], None]:
    return functools.partial(resource.setrlimit, resource.RLIMIT_NOFILE, (limit, limit))


def starts(limit: int) -> bool:
    """Does Python?"""
    program = [sys.executable, "-P", "-c", "import build_oci.cli.command"]
    done = subprocess.run(
        program, env=environment(), capture_output=True, check=False, preexec_fn=limited(limit)
    )
    return done.returncode == 0


@pytest.fixture(scope="module")
def lowest() -> int:
    return next(limit for limit in range(3, 20) if starts(limit))


def plain(tree: Path, parent: Path, tmp_path: Path) -> clients.Document:
    return clients.layer_config(tree, compression="zstd")


def two_codecs(tree: Path, parent: Path, tmp_path: Path) -> clients.Document:
    config = clients.layer_config(tree, compression=["gzip", "zstd:chunked"])
    del config["images"][0]["index-annotations"]
    return config


def on_a_parent(tree: Path, parent: Path, tmp_path: Path) -> clients.Document:
    return upon(clients.layer_config(tree, compression="gzip"), parent)


def on_a_chunked_parent(tree: Path, parent: Path, tmp_path: Path) -> clients.Document:
    """Whose metadata are checked."""
    made = clients.layer_config(tree / "d", compression="zstd:chunked")
    assert run(made, tmp_path / "chunked") == (0, "")
    return upon(clients.layer_config(tree, compression="zstd"), tmp_path / "chunked")


def squashed(tree: Path, parent: Path, tmp_path: Path) -> clients.Document:
    config = plain(tree, parent, tmp_path)
    config["images"][0]["layer"] = {"image": str(parent)}
    return config


def with_packages(tree: Path, parent: Path, tmp_path: Path) -> clients.Document:
    """The data base with a log, which takes most files."""
    place = tree / "usr/lib/sysimage/rpm"
    place.mkdir(parents=True)
    connection = sqlite3.connect(place / "rpmdb.sqlite")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB)")
    copied = {path.name: path.read_bytes() for path in place.iterdir()}
    connection.close()  # which removes the log
    for name, content in copied.items():
        (place / name).write_bytes(content)
    config = plain(tree, parent, tmp_path)
    config["images"][0]["split"] = {"components": ["packages"], "unclaimed": "ignore"}
    return config


def again(tree: Path, parent: Path, tmp_path: Path) -> clients.Document:
    """With a layout of an earlier build, in another codec."""
    config = plain(tree, parent, tmp_path)
    config["images"][0]["split"] = {
        "components": [{"paths": {"a": ["d/0*"]}}],
        "unclaimed": "ignore",
    }
    assert run(config, tmp_path / "previous") == (0, "")
    config["images"][0]["previous"] = {"image": str(tmp_path / "previous")}
    return config | {"compression": "gzip"}


@pytest.mark.parametrize(
    "make", [plain, two_codecs, on_a_parent, on_a_chunked_parent, squashed, with_packages, again]
)
def test_every_limit(
    make: Callable[[Path, Path, Path], clients.Document],
    lowest: int,
    tree: Path,
    parent: Path,
    output: Path,
    tmp_path: Path,
) -> None:
    config = make(tree, parent, tmp_path)
    before = snapshot(output)
    for limit in range(lowest, 64):
        status, said = run(config, output, "-j2", preexec=limited(limit))
        if status == 0:
            assert (said, limit > lowest) == ("", True)
            break
        check_said(said)
        assert snapshot(output) == before
    else:
        pytest.fail("64 files are not enough")


def check_said(said: str) -> None:
    error, hint = said.splitlines()
    assert error.startswith("build-oci: error: ")
    assert OPEN_FILES in error
    assert hint == f"hint: {HINT}"


# The last descriptors go in the midst of the import, as when other threads open files meanwhile.
NO_FILE_LEFT = """
import logging, os, resource, sys  # a build has logging, by way of its threads
from build_oci.work.hashes import openssl_hash
assert not {"hashlib", "_hashlib"} & set(sys.modules)

free = os.dup(0)
os.close(free)

def watch(event, args):
    if event == "import" and args[0] == "_hashlib":
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, free))

sys.addaudithook(watch)
try:
    openssl_hash("sha256")
except (ImportError, OSError) as error:
    print(error)
"""


def test_digests_of_openssl_that_cannot_be_loaded() -> None:
    """Whoever imports hashlib then gets tracebacks on standard error."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", NO_FILE_LEFT],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert OPEN_FILES in done.stdout


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_digests_without_openssl(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "_hashlib", None)
    digest = openssl_hash(algorithm)
    digest.update(b"abc")
    assert digest.hexdigest() == hashlib.new(algorithm, b"abc").hexdigest()


LATE = "walk.so: cannot open shared object file: Too many open files"


def by_import() -> None:
    raise ImportError(LATE, name="walk", path="/usr/lib/walk.so")


def by_what_an_import_led_to() -> None:
    try:
        by_import()
    except ImportError:
        raise AttributeError("module has no attribute walk") from None


@pytest.mark.parametrize("fail", [by_import, by_what_an_import_led_to])
def test_an_import_that_fails(
    fail: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(*_: Any) -> None:
        fail()

    monkeypatch.setattr(build_oci.cli.command, "_run", build)
    assert build_oci.cli.command.main([]) == 1
    said = capsys.readouterr().err
    check_said(said)
    assert "error: /usr/lib/walk.so: cannot be opened" in said


def test_an_error_that_says_what_it_is_stays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What came before it is its own affair."""

    def build(*_: Any) -> None:
        try:
            by_import()
        except ImportError as error:
            raise BuildOciError("is broken", where="there") from error

    monkeypatch.setattr(build_oci.cli.command, "_run", build)
    assert build_oci.cli.command.main([]) == 1
    assert capsys.readouterr().err == "build-oci: error: there: is broken\n"
