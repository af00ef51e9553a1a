"""The layout on disk: all or nothing, whoever else writes there (contract: layout-atomic)."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import tempfile
from pathlib import Path

import clients
import pytest

from build_oci.errors import OutputError
from build_oci.oci.layout import Layout
from build_oci.oci.untrusted import FilePart


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_commit(tmp_path: Path) -> None:
    """contract: layout-files. `oci-layout`, `index.json`, blobs under their digest; files 0644,
    folders 0755, less umask.
    """
    output = tmp_path / "a" / "b"
    former = os.umask(0o027)
    try:
        with Layout(output) as layout:
            descriptor = layout.add_document("application/x", b"{}")
            layout.commit(b'{"schemaVersion":2}')
    finally:
        os.umask(former)
    blob = output / "blobs" / descriptor.digest.replace(":", "/")
    assert files(output) == [
        "blobs",
        "blobs/sha256",
        f"blobs/sha256/{blob.name}",
        "index.json",
        "oci-layout",
    ]
    assert (blob.read_bytes(), descriptor.size) == (b"{}", 2)
    assert json.loads((output / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert {
        path.stat().st_mode & 0o777 for path in (blob, output / "index.json", output / "oci-layout")
    } == {0o640}
    assert {path.stat().st_mode & 0o777 for path in (output, output.parent, blob.parent)} == {0o750}


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    """contract: layout-atomic. A build that fails leaves the former index as it was and no
    temporary file; what it made goes away.
    """
    with Layout(tmp_path / "new" / "folder") as layout:
        layout.add_document("application/x", b"{}")
    assert files(tmp_path) == []
    with Layout(tmp_path) as layout:
        layout.commit(b"{}")
    before = files(tmp_path)
    with Layout(tmp_path) as layout:
        layout.add_document("application/x", b"another")
    assert files(tmp_path) == before
    assert (tmp_path / "index.json").read_bytes() == b"{}"


def test_a_build_at_work_is_no_leftover(tmp_path: Path) -> None:
    """Another build may be writing to the same output."""
    (tmp_path / "blobs" / "sha256").mkdir(parents=True)
    (tmp_path / "blobs" / "sha256" / "other").write_text("somebody's")
    with Layout(tmp_path) as alive:
        write(tmp_path)
        (hidden,) = tmp_path.glob(".build-oci-*")
        alive.commit(b"[]")
    assert hidden.name not in os.listdir(tmp_path)
    assert (tmp_path / "blobs" / "sha256" / "other").read_text() == "somebody's"


def write(output: Path) -> None:
    with Layout(output) as layout:
        layout.add_document("application/x", b"{}")
        layout.commit(b"{}")


@pytest.mark.parametrize("name", ["", "blobs", "blobs/sha256", "index.json", "oci-layout"])
def test_what_is_in_the_way_is_named(tmp_path: Path, name: str) -> None:
    """contract: cli-errors. An error names the path; contract: layout-atomic: a build that fails
    leaves nothing.
    """
    output = tmp_path / "output"
    blocked = output / name
    if name.startswith(("index", "oci")):
        blocked.mkdir(parents=True)
    else:
        blocked.parent.mkdir(parents=True, exist_ok=True)
        blocked.write_text("in the way")
    before = files(tmp_path)
    with pytest.raises(OutputError) as caught:
        write(output)
    assert caught.value.where == str(blocked)
    assert "in the way" in caught.value.hint
    assert files(tmp_path) == before


@pytest.mark.parametrize("sync", [True, False])
def test_the_disk_has_the_blobs_before_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: bool
) -> None:
    """contract: layout-durable. "an index that is there after a power loss names blobs that are
    whole".
    """
    done: list[str] = []
    flush, rename = os.fsync, os.replace

    def fsync(fd: int) -> None:
        done.append("flush " + Path(os.readlink(f"/proc/self/fd/{fd}")).name)
        flush(fd)

    def replace(source: str, target: str, **more: int) -> None:
        done.append("rename " + Path(target).name)
        rename(source, target, **more)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    with Layout(tmp_path / "output", sync=sync) as layout:
        first, second = (
            layout.add_document("a/b", content)[1].removeprefix("sha256:")
            for content in (b"1", b"2")
        )
        layout.commit(b"{}")
    renames = [f"rename {first}", f"rename {second}", "rename oci-layout", "rename index.json"]
    assert [step for step in done if step.startswith("rename")] == renames
    if not sync:
        assert done == renames
        return
    blobs, index = done.index(renames[0]), done.index(renames[-1])
    assert sorted(done[:blobs]) == ["flush 0", "flush 1", "flush index.json", "flush oci-layout"]
    assert {"flush sha256", "flush blobs", "flush output", f"flush {tmp_path.name}"} == set(
        done[done.index(renames[1]) + 1 : index - 1]
    )
    assert done[index + 1 :] == ["flush output"]


def test_blobs_on_another_file_system(tmp_path: Path) -> None:
    """Known at the start, not after an hour's work."""
    device = tmp_path.stat().st_dev
    others = [
        folder
        for folder in map(Path, ("/dev/shm", "/tmp", "/var/tmp"))
        if folder.is_dir() and folder.stat().st_dev != device
    ]
    if not others:
        pytest.skip("there is no second file system")
    with tempfile.TemporaryDirectory(dir=others[0]) as elsewhere:
        (tmp_path / "blobs").symlink_to(elsewhere)
        with (
            pytest.raises(OutputError, match="Invalid cross-device link") as caught,
            Layout(tmp_path),
        ):
            pass
        assert "another file system" in caught.value.hint
    assert os.listdir(tmp_path) == ["blobs"]


def carried(parent: Path, output: Path) -> Path:
    """The blob at PARENT, carried into the layout OUTPUT."""
    digest = f"sha256:{hashlib.sha256(parent.read_bytes()).hexdigest()}"
    with Layout(output) as layout, parent.open("rb") as file:
        part = FilePart(file.fileno(), 0, parent.stat().st_size, is_whole=True)
        layout.carry(part, parent, digest)
        layout.commit(b"{}")
    return output / "blobs" / digest.replace(":", "/")


@pytest.mark.parametrize(
    ("mode", "linked"),
    [(0o644, True), (0o444, True), (0o600, False), (0o666, False), (0o4777, False)],
)
def test_a_carried_blob_is_the_same(tmp_path: Path, mode: int, linked: bool) -> None:
    """contract: layout-files, parent-carried. Readable by everyone, shared with the parent only
    where nobody else can change it.
    """
    parent = tmp_path / "parent"
    parent.write_bytes(os.urandom(3 << 20))
    parent.chmod(mode)
    blob = carried(parent, tmp_path / "output")
    assert blob.read_bytes() == parent.read_bytes()
    assert blob.stat().st_mode & 0o7777 == (mode if linked else 0o644)
    assert blob.samefile(parent) == linked


def test_a_blob_of_somebody_else_is_copied(tmp_path: Path) -> None:
    """Its owner could change it later."""
    clients.need_root()
    parent = tmp_path / "parent"
    parent.write_bytes(b"content")
    os.chown(parent, 65534, 65534)
    blob = carried(parent, tmp_path / "output")
    assert not blob.samefile(parent)
    assert (blob.stat().st_uid, blob.read_bytes()) == (0, b"content")


# ---- what killed builds have left

HIDDEN = ".build-oci-0123456789abcdef"


def leftover(
    folder: Path,
    name: str = HIDDEN,
    content: tuple[str, ...] = ("0", "17", "index.json", "oci-layout"),
    mode: int = 0o700,
) -> Path:
    path = folder / name
    path.mkdir(mode)
    for file in content:
        (path / file).write_text("")
    return path


def test_leftovers_are_cleared(tmp_path: Path) -> None:
    """contract: layout-atomic. "the next build clears what a SIGKILL left"."""
    leftover(tmp_path)
    write(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["blobs", "index.json", "oci-layout"]


@pytest.mark.parametrize(
    ("name", "content", "mode"),
    [
        (".build-oci-config", (), 0o700),
        (".build-oci-0123456789ABCDEF", ("0",), 0o700),
        (".build-oci-0123456789abcde", ("0",), 0o700),
        (".build-oci-0123456789abcdef0", ("0",), 0o700),
        (".build-oci-0123456789abcdef\n", ("0",), 0o700),
        (HIDDEN + "-unlocked", ("0",), 0o700),
        (HIDDEN, ("0", "dakota.yaml"), 0o700),
        (HIDDEN, ("0", "1.yaml"), 0o700),
        (HIDDEN, ("0",), 0o755),
    ],
)
def test_what_looks_like_a_leftover_is_left_alone(
    tmp_path: Path, name: str, content: tuple[str, ...], mode: int
) -> None:
    """contract: layout-others-files. "Nothing that we did not make is removed"."""
    leftover(tmp_path, name, content, mode)
    before = files(tmp_path)
    write(tmp_path)
    assert set(before) <= set(files(tmp_path))


def test_a_leftover_with_a_directory_inside_stays_whole(tmp_path: Path) -> None:
    (leftover(tmp_path) / "18").mkdir()
    before = files(tmp_path)
    write(tmp_path)
    after = files(tmp_path)
    assert f"{HIDDEN}/18" in after
    assert set(before) - set(after) <= {
        f"{HIDDEN}/{name}" for name in ("0", "17", "index.json", "oci-layout")
    }


def test_a_symbolic_link_is_no_leftover(tmp_path: Path) -> None:
    elsewhere = leftover(tmp_path, "elsewhere")
    output = tmp_path / "output"
    output.mkdir()
    (output / HIDDEN).symlink_to(elsewhere)
    write(output)
    assert (output / HIDDEN).is_symlink()
    assert len(os.listdir(elsewhere)) == 4


def test_a_leftover_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    clients.need_root()
    path = leftover(tmp_path)
    os.chown(path, 65534, 65534)
    write(tmp_path)
    assert len(os.listdir(path)) == 4


def test_hidden_directory_is_private(tmp_path: Path) -> None:
    with Layout(tmp_path):
        (hidden,) = tmp_path.glob(".build-oci-*")
        assert hidden.stat().st_mode & 0o7777 == 0o700


def test_a_lock_that_another_holds_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """contract: cli-signals. A signal acts within half a second everywhere. The lock is asked for
    again on a directory of another name.
    """
    seen: list[int] = []
    lock = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        assert operation & fcntl.LOCK_NB
        seen.append(os.fstat(fd).st_ino)
        if len(seen) < 4:
            raise BlockingIOError(errno.EAGAIN, "held by another")
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    write(tmp_path)
    assert len(seen) == 4
    assert sorted(os.listdir(tmp_path)) == ["blobs", "index.json", "oci-layout"]


def test_a_lock_that_others_always_hold_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(fd: int, operation: int) -> None:
        raise BlockingIOError(errno.EAGAIN, "held by another")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OutputError, match="cannot be written: Resource temporarily unavailable"):
        write(tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "error", [errno.ENOLCK, errno.ENOSYS, errno.EIO, errno.ENOTSUP, errno.EINVAL, errno.EBADF]
)
def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """The build goes on. Its directory has a name that no other build takes for a leftover, should
    locks work for that one.
    """
    lock = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        raise OSError(error, os.strerror(error))

    leftover(tmp_path)
    monkeypatch.setattr(fcntl, "flock", flock)
    with Layout(tmp_path) as layout:
        layout.add_document("application/x", b"{}")
        monkeypatch.setattr(fcntl, "flock", lock)
        write(tmp_path)
        layout.commit(b"[]")
    assert (tmp_path / "index.json").read_bytes() == b"[]"
    assert sorted(os.listdir(tmp_path)) == ["blobs", "index.json", "oci-layout"]
