"""contract: cli-progress, cli-summary, cli-metrics.
Progress, summary and metrics: on standard error or in a file, never on standard output."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import TIMEOUT
from places import REPOSITORY

from build_oci.cli.bars import Bars, Lines, reporter
from build_oci.cli.command import main
from build_oci.config.load import load_config
from build_oci.image.result import BuiltImage
from build_oci.pipeline import build
from build_oci.progress import Progress


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    for number in range(40):
        (root / f"file{number}").write_bytes(os.urandom(100_000))
    return root


def document(tree: Path, parent: Path | None = None) -> str:
    image: dict[str, Any] = {"architecture": "amd64", "os": "linux", "layer": str(tree)}
    return json.dumps({"images": [image | ({"parent": {"image": str(parent)}} if parent else {})]})


def test_a_build_tells_how_far_it_is(tree: Path, tmp_path: Path) -> None:
    """Each stage grows up to its total, and `done` comes last, once."""
    build(load_config(document(tree)), output=tmp_path / "parent", workers=2)
    (tree / "file3").write_bytes(os.urandom(3_000_000))
    heard: list[Progress] = []
    result = build(
        load_config(document(tree, tmp_path / "parent")),
        output=tmp_path / "out",
        workers=2,
        on_progress=heard.append,
    )
    assert heard[-1] == Progress(0, "done", 1, 1)
    for stage in ("walk", "parent", "hash", "pack"):
        told = [progress for progress in heard if progress.stage == stage]
        counts = [progress.done for progress in told]
        assert counts == sorted(counts), stage
        assert told[-1].done == told[-1].total, stage
    assert [progress.total for progress in heard if progress.stage == "walk"][-1] == 41
    (image,) = result.images
    assert (
        image.uncompressed_size
        == next(progress for progress in reversed(heard) if progress.stage == "pack").total
    )
    assert set(image.stages) == {"walk", "parent", "hash", "diff", "pack"}


def test_what_a_listener_raises_ends_the_build(tree: Path, tmp_path: Path) -> None:
    def listen(progress: Progress) -> None:
        if progress.stage == "pack":
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        build(load_config(document(tree)), output=tmp_path / "out", workers=2, on_progress=listen)
    assert not (tmp_path / "out").exists()


def test_summary_comes_when_an_image_is_done(tree: Path, tmp_path: Path) -> None:
    """Each image is told of once, before the index is there."""
    config = json.loads(document(tree))
    config["images"].append({"architecture": "arm64", "os": "linux"})
    out = tmp_path / "out"
    done: list[str] = []

    def on_image(image: BuiltImage) -> None:
        assert not (out / "index.json").exists()
        done.append(f"{image.descriptor.platform} {image.digest}")

    result = build(load_config(json.dumps(config)), output=out, workers=2, on_image=on_image)
    assert sorted(done) == [
        f"linux/{architecture} {image.digest}"
        for architecture, image in zip(("amd64", "arm64"), result.images, strict=True)
    ]
    assert (out / "index.json").exists()


def test_lines_are_seconds_apart() -> None:
    now = 0.0
    said: list[str] = []
    lines = Lines(["linux/amd64", "linux/arm64"], said.append, clock=lambda: now)
    for step in range(100):
        now = step / 10
        lines(Progress(0, "pack", step * 1_000_000, 100_000_000))
        lines(Progress(1, "walk", step, None))
    lines(Progress(0, "done", 1, 1))
    assert said == [
        "build-oci: linux/amd64: packing, 50 of 100 MB (50%) after 5 s",
        "build-oci: linux/arm64: walking, 50 entries after 5 s",
        "build-oci: linux/amd64: done after 10 s",
    ]
    assert lines._last == {0: now, 1: 5.0}


class Screen(io.StringIO):
    """A terminal as far as what is written to it shows: `lines()` is what stands there."""

    gone = False

    def write(self, text: str) -> int:
        if self.gone:
            raise BrokenPipeError
        return super().write(text)

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        rows, row, column = [""], 0, 0
        for part in re.split(r"(\x1b\[[A-Z]|[\r\n])", self.getvalue()):
            if part == "\r":
                column = 0
            elif part == "\n":
                row, column = row + 1, 0
                rows += [""] * (row + 1 - len(rows))
            elif part == "\x1b[A":
                row -= 1
            elif part == "\x1b[J":
                rows = [*rows[:row], rows[row][:column]]
            else:
                rows[row] = (
                    rows[row][:column].ljust(column) + part + rows[row][column + len(part) :]
                )
                column += len(part)
        return [line.rstrip() for line in rows]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    """A screen, and bars that appear at once; those that a test leaves open end with it. `bars_on`
    makes it standard error.
    """
    for name, seconds in {"DELAY": 0.0, "BRIEF": 0.0, "LEFT": 0.0, "INTERVAL": 0.01}.items():
        monkeypatch.setattr(Bars, name, seconds)
    made: list[Bars] = []
    draw = Bars._draw

    def noted(bars: Bars) -> None:
        made.append(bars)
        draw(bars)

    monkeypatch.setattr(Bars, "_draw", noted)
    yield Screen()
    for bars in made:
        bars.close()


def bars_on(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> Bars:
    # Not in the fixture: pytest itself puts another there in between.
    monkeypatch.setattr(sys, "stderr", screen)
    return Bars(["linux/amd64", "linux/arm64"], lambda line: print(line, file=screen))


def wait_for(screen: Screen, *starts: str) -> None:
    """Until the lines of SCREEN are as many as STARTS and begin so."""
    end = time.monotonic() + TIMEOUT
    while True:
        lines = [line for line in screen.lines() if line]
        if len(lines) == len(starts) and all(
            line.startswith(start) for line, start in zip(lines, starts, strict=True)
        ):
            return
        assert time.monotonic() < end, lines
        time.sleep(0.01)


def test_bars_leave_no_trace(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands on the screen: a line a stage, none of them empty in between, and nothing in the
    end.
    """
    bars = bars_on(screen, monkeypatch)
    bars(Progress(0, "walk", 0, None))
    wait_for(screen, "linux/amd64: walking: 0 entries")
    bars(Progress(1, "pack", 5_000_000, 10_000_000))
    wait_for(screen, "linux/amd64: walking: 0 entries", "linux/arm64: packing:  50%|")
    bars(Progress(0, "parent", 2_500_000, 10_000_000))
    bars.say("a warning")
    wait_for(
        screen,
        "a warning",
        "linux/amd64: walking: 0",
        "linux/arm64: packing:  50%|",
        "linux/amd64: reading parent:  25%|",
    )
    bars(Progress(0, "pack", 1_000_000, 10_000_000))  # ends two, the upper ones
    wait_for(screen, "a warning", "linux/arm64: packing:  50%|", "linux/amd64: packing:  10%|")
    assert screen.lines()[1].startswith("linux/arm64")
    bars(Progress(1, "done", 1, 1))
    wait_for(screen, "a warning", "linux/amd64: packing:  10%|")
    screen.write("^C")
    bars.close()
    assert screen.lines() == ["a warning", ""]
    assert not any(thread.name == "bars" for thread in threading.enumerate())


def test_what_is_short_shows_no_bars(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bars, "LEFT", 60.0)
    bars = bars_on(screen, monkeypatch)
    for step in range(10):
        bars(Progress(0, "pack", 9_000_000 + step, 10_000_000))
        time.sleep(0.02)
    bars(Progress(0, "done", 1, 1))
    bars.close()
    assert screen.getvalue() == ""


def test_a_short_build_does_not_import_bars(tree: Path, tmp_path: Path) -> None:
    """Their import is what costs."""
    program = (
        "import sys; from build_oci.cli.command import main; status = main(sys.argv[1:]);"
        " sys.exit(status or 'tqdm' in sys.modules)"
    )
    command = [
        sys.executable,
        "-P",
        "-c",
        program,
        "--progress",
        "bar",
        "-o",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, input=document(tree), capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize("columns", [20, 40, 60, 79, 80, 120])
def test_a_bar_fits_its_terminal(
    columns: int, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for the ^C that a terminal writes behind it."""
    monkeypatch.setattr("build_oci.cli.bars._columns", lambda: columns)
    bars = bars_on(screen, monkeypatch)
    bars(Progress(0, "walk", 123_456, None))
    bars(Progress(1, "parent", 19_900_000, 84_100_000))
    wait_for(screen, "linux/amd64: ", "linux/arm64: ")
    lines = screen.lines()
    bars.close()
    assert max(map(len, lines)) <= columns - 4
    assert ("24%|" in lines[1]) == (columns >= 40), lines


def test_a_terminal_that_goes_away_is_no_error(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = bars_on(screen, monkeypatch)
    bars(Progress(0, "pack", 5_000_000, 10_000_000))
    wait_for(screen, "linux/amd64: packing:  50%|")
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    screen.gone = True
    bars._artist.join(10)
    assert not bars._artist.is_alive()
    bars(Progress(0, "pack", 6_000_000, 10_000_000))
    bars.close()
    assert not raised


def test_reporters() -> None:
    def kind(mode: str, *, terminal: bool) -> Any:
        made = reporter(mode, ["x"], print, terminal=terminal)
        if made:
            made.close()
        return type(made)

    assert [kind(mode, terminal=True) for mode in ("auto", "bar", "plain", "none")] == [
        Bars,
        Bars,
        Lines,
        type(None),
    ]
    assert [kind(mode, terminal=False) for mode in ("auto", "bar", "plain", "none")] == [
        type(None),
        Bars,
        Lines,
        type(None),
    ]


def test_nothing_on_a_pipe(tree: Path, tmp_path: Path) -> None:
    """By default a script sees neither bars nor a summary."""
    command = [sys.executable, "-P", "-m", "build_oci", "-o", str(tmp_path / "out")]
    done = subprocess.run(command, input=document(tree), capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


# The build waits until what it tells of its packing is on the terminal, however slow the thread is
# that draws.
SEEN_AT_ONCE = """
import sys, time
import tqdm
from build_oci.cli.bars import Bars
from build_oci.cli.command import main

Bars.DELAY = Bars.BRIEF = Bars.LEFT = 0
Bars.INTERVAL = 0.001
tell = Bars.__call__

def tell_and_wait(bars, progress):
    tell(bars, progress)
    end = time.monotonic() + 60
    if progress.stage == "pack" and progress.done < progress.total:
        while (0, "pack") not in bars._bars and time.monotonic() < end:
            time.sleep(0.001)

Bars.__call__ = tell_and_wait
sys.exit(main(sys.argv[1:]))
"""


def test_bars_on_a_terminal(tree: Path, tmp_path: Path) -> None:
    main_end, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    command = [sys.executable, "-P", "-c", SEEN_AT_ONCE, "-j", "1", "-o", str(tmp_path / "out")]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=terminal
    )
    os.close(terminal)
    assert child.stdin is not None
    child.stdin.write(document(tree).encode())
    child.stdin.close()
    seen = b""
    try:
        while piece := os.read(main_end, 4096):
            seen += piece
    except OSError:  # how a pseudo-terminal ends
        pass
    os.close(main_end)
    assert child.stdout is not None
    assert child.stdout.read() == b""
    child.stdout.close()
    assert child.wait() == 0
    assert b"linux/amd64: packing" in seen
    assert b"40 files" in seen  # the summary


def test_metrics(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(document(tree))
    monkeypatch.chdir(tmp_path)
    assert main(["-f", "config.yaml", "-o", "out", "-j", "2", "--metrics", "metrics.json"]) == 0
    assert capsys.readouterr() == ("", "")
    found = json.loads((tmp_path / "metrics.json").read_text())
    page = (REPOSITORY / "docs" / "metrics.md").read_text()
    (image,) = found["images"]
    for key in (*found, *image, *image["stages"]):
        assert f"`{key}`" in page, key
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert image["digest"] == index["manifests"][0]["digest"]
    assert (
        image["files"],
        image["unchanged"],
        image["whiteouts"],
        found["workers"],
        found["compressionLevel"],
    ) == (40, 0, 0, 2, 3)
    assert image["layerSize"] > 4_000_000 < image["uncompressedSize"]


@pytest.mark.parametrize("path", [".", "missing/metrics.json", "config.yaml/metrics.json"])
def test_metrics_that_cannot_be_written_are_told_of_first(
    path: str,
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "config.yaml").write_text(document(tree))
    monkeypatch.chdir(tmp_path)
    assert main(["-f", "config.yaml", "-o", "out", "--metrics", path]) == 1
    assert capsys.readouterr().err.startswith(
        f"build-oci: error: {path}: no file can be written here\nhint: "
    )
    assert not (tmp_path / "out").exists()


def test_verbose_explains(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.yaml").write_text(document(tree))
    (tmp_path / "two.yaml").write_text(
        json.dumps(json.loads(document(tree, tmp_path / "one")) | {"compression": "gzip"})
    )
    assert main(["-f", "one.yaml", "-o", "one", "-j", "3", "-v"]) == 0
    assert (
        "build-oci: compression zstd level 3, 3 workers, SHA-256 of files by "
        in capsys.readouterr().err
    )
    assert main(["-f", "two.yaml", "-o", "two", "-v"]) == 0
    assert ": recompressed from zstd to gzip\n" in capsys.readouterr().err


def test_schema_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "build-oci"


def test_nothing_in_the_first_moments(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the stage may take: a bar costs more than it tells there."""
    monkeypatch.setattr(Bars, "DELAY", 60.0)
    bars = bars_on(screen, monkeypatch)
    bars(Progress(0, "walk", 0, None))
    time.sleep(0.2)
    bars.close()
    assert screen.getvalue() == ""
    monkeypatch.setattr(Bars, "DELAY", 0.2)
    bars = bars_on(screen, monkeypatch)
    bars(Progress(0, "walk", 0, None))
    wait_for(screen, "linux/amd64: walking: 0 entries")
    bars.close()
