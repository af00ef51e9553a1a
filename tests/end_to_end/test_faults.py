"""What goes wrong around a build: disks, outputs, permissions. One clear error, nothing left
behind, never a hang.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import clients
import oracles
import pytest
from faults import (
    BIG,
    SHIM,
    check_layout,
    check_unbroken,
    fault,
    make_tree,
    names,
    parent,
    quoted,
    run,
    snapshot,
    unharmed,
    upon,
)
from preload import preload

from build_oci.oci.layout import Layout

__all__ = ["parent"]
pytestmark = pytest.mark.once

NO_ROOM = "free some space, or write elsewhere with --output"


# ---- what is read


@pytest.mark.parametrize(
    ("name", "call", "what"),
    [
        ("d/050", "read", "cannot be read"),
        ("d/large", "read", "cannot be read"),
        ("d/large", "open", "cannot be opened"),
        ("d", "readdir", "cannot be listed"),
        ("d/050", "stat", "cannot be looked at"),
    ],
)
def test_disk_error(name: str, call: str, what: str, tree: Path, output: Path) -> None:
    with unharmed(output):
        status, said = run(
            clients.layer_config(tree), output, **fault(call, tree / name, error=errno.EIO)
        )
    assert (status, said) == (1, f"build-oci: error: {tree / name}: {what}: Input/output error\n")


@pytest.mark.parametrize("nth", [1, 30, 42, 45])
def test_disk_error_later(nth: int, tree: Path, output: Path) -> None:
    """In the midst of the digest, in its last piece, and in the content."""
    path = tree / "d" / "large"
    with unharmed(output):
        status, said = run(
            clients.layer_config(tree, compression="gzip"),
            output,
            **fault("read", path, nth, error=errno.EIO),
        )
    assert (status, said) == (1, f"build-oci: error: {path}: cannot be read: Input/output error\n")


def test_disk_error_in_parent(tree: Path, parent: Path, tmp_path: Path) -> None:
    """At every read of whatever of the parent's files."""
    config = upon(clients.layer_config(tree / "d"), parent)
    for nth in itertools.count(1):
        happened = tmp_path / f"happened-{nth}"
        status, said = run(
            config,
            tmp_path / "new",
            **fault("read", f"{parent}/*", nth, error=errno.EIO, happened=happened),
        )
        if not happened.exists():
            assert (status, said) == (0, "")
            assert nth > 7  # index, manifest, config, two layers, some of them to their end
            break
        assert status == 1
        assert said.startswith(f"build-oci: error: {parent}/")
        assert said.endswith(
            ": cannot be read: Input/output error\nhint: its disk or file system fails: copy the"
            " image again, to another one\n"
        )
        assert not (tmp_path / "new").exists()


# ---- the output

CALLS = [
    ("open", errno.ENOSPC),
    ("open", errno.EMFILE),
    ("write", errno.EIO),
    ("write", errno.ENOSPC),
    ("close", errno.EIO),
    ("close", errno.ENOSPC),
    ("rename", errno.ENOSPC),
    ("rename", errno.EIO),
    ("mkdir", errno.ENOSPC),
    ("link", errno.EXDEV),
    ("flock", errno.ENOLCK),
    ("flock", errno.EIO),
    ("fsync", errno.EIO),
    ("fsync", errno.ENOSPC),
    ("fsync", errno.EINVAL),
    ("readdir", errno.EIO),
    ("rmdir", errno.EBUSY),
]

HARMLESS = [
    ("flock", errno.ENOLCK),
    ("flock", errno.EIO),
    ("fsync", errno.EINVAL),
    ("readdir", errno.EIO),
    ("rmdir", errno.EBUSY),
]


@pytest.mark.parametrize(
    ("call", "error"), CALLS, ids=[f"{call}-{errno.errorcode[error]}" for call, error in CALLS]
)
def test_every_call_fails(
    call: str, error: int, parent: Path, former: Path, tmp_path: Path
) -> None:
    """Each call of that kind to the output in turn: what does no harm is survived, all else is
    told, and the former image stays.
    """
    tree = make_tree(tmp_path / "tree", 100_000)
    config = upon(clients.layer_config(tree, compression="gzip"), parent)
    told = 0
    for nth in itertools.count(1):
        output, happened = tmp_path / f"output-{nth}", tmp_path / f"happened-{nth}"
        shutil.copytree(former, output)
        status, said = run(
            config, output, "-j2", **fault(call, f"{output}*", nth, error=error, happened=happened)
        )
        assert check_layout(output) == 1
        if status:
            told += 1
            assert status == 1
            assert (call, error) not in HARMLESS
            assert said.startswith(f"build-oci: error: {output}")
            assert f": cannot be written: {os.strerror(error)}\n" in said
            check_unbroken(snapshot(former), output)
        else:
            assert said == ""
            assert len(clients.manifest_of(output)["layers"]) == 3
        if not happened.exists():
            assert status == 0
            assert nth > 1
            assert (told > 0) == ((call, error) not in [*HARMLESS, ("link", errno.EXDEV)])
            break


@pytest.mark.parametrize("call", ["unlink", "rmdir", "readdir", "close", "flock", "fsync"])
def test_every_call_of_the_undo_fails(call: str, output: Path, tmp_path: Path) -> None:
    """While a build that found the disk full takes back what it did: one line on that, and nothing
    is left.
    """
    tree = make_tree(tmp_path / "tree", 100_000)
    for nth in itertools.count(1):
        happened = tmp_path / f"happened-{nth}"
        with unharmed(output):
            faults = fault(
                call, f"{output}/.build-oci-*", nth, error=errno.EIO, happened=happened
            ) | {"FAULT_ROOM": "300000"}
            status, said = run(
                clients.layer_config(tree, compression="disabled"), output, "-j2", **faults
            )
        assert status == 1
        assert len([line for line in said.splitlines() if not line.startswith("hint: ")]) == 1
        if not happened.exists():
            assert nth > 1 or call == "fsync"
            break


def test_copy_fails(parent: Path, output: Path, tmp_path: Path) -> None:
    """Where a blob of the parent can be neither linked nor copied by the kernel."""
    parent = shutil.copytree(parent, tmp_path / "parent")
    for blob in (parent / "blobs" / "sha256").iterdir():
        blob.chmod(0o600)  # which no layout may have
    config: clients.Document = {
        "images": [
            {
                "os": "linux",
                "architecture": "amd64",
                "parent": {"image": str(parent), "recompress": False},
            }
        ]
    }
    happened = tmp_path / "happened"
    with unharmed(output):
        status, said = run(
            config, output, **fault("copy", f"{output}/*", 0, error=errno.EIO, happened=happened)
        )
        if not happened.exists():
            pytest.skip("this file system shares the data of files")
    assert (status, said) == (
        1,
        f"build-oci: error: {output}: cannot be written: Input/output error\n",
    )
    assert run(config, output, **fault("copy", f"{output}/*", 1, error=errno.EIO)) == (0, "")
    check_layout(output)


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """A tmpfs on FOLDER; the running test is skipped where none may be mounted."""
    clients.need_root()
    folder.mkdir()
    done = subprocess.run(
        [clients.need("mount"), "-t", "tmpfs", "-o", options, "none", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run([clients.need("umount"), "-l", folder], check=True)


@pytest.mark.parametrize("kind", ["size", "nr_inodes"])
def test_small_disk(kind: str, parent: Path, former: Path, tmp_path: Path) -> None:
    """A disk that is full at the first blob, a later one, a document or the commit: of each size up
    to the first that is enough.
    """
    tree = make_tree(tmp_path / "tree", 100_000)
    config = upon(clients.layer_config(tree), parent)
    assert run(config, tmp_path / "measured") == (0, "")
    page = 4096
    used = sum(
        -(-path.stat().st_size // page)
        for path in (tmp_path / "measured").rglob("*")
        if path.is_file()
    )
    sizes = [20, used // 3, 2 * used // 3, *range(used - 4, used + 20)]
    options = (
        [f"size={size * page}" for size in sizes]
        if kind == "size"
        else [f"nr_inodes={inodes}" for inodes in range(10, 30)]
    )
    for number, option in enumerate(options):
        with small_disk(tmp_path / f"disk-{number}", option) as disk:
            shutil.copytree(former, disk / "output")
            status, said = run(config, disk / "output", "-j2")
            check_layout(disk / "output")
            if status == 0:
                assert number > 5
                assert len(clients.manifest_of(disk / "output")["layers"]) == 3
                break
            assert status == 1
            assert f": cannot be written: No space left on device\nhint: {NO_ROOM}\n" in said
            assert snapshot(disk / "output") == snapshot(former)
    else:
        pytest.fail("no disk was large enough")


@pytest.mark.parametrize(
    ("do", "what"),
    [
        ("rm -r {output}", "No such file or directory"),
        ("rm -r {output}; touch {output}", "No such file or directory"),
        ("rm {output}/index.json; mkdir {output}/index.json", "Is a directory"),
        ("rm -r {output}/blobs; touch {output}/blobs", "File exists"),
        (
            "chmod 555 {output} {output}/blobs {output}/blobs/sha256 {output}/.build-oci-*",
            "Permission denied",
        ),
    ],
)
@pytest.mark.parametrize(
    "moment", ["tree/d", "output/.build-oci-*/index.json"], ids=["walk", "commit"]
)
def test_output_changes(do: str, what: str, moment: str, tree: Path, output: Path) -> None:
    """While the tree is walked, and when the documents are about to be put in place."""
    faults = fault("open", output.parent / moment, do=do.format(output=quoted(output)))
    status, said = run(clients.layer_config(tree), output, preexec=obey_modes, **faults)
    if output.is_dir():
        output.chmod(0o755)
    assert status == 1
    assert said.startswith(f"build-oci: error: {output}")
    assert f": cannot be written: {what}\n" in said


def test_output_is_moved_away(tree: Path, output: Path) -> None:
    """The image comes to the path that was asked for, and nothing stays where it was begun."""
    away = output.with_name("away")
    faults = fault(
        "open", tree / "d", do=f"{quoted('mv', output, away)}; {quoted('mkdir', output)}"
    )
    before = snapshot(output)
    assert run(clients.layer_config(tree), output, **faults) == (0, "")
    assert check_layout(output) == 1
    assert snapshot(away) == before


@pytest.mark.parametrize("compression", ["zstd", "gzip", "disabled"])
@pytest.mark.parametrize("room", [0, 100_000, BIG, 7 << 20])
def test_disk_full(room: int, compression: str, tree: Path, output: Path) -> None:
    """Whatever does not fit any more, the last of them only the JSON documents."""
    config = clients.layer_config(tree, compression=compression)
    if room == 7 << 20:
        measured = output.with_name("measured")
        assert run(config, measured) == (0, "")
        room = clients.manifest_of(measured)["layers"][0]["size"] + 10
    with unharmed(output):
        status, said = run(config, output, "-j2", FAULT_ROOM=str(room), **preload(SHIM))
    assert status == 1
    assert (
        said == f"build-oci: error: {output}: cannot be written: No space left on device\nhint:"
        f" {NO_ROOM}\n"
    )


@pytest.mark.parametrize("at_fault", [".", "blobs"])
def test_output_is_a_file(at_fault: str, tree: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    (output / at_fault).parent.mkdir(parents=True, exist_ok=True)
    (output / at_fault).write_text("former")
    status, said = run(clients.layer_config(tree), output)
    assert (status, said.splitlines()[0]) == (
        1,
        f"build-oci: error: {output / at_fault}: cannot be written: File exists",
    )
    assert (output / at_fault).read_text() == "former"
    assert output.is_file() or os.listdir(output) == ["blobs"]


@pytest.mark.parametrize("builds", [2, 10])
def test_builds_at_once(builds: int, tree: Path, tmp_path: Path) -> None:
    """contract: layout-many-builds. Nobody takes the work of a build that is under way for
    something left behind; the last index wins.
    """
    output = tmp_path / "output"
    configs = [
        clients.layer_config(tree, compression=compression) for compression in ("zstd", "disabled")
    ] * (builds // 2)
    ended: list[tuple[int, str]] = []
    threads = [
        threading.Thread(target=lambda config=config: ended.append(run(config, output, "-j2")))
        for config in configs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == [(0, "")] * len(configs)
    assert check_layout(output) == 1
    assert clients.layer_tars(output) == [oracles.expected_tar(tree)]


def test_other_build_fails(tmp_path: Path) -> None:
    """It takes away the folders that it made, though we count on them."""
    output = tmp_path / "output"
    other = Layout(output)
    with other, Layout(output) as layout:
        layout.add_document("a/b", b"{}")
        other.__exit__(None, None, None)
        assert not (output / "blobs").exists()
        layout.commit(b"{}")
    assert names(output / "blobs" / "sha256") == [
        "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    ]
    assert (output / "index.json").read_bytes() == b"{}"


def test_work_taken_for_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another build may clear our directory before we have locked it."""
    make = os.mkdir
    taken: list[Path | str] = []

    def mkdir(path: Path | str, mode: int, *, dir_fd: int | None = None) -> None:
        make(path, mode, dir_fd=dir_fd)
        if Path(path).name.startswith(".build-oci-") and not taken:
            taken.append(path)
            os.rmdir(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", mkdir)
    with Layout(tmp_path / "output") as layout:
        layout.add_document("a/b", b"{}")
        layout.commit(b"{}")
    assert taken
    assert sorted(os.listdir(tmp_path / "output")) == ["blobs", "index.json", "oci-layout"]


# ---- permissions


def obey_modes() -> None:
    """Makes even root heed the mode of a file after exec: takes CAP_DAC_OVERRIDE and
    CAP_DAC_READ_SEARCH from what it may have.
    """
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


@pytest.mark.parametrize(
    ("name", "mode", "what"),
    [
        ("d/050", 0, "cannot be opened"),
        ("d/large", 0, "cannot be opened"),
        ("d", 0, "cannot be opened"),
        ("d", 0o600, "cannot be looked at"),
    ],
)
def test_unreadable(name: str, mode: int, what: str, tree: Path, output: Path) -> None:
    """contract: promise-nothing-lost. A file that cannot be read fails the build and is named."""
    path = tree / name
    path.chmod(mode)
    try:
        with unharmed(output):
            status, said = run(clients.layer_config(tree), output, preexec=obey_modes)
    finally:
        path.chmod(0o755)
    named = path if mode == 0 else path / "000"
    assert status == 1
    assert f"{what}: Permission denied" in said
    assert str(named) in said
    assert said.endswith(
        "\nhint: run as a user who may read it, or under fakeroot; nothing is left out silently\n"
    )


def test_read_only_output(output: Path) -> None:
    output.chmod(0o555)
    try:
        with unharmed(output):
            status, said = run(
                {"images": [{"os": "linux", "architecture": "arm64"}]}, output, preexec=obey_modes
            )
    finally:
        output.chmod(0o755)
    assert status == 1
    assert said.startswith(f"build-oci: error: {output}/")
    assert said.endswith(
        ": cannot be written: Permission denied\nhint: write elsewhere with --output\n"
    )
