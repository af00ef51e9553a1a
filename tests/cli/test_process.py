"""The command as a process of its own: streams that are closed, endless or nobody's
(contract: cli-build, cli-exit-status).
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from commands import IMAGE, run


def test_process() -> None:
    done = run("eval $BUILD_OCI --check -v", input=IMAGE.encode())
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        b"",
        b"build-oci: nothing is wrong with <stdin>: 1 image\n",
    )


@pytest.mark.parametrize(
    "redirection", ["2>&-", "2>/dev/full", "1>&- 2>&-", ">/dev/full 2>/dev/full"]
)
def test_nobody_listens(redirection: str) -> None:
    """A closed or full standard stream changes neither what happens nor the exit status."""
    assert run(f"eval $BUILD_OCI --check -v {redirection}", input=IMAGE.encode()).returncode == 0
    assert run(f"eval $BUILD_OCI --check -v {redirection}", input=b"mode: tar").returncode == 2


def test_help_for_nobody() -> None:
    done = run("eval $BUILD_OCI --help > /dev/full")
    assert (done.returncode, done.stderr) == (0, b"")


def test_closed_input() -> None:
    done = run("eval $BUILD_OCI <&-")
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2,
        b"build-oci: error: standard input: is closed",
    )


def test_closed_output() -> None:
    """An archive that nobody can get is no success."""
    for closed in (">&-", "1< /dev/null"):
        done = run(f"eval $BUILD_OCI -o oci-archive:- {closed}", input=IMAGE.encode())
        assert (done.returncode, done.stderr.splitlines()[0]) == (
            2,
            b"build-oci: error: standard output: is closed",
        )
    assert (
        run("eval $BUILD_OCI -o oci-archive:- | wc -c", input=IMAGE.encode()).stdout.strip() > b"1"
    )


@pytest.mark.parametrize(
    "key",
    ["layer: trée", "layers: [{add: trée}]", "layer: {image: bild/é}", "parent: {image: bild/é}"],
)
def test_names_of_files_in_the_c_locale(key: str, tmp_path: Path) -> None:
    """A configuration is UTF-8 whatever the locale makes of names of files."""
    (tmp_path / "trée").mkdir()
    written = run("eval $BUILD_OCI -o bild/é", input=IMAGE.encode(), cwd=tmp_path)
    assert (written.returncode, written.stderr) == (0, b"")
    ascii_only = "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0"
    done = run(
        f"export {ascii_only}; eval $BUILD_OCI -o neu/é",
        input=f"{IMAGE}  {key}\n".encode(),
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "neu" / "é" / "index.json").exists()


def test_endless_input() -> None:
    done = run("eval $BUILD_OCI < /dev/zero")
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2,
        b"build-oci: error: <stdin>: the document is larger than 4 MiB",
    )


@pytest.mark.parametrize("stream", [1, 2])
def test_descriptors_are_occupied(stream: int) -> None:
    """A file that is opened later must not become the standard error of the C library."""
    code = "import os, sys; from build_oci.cli.command import main; main(['--version']); "
    code += "os.write(3, b'%d' % os.open('/dev/null', os.O_RDONLY))"
    done = run(f"'{sys.executable}' -c \"{code}\" 3>&1 {stream}>&- | tail -c 1")
    assert done.stdout not in (b"", b"0", b"1", b"2")
