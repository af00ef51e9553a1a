"""Files at paths that the user names (contract: cli-user-files): replaced as a whole if regular,
written to and never replaced otherwise."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import subprocess
import threading
from pathlib import Path

import clients
import pytest
from faults import command, environment

from build_oci.errors import Cancelled, OutputError
from build_oci.oci.output_files import check_writable, write_file

OPTION = "--metrics"


def test_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    check_writable(str(path), OPTION)
    write_file(str(path), b"content", OPTION)
    assert path.read_bytes() == b"content"
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """Who has the former one open still reads that, and the mode stays."""
    path = tmp_path / "file"
    path.write_bytes(b"former")
    path.chmod(0o640)
    with path.open("rb") as former:
        write_file(str(path), b"new", OPTION)
        assert former.read() == b"former"
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("target", ["there", "missing"])
def test_a_symbolic_link_is_followed(tmp_path: Path, target: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "there").write_bytes(b"former")
    link = tmp_path / "link"
    (tmp_path / "second").symlink_to(f"folder/{target}")
    link.symlink_to("second")
    check_writable(str(link), OPTION)
    write_file(str(link), b"content", OPTION)
    assert link.is_symlink()
    assert (tmp_path / "folder" / target).read_bytes() == b"content"
    assert sorted(os.listdir(tmp_path)) == ["folder", "link", "second"]


def test_a_link_that_leads_to_itself(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(OutputError):
        check_writable(str(tmp_path / "link"), OPTION)
    with pytest.raises(OutputError):
        write_file(str(tmp_path / "link"), b"", OPTION)


def test_a_fifo_is_written_to(tmp_path: Path) -> None:
    """Its reader gets all of it, more than a pipe holds at once, and may come late."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    content = os.urandom(300_000)
    read: list[bytes] = []
    waited = threading.Event()

    def read_late() -> None:
        waited.wait(10)
        read.append(path.read_bytes())

    reader = threading.Thread(target=read_late)
    reader.start()
    write_file(str(path), content, OPTION, waited.set)
    reader.join()
    assert read == [content]
    assert stat.S_ISFIFO(path.stat().st_mode)


@pytest.mark.parametrize("reads", [False, True])
def test_a_fifo_that_nobody_reads_can_be_given_up(tmp_path: Path, reads: bool) -> None:
    """contract: cli-signals. A signal acts within half a second everywhere."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > 30:
            raise Cancelled("stopped")

    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if reads else -1
    with pytest.raises(Cancelled):
        write_file(str(path), bytes(1 << 20), OPTION, check)
    if reads:
        os.close(fd)


def test_a_device_is_written_to(tmp_path: Path) -> None:
    """Its error is told, and it stays a device."""
    clients.need_root()
    path = tmp_path / "full"
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 7))  # as /dev/full
        os.close(os.open(path, os.O_WRONLY))
    except OSError:
        pytest.skip("no device can be made or opened here")
    with pytest.raises(OutputError, match=os.strerror(errno.ENOSPC)):
        write_file(str(path), b"content", OPTION)
    assert stat.S_ISCHR(path.stat().st_mode)
    assert os.listdir(tmp_path) == ["full"]


def test_a_directory_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing" / "file"):
        with pytest.raises(OutputError, match="no file can be written here"):
            check_writable(str(path), OPTION)
        with pytest.raises(OutputError):
            write_file(str(path), b"", OPTION)


IMAGE = {"os": "linux", "architecture": "amd64"}


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_that_is_a_file_is_written_to(tmp_path: Path, name: str) -> None:
    """After what is there already, as by `>>`."""
    config = json.dumps({"images": [IMAGE]})
    path = tmp_path / "said"
    path.write_bytes(b"former\n")
    inode = path.stat().st_ino
    with path.open("ab") as file:
        args = command(tmp_path / "output", "--digestfile", name)
        subprocess.run(args, input=config, env=environment(), stdout=file, text=True, check=True)
    digest = clients.index_of(tmp_path / "output")["manifests"][0]["digest"]
    assert path.read_text() == f"former\n{digest}"
    assert path.stat().st_ino == inode


@pytest.mark.parametrize("images", [1, 2])
def test_digestfile(tmp_path: Path, images: int) -> None:
    """contract: cli-digestfile. The digest of the index (or of the one manifest) and nothing
    else.
    """
    config = {"images": [IMAGE, {**IMAGE, "architecture": "arm64"}][:images]}
    clients.run_build(
        config, tmp_path / "output", args=["--digestfile", str(tmp_path / "digest")], cwd=tmp_path
    )
    manifest = clients.index_of(tmp_path / "output")["manifests"][0]["digest"]
    index = (
        "sha256:" + hashlib.sha256((tmp_path / "output" / "index.json").read_bytes()).hexdigest()
    )
    assert (tmp_path / "digest").read_text() == (manifest if images == 1 else index)


def test_digestfile_of_a_named_index(tmp_path: Path) -> None:
    """With `ref-name`: of the index that a client copies by this name."""
    config = {"ref-name": "app", "images": [IMAGE]}
    clients.run_build(
        config, tmp_path / "output", args=["--digestfile", str(tmp_path / "digest")], cwd=tmp_path
    )
    (named,) = clients.index_of(tmp_path / "output")["manifests"]
    assert (named["annotations"], named["digest"]) == (
        {"org.opencontainers.image.ref.name": "app"},
        (tmp_path / "digest").read_text(),
    )
