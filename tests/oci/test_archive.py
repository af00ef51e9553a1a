"""`-o oci-archive:` (contract: output-archive): the layout as one tar, the same for the same image,
whole or not there.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import clients
import layouts
import pytest
from faults import BIG, SHIM, TIMEOUT, command, environment, fault, make_tree, run
from preload import preload

from build_oci.oci.archive import Archive, open_output
from build_oci.oci.layout import Layout


@pytest.fixture
def config(tree: Path) -> clients.Document:
    return clients.layer_config(tree)


def streamed(config: clients.Document, *args: str, **env: str) -> bytes:
    """What `-o oci-archive:-` writes to a pipe."""
    done = subprocess.run(
        command(Path("oci-archive:-"), *args), input=json.dumps(config).encode(),
        env=environment(**env), capture_output=True, check=False,
        timeout=TIMEOUT,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def test_the_archive_holds_the_layout(config: clients.Document, tmp_path: Path) -> None:
    """Read by the standard library: what `-o DIR` writes, sorted, with index.json last, nobody's
    and without times.
    """
    epoch = {"SOURCE_DATE_EPOCH": "1"}
    path = tmp_path / "image.tar"
    assert run(config, Path(f"oci-archive:{path}"), **epoch) == (0, "")
    assert run(config, tmp_path / "layout", **epoch) == (0, "")
    with tarfile.open(path) as tar:
        members = tar.getmembers()
        tar.extractall(tmp_path / "unpacked", filter="data")
    names = [member.name for member in members]
    assert names == [*sorted(names[:-2]), "oci-layout", "index.json"]
    assert {
        (member.uid, member.gid, member.uname, member.gname, member.mtime) for member in members
    } == {(0, 0, "", "", 0)}
    assert {member.mode for member in members} == {0o755, 0o644}
    for name in ("", "blobs", "blobs/sha256"):
        assert sorted(os.listdir(tmp_path / "unpacked" / name)) == sorted(
            os.listdir(tmp_path / "layout" / name)
        )
    for file in (tmp_path / "layout").rglob("*"):
        assert (
            file.is_dir()
            or (tmp_path / "unpacked" / file.relative_to(tmp_path / "layout")).read_bytes()
            == file.read_bytes()
        )
    assert sorted(os.listdir(tmp_path)) == ["image.tar", "layout", "tree", "unpacked"]
    assert path.stat().st_size % 512 == 0


def test_two_builds_write_the_same(config: clients.Document, tmp_path: Path) -> None:
    """Into a file and down a pipe, by any number of workers."""
    epoch = {"SOURCE_DATE_EPOCH": "1"}
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    first = streamed(config, "-j1", TMPDIR=str(temporary), **epoch)
    assert os.listdir(temporary) == []
    assert run(config, Path(f"oci-archive:{tmp_path / 'file'}"), "-j3", **epoch) == (0, "")
    assert (tmp_path / "file").read_bytes() == first


def test_sha512_and_large_sizes(tmp_path: Path) -> None:
    """Names that ustar cannot hold."""
    with Archive(str(tmp_path / "image.tar")) as layout:
        name = layout.temporary()
        os.write(fd := layout.create(name), b"content")
        os.close(fd)
        layout.add(name, "sha512:" + "0" * 128)
        layout.commit(b"{}")
    with tarfile.open(tmp_path / "image.tar") as tar:
        assert tar.extractfile(f"blobs/sha512/{'0' * 128}").read() == b"content"  # type: ignore[union-attr]


@pytest.mark.clients
def test_clients_read_it(config: clients.Document, tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    assert run(config, Path(f"oci-archive:{path}")) == (0, "")
    skopeo = clients.need("skopeo")
    clients.run(
        skopeo,
        "--insecure-policy",
        "copy",
        "--preserve-digests",
        f"oci-archive:{path}",
        f"dir:{tmp_path / 'copied'}",
    )
    with tarfile.open(path) as tar:
        tar.extractall(tmp_path / "layout", filter="data")
    assert (tmp_path / "copied" / "manifest.json").read_bytes() == clients.blob(
        tmp_path / "layout", clients.index_of(tmp_path / "layout")["manifests"][0]["digest"]
    )


@pytest.mark.parametrize("kind", ["missing", "file", "link", "fifo"])
def test_what_stands_at_the_path(kind: str, tmp_path: Path) -> None:
    """A file is replaced as a whole, a symbolic link followed, a FIFO written to."""
    config: clients.Document = {"images": [{"os": "linux", "architecture": "amd64"}]}
    path = tmp_path / "image.tar"
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    if kind == "fifo":
        os.mkfifo(path)
        reader.start()
    elif kind == "link":
        path.symlink_to("target")
    elif kind == "file":
        path.write_bytes(b"former")
    epoch = {"SOURCE_DATE_EPOCH": "1", "TMPDIR": str(tmp_path)}
    assert run(config, Path(f"oci-archive:{path}"), **epoch) == (0, "")
    if kind == "fifo":
        reader.join()
        assert path.is_fifo()
    assert (read[0] if read else path.read_bytes()) == streamed(config, **epoch)
    assert path.is_symlink() == (kind == "link")
    assert sorted(os.listdir(tmp_path)) == ["image.tar", *(["target"] if kind == "link" else [])]


@pytest.mark.parametrize("path", ["", "missing/image.tar", "."])
def test_a_path_that_cannot_be_written(path: str, tmp_path: Path) -> None:
    status, said = run(
        {"images": [{"os": "linux", "architecture": "amd64"}]},
        Path(f"oci-archive:{tmp_path / path if path else ''}"),
    )
    assert status == (1 if path else 2)
    assert len([line for line in said.splitlines() if not line.startswith("hint: ")]) == 1
    assert os.listdir(tmp_path) == []


def test_kinds_of_output(tmp_path: Path) -> None:
    assert (
        type(open_output(f"oci:{tmp_path}"))
        is type(open_output(str(tmp_path)))
        is type(open_output(Path("oci-archive:x")))
        is Layout
    )
    assert open_output(f"oci:{tmp_path}").path == str(tmp_path)
    assert type(open_output("oci-archive:x")) is Archive


# ---- what goes wrong


CALLS: Sequence[tuple[str, int]] = [
    ("open", errno.EMFILE),
    ("write", errno.EIO),
    ("copy", errno.EIO),
    ("fsync", errno.EIO),
    ("close", errno.EIO),
    ("rename", errno.EIO),
    ("mkdir", errno.ENOSPC),
    ("flock", errno.ENOLCK),
]


@pytest.mark.once
@pytest.mark.parametrize(("call", "error"), CALLS, ids=[call for call, _ in CALLS])
def test_every_call_fails(call: str, error: int, tmp_path: Path) -> None:
    """The former archive stays, and nothing else; or the new one is there."""
    tree = make_tree(tmp_path / "tree", 100_000)
    folder = tmp_path / "output"
    folder.mkdir()
    path = folder / "image.tar"
    for nth in range(1, 100):
        happened = tmp_path / f"happened-{nth}"
        path.write_bytes(b"former")
        faults = fault(call, f"{folder}*", nth, error=error, happened=happened)
        status, said = run(clients.layer_config(tree), Path(f"oci-archive:{path}"), "-j2", **faults)
        assert os.listdir(folder) == ["image.tar"]
        if status:
            assert status == 1
            assert said.startswith(f"build-oci: error: {folder}")
            assert path.read_bytes() == b"former"
        else:
            with tarfile.open(path) as tar:
                assert tar.getnames()[-1] == "index.json"
        if not happened.exists():
            assert (status, nth > 1) == (0, True)
            break


@pytest.mark.platform
def test_killed_at_many_moments(tmp_path: Path) -> None:
    """The former archive or the new one; the next build clears what is left."""
    tree = make_tree(tmp_path / "tree", 100_000)
    folder = tmp_path / "output"
    folder.mkdir()
    path = folder / "image.tar"
    config = clients.layer_config(tree)
    assert run(config, Path(f"oci-archive:{path}"), SOURCE_DATE_EPOCH="1") == (0, "")
    former = path.read_bytes()
    ended = set()
    for nth in range(1, 40, 3):
        faults = fault("open", f"{folder}/.build-oci-*", nth, do="kill -KILL $PPID")
        status, _ = run(config, Path(f"oci-archive:{path}"), SOURCE_DATE_EPOCH="2", **faults)
        ended.add(status)
        if status == 0:
            break
        assert path.read_bytes() == former
    assert ended == {0, -signal.SIGKILL}
    assert os.listdir(folder) == ["image.tar"]


def test_nobody_reads(config: clients.Document, tmp_path: Path) -> None:
    """A closed pipe ends it with one line."""
    reader, writer = os.pipe()
    os.close(reader)
    env = environment(TMPDIR=str(tmp_path))
    done = subprocess.run(
        command(Path("oci-archive:-")), input=json.dumps(config).encode(), env=env, stdout=writer,
        stderr=subprocess.PIPE, check=False,
        timeout=TIMEOUT,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (
        1,
        b"build-oci: error: standard output: cannot be written: Broken pipe\n",
    )
    assert os.listdir(tmp_path) == ["tree"]


def test_a_reader_that_sleeps_does_not_hold_off_a_signal(
    config: clients.Document, tmp_path: Path
) -> None:
    """contract: cli-signals. A signal acts within half a second everywhere."""
    reader, writer = os.pipe()
    env = environment(TMPDIR=str(tmp_path))
    process = subprocess.Popen(
        command(Path("oci-archive:-")),
        stdin=subprocess.PIPE,
        env=env,
        stdout=writer,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(config).encode())
    process.stdin.close()
    os.read(reader, 1)  # the archive has begun
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(TIMEOUT) == 128 + signal.SIGTERM
    os.close(reader)
    os.close(writer)
    assert os.listdir(tmp_path) == ["tree"]


def test_disk_full(config: clients.Document, tmp_path: Path) -> None:
    """While the archive is being made of the blobs."""
    status, said = run(
        config,
        Path(f"oci-archive:{tmp_path / 'image.tar'}"),
        FAULT_ROOM=str(BIG),
        **preload(SHIM),
    )
    assert status == 1
    assert "No space left on device" in said
    assert os.listdir(tmp_path) == ["tree"]


def test_a_parent_goes_into_it(tmp_path: Path) -> None:
    """Blobs that are carried are there too."""
    parent = layouts.Layout(tmp_path / "parent")
    parent.index(layouts.image(parent, [layouts.FIRST]))
    config = {
        "compression": "disabled",
        "images": [{"os": "linux", "architecture": "amd64", "parent": {"image": str(parent.path)}}],
    }
    assert run(config, Path(f"oci-archive:{tmp_path / 'image.tar'}")) == (0, "")
    with tarfile.open(tmp_path / "image.tar") as tar:
        assert f"blobs/sha256/{layouts.FIRST_DIGEST}" in tar.getnames()
