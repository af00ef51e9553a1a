"""Signals at every moment (contract: cli-signals, layout-atomic): the former image or the new one,
and nothing left behind.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import clients
import oracles
import pytest
from faults import (
    BIG,
    TIMEOUT,
    check_layout,
    command,
    environment,
    fault,
    make_former,
    make_tree,
    run,
    snapshot,
    unharmed,
    upon,
)

import build_oci.cli.command
import build_oci.pipeline  # so that tracing main() below meets the same lines in every run
from build_oci.cli.signals import Signals, Stopped

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parent")
    tree = make_tree(folder / "tree", 1 << 20)
    assert run(clients.layer_config(tree, compression="gzip"), folder / "layout") == (0, "")
    return folder / "layout"


@pytest.mark.parametrize("compression", ["zstd", "gzip", "disabled"])
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signal(
    number: signal.Signals, status: int, compression: str, tree: Path, output: Path
) -> None:
    """In the midst of the packing."""
    faults = fault("open", tree / "d" / "large", 2, do=f"kill -{int(number)} $PPID")
    with unharmed(output):
        done = run(clients.layer_config(tree, compression=compression), output, **faults)
    assert done == (status, f"build-oci: error: stopped by {number.name}\n")


def unignored() -> None:
    """A test run may itself be under nohup, or in the background of a shell."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("module", "images"),
    [
        ("oci/layout", 1),
        ("oci/hidden", 3),
        ("work/crew", 1),
        ("work/crew", 3),
        ("pipeline", 1),
        ("pipeline", 3),
        ("layer/pack", 1),
    ],
)
def test_signal_at_any_line(
    module: str, images: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A signal that arrives at whatever line of a module: either it stopped the build and left
    nothing, or it came too late.
    """
    root = tmp_path / "tree"
    root.mkdir()
    (root / "large").write_bytes(os.urandom(BIG))
    config = clients.layer_config(root, compression="disabled")
    del config["images"][0]["index-annotations"]
    config["images"] *= images
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    for line in itertools.count(1, 7):
        target = tmp_path / "new" / "output"
        status, sent = signalled_at(
            f"/build_oci/{module}.py",
            line,
            ["-j2", "-o", str(target), "-f", str(tmp_path / "config.yaml")],
        )
        if status == 0:
            assert sorted(os.listdir(target)) == ["blobs", "index.json", "oci-layout"]
            shutil.rmtree(target.parent)
        else:
            assert (status, capsys.readouterr().err) == (
                130,
                "build-oci: error: stopped by SIGINT\n",
            )
            assert not target.parent.exists()
        if not sent:
            assert line > 7
            break


def signalled_at(file: str, line: int, args: list[str]) -> tuple[int, bool]:
    """main(ARGS) with SIGINT at the LINEth line that the main thread runs of FILE; its exit status
    and whether it came to that.
    """
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
        status = build_oci.cli.command.main(args)
    finally:
        sys.settrace(tracing)
        signal.signal(signal.SIGINT, handler)
    return status, sent


def test_killed(tree: Path, output: Path) -> None:
    """contract: layout-atomic. The next build clears what a SIGKILL left, and only that."""
    index = (output / "index.json").read_bytes()
    faults = fault("open", tree / "d" / "large", 2, do="kill -9 $PPID; sleep 1")
    assert run(clients.layer_config(tree, compression="disabled"), output, **faults)[0] == -9
    assert (output / "index.json").read_bytes() == index
    assert [name for name in os.listdir(output) if name.startswith(".build-oci-")]
    (output / ".other").mkdir()
    assert run(clients.layer_config(tree), output) == (0, "")
    assert sorted(os.listdir(output)) == [".other", "blobs", "index.json", "oci-layout"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("call", "path", "stops"),
    [
        ("open", ".build-oci-*/index.json", True),
        ("close", ".build-oci-*/index.json", True),
        ("rename", "blobs/*", False),
        ("rename", "index.json", False),
    ],
)
def test_signal_at_commit(
    call: str, path: str, stops: bool, number: signal.Signals, tree: Path, output: Path
) -> None:
    """Before the first file is renamed to its place a signal wins; from then on the image becomes
    complete, and the status says so.
    """
    faults = fault(call, output / path, do=f"kill -{int(number)} $PPID")
    former = snapshot(output)
    done = run(clients.layer_config(tree), output, **faults)
    assert check_layout(output) == 1
    if stops:
        assert done == (128 + number, f"build-oci: error: stopped by {number.name}\n")
        assert snapshot(output) == former
    else:
        assert done == (0, "")
        assert clients.layer_tars(output) == [oracles.expected_tar(tree)]


def moments(
    kinds: list[signal.Signals],
    count: int,
    tree: Path,
    parent: Path,
    folder: Path,
    compression: str,
) -> list[tuple[int, int]]:
    """Runs that get a signal of KINDS in turn, at COUNT moments spread over a run; the signals, and
    the exit statuses that followed.

    Whatever the moment, the output is the former one or the new one, and the next build makes the
    new one.
    """
    config = upon(clients.layer_config(tree, compression=compression), parent)
    former, output, measured = (
        make_former(folder / "former"),
        folder / "output",
        folder / "measured",
    )
    fixed = {"SOURCE_DATE_EPOCH": "1700000000"}
    began = time.monotonic()
    # In an interpreter of its own, like those that are stopped.
    assert run(config, measured, preexec=unignored, **fixed) == (0, "")
    whole = time.monotonic() - began
    old, new = snapshot(former), snapshot(measured)
    made = {**old, **new}  # blobs of the former image stay
    ended = []
    for moment in range(count):
        number = kinds[moment % len(kinds)]
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(former, output)
        (folder / "config").write_text(json.dumps(config))
        with subprocess.Popen(
            [*command(output), "-f", str(folder / "config")],
            env=environment(**fixed),
            preexec_fn=unignored,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            began = time.monotonic()
            # A run that ends before is waited for no longer.
            with suppress(subprocess.TimeoutExpired):
                process.wait(whole * 1.1 * moment / count)
            # The first run may have been a slow one; then all that follow would be over before.
            if process.returncode is not None:
                whole = min(whole, time.monotonic() - began)
            process.send_signal(number)
            said = process.communicate(timeout=TIMEOUT)[1]
        status = process.returncode
        ended.append((int(number), status))
        if number == signal.SIGKILL:
            assert (output / "index.json").read_bytes() in (old["index.json"], new["index.json"])
        elif status == 128 + number:
            assert said == f"build-oci: error: stopped by {number.name}\n"
            assert snapshot(output) == old
        elif status == 0:
            assert snapshot(output) == made
        else:
            # The interpreter itself was met, before it came to us or after we were done; while it
            # starts, it ends with 1.
            its_words = "KeyboardInterrupt" in said or said.startswith("Fatal Python error: init_")
            assert status == -number or (status == 1 and its_words), said
            assert snapshot(output) in (old, made)
        if number == signal.SIGKILL:
            assert run(config, output, **fixed) == (0, "")
            assert snapshot(output) == made
            check_layout(output)
    return ended


@pytest.mark.parametrize(
    ("kinds", "count"),
    [([signal.SIGINT, signal.SIGTERM], 25), ([signal.SIGKILL], 8)],
    ids=["stopped", "killed"],
)
def test_signal_at_any_moment(
    kinds: list[signal.Signals], count: int, tree: Path, parent: Path, tmp_path: Path
) -> None:
    """With the parent's layer recompressed, and carried as it is, side by side."""
    with ThreadPoolExecutor(2) as pool:
        futures = []
        for compression in ("zstd", "gzip"):
            (tmp_path / compression).mkdir()
            futures.append(
                pool.submit(
                    moments, kinds, count, tree, parent, tmp_path / compression, compression
                )
            )
        ended = [end for future in futures for end in future.result()]
    met = [(number, status) for number, status in ended if status in (128 + number, -number)]
    assert len(met) > len(ended) // 5  # the machine may be slow to send them


_INTERRUPTED = """
import signal
import sys

class Finder:
    def find_spec(self, name, path, target=None):
        if name == "build_oci.cli.command":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Finder())
import build_oci.__main__
"""


def test_ctrl_c_before_the_handlers() -> None:
    """While the modules are imported it ends the process without a traceback."""
    done = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED], capture_output=True, preexec_fn=unignored, text=True
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_a_signal_whose_exception_was_lost() -> None:
    """One that comes while an exception is ignored, as in a callback of a weak reference, stops the
    build as soon as there is one.
    """
    signals = Signals()
    with suppress(Stopped):
        signals._stop(signal.SIGTERM, None)
    cancelled: list[bool] = []
    signals.cancel_by(lambda: cancelled.append(True))
    assert cancelled == [True]


_LOST = """
import signal
import weakref
from build_oci.cli.signals import Signals

class Thing:
    def __del__(self):
        raise ValueError("told")

signals = Signals()
with signals.handled():
    thing = Thing()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))
    del thing
print(signals.caught)
"""


def test_an_exception_that_was_lost_prints_no_traceback() -> None:
    """That of the signal; another one is told as ever."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", _LOST], capture_output=True, env=environment(), text=True
    )
    assert (done.returncode, done.stdout) == (0, f"{int(signal.SIGTERM)}\n")
    assert "Stopped" not in done.stderr
    assert "ValueError: told" in done.stderr
