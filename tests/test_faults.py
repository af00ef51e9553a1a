"""What goes wrong around a build: signals, full disks, trees that change, limits. One clear error, nothing left behind, never a hang."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import clients
import oracles
import pytest

import build_oci.build  # so that tracing main() below meets the same lines in every run
import build_oci.cli
from build_oci.errors import Cancelled, TreeError
from build_oci.layout import Layout
from build_oci.workers import Workers

pytestmark = pytest.mark.slow

BIG = 5 << 20  # several segments and a digest of its own
SOURCE = str(Path(build_oci.cli.__file__).parents[1])

# Where the C library opens, reads or lists FAULT_PATH, or writes to any file, do FAULT.
# FAULT_COUNT: at which open, or after how many bytes.
SHIM = r"""
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_long seen;

static int is(const char *fault) { const char *set = getenv("FAULT"); return set && !strcmp(set, fault); }
static long limit(void) { const char *set = getenv("FAULT_COUNT"); return set ? atol(set) : 1; }

static int is_target(const struct stat *st)
{
    struct stat target;
    const char *path = getenv("FAULT_PATH");
    return path && !lstat(path, &target) && target.st_ino == st->st_ino && target.st_dev == st->st_dev;
}

static void opening(int at, const char *name)
{
    struct stat st;
    if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) || !is_target(&st) || atomic_fetch_add(&seen, 1) + 1 != limit())
        return;
    const char *path = getenv("FAULT_PATH"), *other = getenv("FAULT_OTHER");
    if (is("grow")) { if (truncate(path, st.st_size + 1)) abort(); }
    else if (is("shrink")) { if (truncate(path, st.st_size - 1)) abort(); }
    else if (is("signal")) kill(getpid(), atoi(other));
    else if (!is("eio")) {
        unlink(path);
        if (is("symlink") && symlink(other, path)) abort();
        if (is("fifo") && mkfifo(path, 0600)) abort();
        if (is("directory") && mkdir(path, 0700)) abort();
        if (is("replace") && rename(other, path)) abort();
    }
}

/* Each under both names that a C library may have for it. */
#define OPENAT(symbol) \
    int fault_##symbol(int, const char *, int, ...) __asm__(#symbol); \
    int fault_##symbol(int at, const char *name, int flags, ...) \
    { \
        int (*real)(int, const char *, int, ...) = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, #symbol); \
        va_list more; \
        va_start(more, flags); \
        int mode = va_arg(more, int); \
        va_end(more); \
        opening(at, name); \
        return real(at, name, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

#define PREAD(symbol) \
    ssize_t fault_##symbol(int, void *, size_t, off_t) __asm__(#symbol); \
    ssize_t fault_##symbol(int fd, void *into, size_t size, off_t offset) \
    { \
        ssize_t (*real)(int, void *, size_t, off_t) = (ssize_t (*)(int, void *, size_t, off_t))dlsym(RTLD_NEXT, #symbol); \
        struct stat st; \
        if (is("eio") && !fstat(fd, &st) && is_target(&st)) { errno = EIO; return -1; } \
        return real(fd, into, size, offset); \
    }
PREAD(pread)
PREAD(pread64)

#define READDIR(symbol) \
    void *fault_##symbol(DIR *) __asm__(#symbol); \
    void *fault_##symbol(DIR *stream) \
    { \
        void *(*real)(DIR *) = (void *(*)(DIR *))dlsym(RTLD_NEXT, #symbol); \
        struct stat st; \
        if (is("eio") && !fstat(dirfd(stream), &st) && is_target(&st)) { errno = EIO; return NULL; } \
        return real(stream); \
    }
READDIR(readdir)
READDIR(readdir64)

ssize_t write(int fd, const void *from, size_t size)
{
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    struct stat st;
    if (is("full") && !fstat(fd, &st) && S_ISREG(st.st_mode)) {
        long left = limit() - seen;
        if (left <= 0 && size) { errno = ENOSPC; return -1; }
        if ((long)size > left) size = (size_t)left;
        seen += (long)size;
    }
    return real(fd, from, size);
}
"""


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = clients.need("cc")
    library = tmp_path_factory.mktemp("shim") / "fault.so"
    source = library.with_suffix(".c")
    source.write_text(SHIM)
    done = subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the compiler makes no library: {done.stderr[:200]}")
    return library


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A hundred small files and a large one."""
    root = tmp_path / "tree"
    (root / "d").mkdir(parents=True)
    for number in range(100):
        (root / "d" / f"{number:03}").write_bytes(os.urandom(9000))
    (root / "d" / "large").write_bytes(os.urandom(BIG))
    return root


def run(config: clients.Document, output: Path, *args: str, preexec: Callable[[], None] | None = None, **env: str) -> tuple[int, str]:
    """Exit status (negative: killed by that signal) and standard error of a run in a process of its own; one that hangs fails the test."""
    environ = {**os.environ, "PYTHONPATH": SOURCE, **env}
    environ.pop("SOURCE_DATE_EPOCH", None)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "build_oci", "-o", output, *args],
        input=json.dumps(config), env=environ, capture_output=True, text=True, check=False, timeout=60, preexec_fn=preexec,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    assert done.stdout == ""
    return done.returncode, done.stderr


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An output that holds a former image."""
    path = tmp_path / "output"
    assert run({"images": [{"os": "linux", "architecture": "arm64"}]}, path) == (0, "")
    return path


@contextlib.contextmanager
def unharmed(output: Path) -> Iterator[None]:
    """Section 3: a build that fails leaves the former index.json as it was, and no temporary file."""
    before, index = names(output), (output / "index.json").read_bytes()
    yield
    assert names(output) == before
    assert (output / "index.json").read_bytes() == index


# ---- the tree changes (section 6: a file that vanishes or changes size while it is packed fails the build and is named)

CHANGES = ["grow", "shrink", "vanish", "symlink", "fifo", "directory", "replace"]


@pytest.mark.parametrize(("name", "opens"), [("050", 1), ("large", 1), ("large", 2)])
@pytest.mark.parametrize("change", CHANGES)
def test_file_changes(change: str, name: str, opens: int, tree: Path, output: Path, shim: Path, tmp_path: Path) -> None:
    """At the first open of a file, and, of a large one, also between its digest and its content."""
    path, other = tree / "d" / name, tmp_path / "other"
    shutil.copy2(path, other)
    with unharmed(output):
        status, said = run(
            clients.layer_config(tree), output, "-j2",
            LD_PRELOAD=str(shim), FAULT=change, FAULT_PATH=str(path), FAULT_OTHER=str(other), FAULT_COUNT=str(opens),
        )  # fmt: skip
    assert status == 1
    assert said.startswith(f"build-oci: error: {path}: changed while it was being read\nhint: ")


@pytest.mark.parametrize(("name", "what"), [("d/050", "cannot be read"), ("d/large", "cannot be read"), ("d", "cannot be listed")])
def test_disk_error(name: str, what: str, tree: Path, output: Path, shim: Path) -> None:
    with unharmed(output):
        status, said = run(clients.layer_config(tree), output, LD_PRELOAD=str(shim), FAULT="eio", FAULT_PATH=str(tree / name))
    assert (status, said) == (1, f"build-oci: error: {tree / name}: {what}: Input/output error\n")


# ---- signals (section 1: 130 / 143; section 3: no temporary file left behind)


@pytest.mark.parametrize("compression", ["zstd", "gzip", "disabled"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signal(number: signal.Signals, status: int, compression: str, tree: Path, output: Path, shim: Path) -> None:
    """In the midst of the packing."""
    fault: dict[str, Any] = {"LD_PRELOAD": str(shim), "FAULT": "signal", "FAULT_OTHER": str(int(number)), "FAULT_COUNT": "2"}
    fault["FAULT_PATH"] = str(tree / "d" / "large")
    with unharmed(output):
        done = run(clients.layer_config(tree, compression=compression), output, preexec=unignored, **fault)
    assert done == (status, f"build-oci: error: stopped by {number.name}\n")


def unignored() -> None:
    """A test run may itself be under nohup, or in the background of a shell."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("module", "images"), [("layout", 1), ("layout", 3), ("workers", 1), ("workers", 3), ("build", 1), ("build", 3), ("layer/pack", 1)]
)
def test_signal_at_any_line(module: str, images: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A signal that arrives at whatever line of a module: either it stopped the build and left nothing, or it came too late."""
    root = tmp_path / "tree"
    root.mkdir()
    (root / "large").write_bytes(os.urandom(BIG))
    config = clients.layer_config(root, compression="disabled")
    config["images"] *= images
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    for line in itertools.count(1, 7):
        target = tmp_path / "new" / "output"
        status, sent = signalled_at(f"/build_oci/{module}.py", line, ["-j2", "-o", str(target), "-f", str(tmp_path / "config.yaml")])
        if status == 0:
            assert sorted(os.listdir(target)) == ["blobs", "index.json", "oci-layout"]
            shutil.rmtree(target.parent)
        else:
            assert (status, capsys.readouterr().err) == (130, "build-oci: error: stopped by SIGINT\n")
            assert not target.parent.exists()
        if not sent:
            assert line > 7
            break


def signalled_at(file: str, line: int, args: list[str]) -> tuple[int, bool]:
    """main(ARGS) with SIGINT at the LINEth line that the main thread runs of FILE; its exit status and whether it came to that."""
    count = itertools.count(1)
    sent = False

    def at_line(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal sent
        if event == "line" and next(count) == line:
            sys.settrace(None)
            sent = True
            signal.raise_signal(signal.SIGINT)
        return at_line

    def at_call(frame: FrameType, event: str, argument: Any) -> Any:
        return at_line if frame.f_code.co_filename.endswith(file) else None

    tracing, handler = sys.gettrace(), signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.settrace(at_call)
        status = build_oci.cli.main(args)
    finally:
        sys.settrace(tracing)
        signal.signal(signal.SIGINT, handler)
    return status, sent


def test_killed(tree: Path, output: Path, shim: Path) -> None:
    """Section 3: the next build clears what a SIGKILL left, and only that."""
    index = (output / "index.json").read_bytes()
    fault: dict[str, Any] = {"LD_PRELOAD": str(shim), "FAULT": "signal", "FAULT_OTHER": "9", "FAULT_COUNT": "2"}
    fault["FAULT_PATH"] = str(tree / "d" / "large")
    assert run(clients.layer_config(tree, compression="disabled"), output, **fault)[0] == -9
    assert (output / "index.json").read_bytes() == index
    assert [name for name in os.listdir(output) if name.startswith(".build-oci-")]
    (output / ".other").mkdir()
    assert run(clients.layer_config(tree), output) == (0, "")
    assert sorted(os.listdir(output)) == [".other", "blobs", "index.json", "oci-layout"]


# ---- the output


@pytest.mark.parametrize("compression", ["zstd", "gzip", "disabled"])
@pytest.mark.parametrize("room", [0, 100_000, BIG, 7 << 20])
def test_disk_full(room: int, compression: str, tree: Path, output: Path, shim: Path) -> None:
    """Whatever does not fit any more, the last of them only the JSON documents."""
    config = clients.layer_config(tree, compression=compression)
    if room == 7 << 20:
        measured = output.with_name("measured")
        assert run(config, measured) == (0, "")
        room = clients.manifest_of(measured)["layers"][0]["size"] + 10
    with unharmed(output):
        status, said = run(config, output, "-j2", LD_PRELOAD=str(shim), FAULT="full", FAULT_COUNT=str(room))
    assert status == 1
    hint = "free some space, or write elsewhere with --output"
    assert said == f"build-oci: error: {output}: cannot be written: No space left on device\nhint: {hint}\n"


@pytest.mark.parametrize("at_fault", [".", "blobs"])
def test_output_is_a_file(at_fault: str, tree: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    (output / at_fault).parent.mkdir(parents=True, exist_ok=True)
    (output / at_fault).write_text("former")
    status, said = run(clients.layer_config(tree), output)
    assert (status, said.splitlines()[0]) == (1, f"build-oci: error: {output / at_fault}: cannot be written: File exists")
    assert (output / at_fault).read_text() == "former"
    assert output.is_file() or os.listdir(output) == ["blobs"]


def test_builds_at_once(tree: Path, tmp_path: Path) -> None:
    """Section 3: nobody takes the work of a build that is under way for something left behind; the last index wins."""
    output = tmp_path / "output"
    configs = [clients.layer_config(tree, compression=compression) for compression in ("zstd", "disabled")] * 3
    ended: list[tuple[int, str]] = []
    threads = [threading.Thread(target=lambda config=config: ended.append(run(config, output, "-j2"))) for config in configs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == [(0, "")] * len(configs)
    assert sorted(os.listdir(output)) == ["blobs", "index.json", "oci-layout"]
    assert len(clients.layer_tars(output)) == 1


def test_work_taken_for_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another build may clear our directory before we have locked it."""
    make = os.mkdir
    taken: list[Path] = []

    def mkdir(path: Path, mode: int) -> None:
        make(path, mode)
        if Path(path).name.startswith(".build-oci-") and not taken:
            taken.append(path)
            os.rmdir(path)

    monkeypatch.setattr(os, "mkdir", mkdir)
    with Layout(tmp_path / "output") as layout:
        layout.add_document("a/b", b"{}")
        layout.commit(b"{}")
    assert taken
    assert sorted(os.listdir(tmp_path / "output")) == ["blobs", "index.json", "oci-layout"]


# ---- permissions


def obey_modes() -> None:
    """Makes even root heed the mode of a file after exec: takes CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH from what it may have."""
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
    """Section 6: a file that cannot be read fails the build and is named."""
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
    assert said.endswith("\nhint: run as a user who may read it, or under fakeroot; nothing is left out silently\n")


def test_read_only_output(output: Path) -> None:
    output.chmod(0o555)
    try:
        with unharmed(output):
            status, said = run({"images": [{"os": "linux", "architecture": "arm64"}]}, output, preexec=obey_modes)
    finally:
        output.chmod(0o755)
    assert status == 1
    assert said.startswith(f"build-oci: error: {output}/")
    assert said.endswith(": cannot be written: Permission denied\nhint: write elsewhere with --output\n")


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
        assert ": cannot be opened: Too many open files\nhint: raise the limit of open files (ulimit -n), or use fewer workers (-j)" in said


@pytest.mark.parametrize("what", ["can't start new thread", "zstd compress error: Allocation error : not enough memory"])
def test_exhausted(what: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Out of memory in other words is no bug of ours (section 1: what, where, the way out)."""

    def fail(*_: object) -> None:
        raise RuntimeError(what)

    monkeypatch.setattr(threading.Thread, "start", fail)
    (tmp_path / "config.yaml").write_text(json.dumps(clients.layer_config(tree)))
    assert build_oci.cli.main(["-o", str(tmp_path / "output"), "-f", str(tmp_path / "config.yaml")]) == 1
    assert capsys.readouterr().err.startswith(f"build-oci: error: out of memory or threads: {what}\nhint: ")
    assert not (tmp_path / "output").exists()


# ---- many images


@pytest.mark.parametrize("workers", ["-j1", "-j2", "-j7"])
def test_many_images(workers: str, tree: Path, tmp_path: Path) -> None:
    """Section 2, prefetch-limit-mb: the least there may be is enough for all of them, whatever the -j."""
    small = tmp_path / "small"
    small.mkdir()
    (small / "file").write_bytes(b"x" * 3_000_000)
    layers = [tree, small, tree / "d"]
    images = [{"os": "linux", "architecture": "amd64", "layer": str(layers[number % 3])} for number in range(12)]
    output = tmp_path / "output"
    assert run({"prefetch-limit-mb": 1, "compression": "disabled", "images": images}, output, workers) == (0, "")
    expected = [oracles.expected_tar(layer) for layer in layers]
    assert [clients.layer_tars(output, number)[0] for number in range(12)] == expected * 4


def test_one_image_fails(tree: Path, output: Path, shim: Path, tmp_path: Path) -> None:
    """The error is that of the image which failed."""
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "file").write_text("x")
    images = [{"os": "linux", "architecture": "amd64", "layer": str(layer)} for layer in [tree, tree, tmp_path / "bad", tree]]
    with unharmed(output):
        status, said = run({"images": images}, output, LD_PRELOAD=str(shim), FAULT="eio", FAULT_PATH=str(tmp_path / "bad" / "file"))
    assert (status, said) == (1, f"build-oci: error: {tmp_path / 'bad' / 'file'}: cannot be read: Input/output error\n")


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

    with pytest.raises(TreeError), Workers(2, 1 << 20) as threads:
        threads.each(work, ["stopped", "fails"], at_once=2)
    with pytest.raises(Cancelled):
        threads.check()
