"""What goes wrong around a build: disks, outputs, permissions, limits. One clear error, nothing
left behind, never a hang.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import clients
import layouts
import oracles
import pytest
from faults import (
    BIG,
    TIMEOUT,
    check_layout,
    check_unbroken,
    environment,
    fault,
    make_tree,
    names,
    quoted,
    run,
    shim,
    snapshot,
    unharmed,
    upon,
)

import build_oci.cli.command
from build_oci.errors import Cancelled, TreeError
from build_oci.oci.layout import Layout
from build_oci.work.crew import Crew

pytestmark = pytest.mark.slow

NO_ROOM = "free some space, or write elsewhere with --output"


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, zstd and gzip."""
    folder = tmp_path_factory.mktemp("parent")
    for name, compression in (("below", "gzip"), ("layout", "zstd")):
        tree = make_tree(folder / f"tree-{name}", 400_000)
        config = clients.layer_config(tree, compression=compression)
        if name == "layout":
            config = upon(config, folder / "below")
            config["images"][0]["parent"]["recompress"] = False
        assert run(config, folder / name) == (0, "")
    return folder / "layout"


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
        assert said.endswith(": cannot be read: Input/output error\n")
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
    for nth in itertools.count(1):
        output, happened = tmp_path / f"output-{nth}", tmp_path / f"happened-{nth}"
        shutil.copytree(former, output)
        status, said = run(
            config, output, "-j2", **fault(call, f"{output}*", nth, error=error, happened=happened)
        )
        assert check_layout(output) == 1
        if status:
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
        status, said = run(config, output, "-j2", LD_PRELOAD=shim(), FAULT_ROOM=str(room))
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


# ---- limits


@pytest.mark.parametrize("limit", [64, 20, 9, 7])
def test_few_descriptors(limit: int, tree: Path, output: Path) -> None:
    """Enough descriptors, or an error that says so."""
    before = names(output)
    lower = functools.partial(resource.setrlimit, resource.RLIMIT_NOFILE, (limit, limit))
    status, said = run(clients.layer_config(tree), output, "-j2", preexec=lower)
    if limit >= 20:
        assert (status, said) == (0, "")
    elif status:
        assert (status, names(output)) == (1, before)
        assert (
            ": cannot be opened: Too many open files\nhint: raise the limit of open files (ulimit"
            " -n), or use fewer workers (-j)" in said
        )


def test_few_descriptors_on_parent(tree: Path, parent: Path, output: Path) -> None:
    lower = functools.partial(resource.setrlimit, resource.RLIMIT_NOFILE, (64, 64))
    assert run(upon(clients.layer_config(tree), parent), output, "-j8", preexec=lower) == (0, "")
    check_layout(output)


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
@pytest.mark.parametrize("limit", [96, 160, 224, 288, 352, 416, 512])
def test_little_memory(
    limit: int, compression: str, tree: Path, parent: Path, output: Path
) -> None:
    """So many MiB of addresses: enough, or an error that says so; never a crash."""
    before = snapshot(output)
    lower = functools.partial(resource.setrlimit, resource.RLIMIT_AS, (limit << 20, limit << 20))
    status, said = run(
        upon(clients.layer_config(tree, compression=compression), parent),
        output,
        "-j2",
        preexec=lower,
    )
    if status:
        assert status == 1
        assert "memory" in said
        assert snapshot(output) == before
    check_layout(output)


@pytest.mark.parametrize(
    "what", ["can't start new thread", "zstd compress error: Allocation error : not enough memory"]
)
def test_exhausted(
    what: str,
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Out of memory in other words is no bug of ours (contract: cli-errors: what, where, the way
    out).
    """

    def fail(*_: object) -> None:
        raise RuntimeError(what)

    monkeypatch.setattr(threading.Thread, "start", fail)
    (tmp_path / "config.yaml").write_text(json.dumps(clients.layer_config(tree)))
    assert (
        build_oci.cli.command.main(
            ["-o", str(tmp_path / "output"), "-f", str(tmp_path / "config.yaml")]
        )
        == 1
    )
    assert capsys.readouterr().err.startswith(
        f"build-oci: error: out of memory or threads: {what}\nhint: "
    )
    assert not (tmp_path / "output").exists()


# ---- many images


@pytest.mark.parametrize("workers", ["-j1", "-j2", "-j7"])
def test_many_images(workers: str, tree: Path, tmp_path: Path) -> None:
    """contract: promise-memory. The least there may be is enough for all of them, whatever the
    -j.
    """
    small = tmp_path / "small"
    small.mkdir()
    (small / "file").write_bytes(b"x" * 3_000_000)
    layers = [tree, small, tree / "d"]
    images = [
        {"os": "linux", "architecture": "amd64", "layer": str(layers[number % 3])}
        for number in range(12)
    ]
    output = tmp_path / "output"
    assert run(
        {"prefetch-limit-mb": 1, "compression": "disabled", "images": images}, output, workers
    ) == (0, "")
    expected = [oracles.expected_tar(layer) for layer in layers]
    assert [clients.layer_tars(output, number)[0] for number in range(12)] == expected * 4


def test_one_image_fails(tree: Path, output: Path, tmp_path: Path) -> None:
    """The error is that of the image which failed."""
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "file").write_text("x")
    images = [
        {"os": "linux", "architecture": "amd64", "layer": str(layer)}
        for layer in [tree, tree, tmp_path / "bad", tree]
    ]
    with unharmed(output):
        status, said = run(
            {"images": images}, output, **fault("read", tmp_path / "bad" / "file", error=errno.EIO)
        )
    assert (status, said) == (
        1,
        f"build-oci: error: {tmp_path / 'bad' / 'file'}: cannot be read: Input/output error\n",
    )


def test_the_reason_wins() -> None:
    """One that was stopped may end before the one that failed: still the failure is told."""
    stopped = threading.Event()

    def work(item: str) -> None:
        if item == "fails":
            threads.cancel()  # as the layers of a parent do when one of them fails
            stopped.wait(10)
            raise TreeError("is broken")
        try:
            while True:
                threads.check()
        finally:
            stopped.set()

    with pytest.raises(TreeError), Crew(2, 1 << 20) as threads:
        threads.each(work, ["stopped", "fails"], at_once=2)
    with pytest.raises(Cancelled):
        threads.check()


def peak_of(config: clients.Document, workers: int, output: Path) -> int:
    """MiB of memory that a build takes. Not ru_maxrss, in which the process that forked it counts
    too.
    """
    program = (
        "import re, sys; from build_oci.cli.command import main; status = main(sys.argv[1:]); peak"
        " = re.search(r'VmHWM:\\s*(\\d+) kB', open('/proc/self/status').read());"
        " sys.exit(f'{status} {int(peak[1]) >> 10}')"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, f"-j{workers}", "-o", output],
        input=json.dumps(config), env=environment(), capture_output=True, text=True, check=False,
        timeout=TIMEOUT,
    )  # fmt: skip
    status, peak = map(int, done.stderr.splitlines()[-1].split())
    assert status == 0
    return peak


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("noise")
    for number in range(100):
        (tree / f"{number}").write_bytes(os.urandom((1 << 20) + 1))
        (tree / f"{number}x").write_bytes(b"x")
    return tree


# contract: promise-memory: prefetch-limit-mb + 128 MiB, and 300 MiB by default, however many
# workers and images; noise fills codecs most.


@pytest.mark.parametrize(
    ("limit", "most", "workers"), [(512, 300, 8), (64, 192, 8), (64, 192, 4), (1, 129, 8)]
)
@pytest.mark.parametrize("codec", ["zstd", "gzip", "disabled"])
def test_memory_of_what_does_not_shrink(
    limit: int, most: int, workers: int, codec: str, noise: Path, tmp_path: Path
) -> None:
    config = clients.layer_config(noise, compression=codec)
    config |= {"prefetch-limit-mb": limit, "images": 2 * config["images"]}
    assert peak_of(config, workers, tmp_path / "output") <= most


def test_memory_of_slow_levels(noise: Path, tmp_path: Path) -> None:
    """Whose compressors take 100 MiB each at the least."""
    config = clients.layer_config(noise, compression="zstd", **{"compression-level": 8})
    assert peak_of(config | {"images": 2 * config["images"]}, 4, tmp_path / "output") <= 300


@pytest.mark.parametrize(
    "more",
    [
        {"compression": "gzip"},
        {"compression": "zstd"},
        {"compression": "zstd", "compression-level": 9},
    ],
)
def test_memory_of_many_layers(more: clients.Document, tmp_path: Path) -> None:
    """Layers of a parent are recompressed side by side, but no more of them than there is memory
    for.
    """
    archives = [layouts.archive((f"{number}", os.urandom(40 << 20))) for number in range(6)]
    parent = layouts.Layout(tmp_path / "parent")
    parent.index(layouts.image(parent, archives))
    image = {"architecture": "amd64", "os": "linux", "parent": {"image": str(tmp_path / "parent")}}
    assert peak_of({**more, "images": [image]}, 8, tmp_path / "output") <= 300


@pytest.mark.parametrize(
    "more",
    [
        {"compression": "gzip"},
        {"compression": "zstd"},
        {"compression": "zstd", "compression-level": 9},
    ],
)
def test_memory_of_split(more: clients.Document, tmp_path: Path) -> None:
    """contract: split-layers. "made in parallel with the others within the same memory promise": 4
    large, 16 of a block, 100 small.
    """
    tree = tmp_path / "tree"
    tree.mkdir()
    owners = []
    for number, size in enumerate([30 << 20] * 4 + [8 << 20] * 16 + [1 << 16] * 100):
        (tree / f"{number}").write_bytes(os.urandom(size))
        owners.append(f"{number}\tcomponent-{number}\n")
    (tmp_path / "owners").write_text("".join(owners))
    split = {"max-layers": 200, "components": [{"file": str(tmp_path / "owners")}]}
    image = {"architecture": "amd64", "os": "linux", "layer": str(tree), "split": split}
    assert peak_of({**more, "images": [image]}, 8, tmp_path / "output") <= 300
