"""Spec 1: progress, summary and metrics: on standard error or in a file, never on standard output."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from build_oci.cli import main
from build_oci.config import load_config
from build_oci.pipeline import build
from build_oci.progress import Bars, Lines, Progress, reporter


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
    result = build(load_config(document(tree, tmp_path / "parent")), output=tmp_path / "out", workers=2, on_progress=heard.append)
    assert heard[-1] == Progress(0, "done", 1, 1)
    for stage in ("walk", "parent", "hash", "pack"):
        told = [progress for progress in heard if progress.stage == stage]
        counts = [progress.done for progress in told]
        assert counts == sorted(counts), stage
        assert told[-1].done == told[-1].total, stage
    assert [progress.total for progress in heard if progress.stage == "walk"][-1] == 41
    (image,) = result.images
    assert image.uncompressed_size == next(progress for progress in reversed(heard) if progress.stage == "pack").total
    assert set(image.stages) == {"walk", "parent", "hash", "diff", "pack"}


def test_what_a_listener_raises_ends_the_build(tree: Path, tmp_path: Path) -> None:
    def listen(progress: Progress) -> None:
        if progress.stage == "pack":
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        build(load_config(document(tree)), output=tmp_path / "out", workers=2, on_progress=listen)
    assert not (tmp_path / "out").exists()


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


def test_bars_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    bars = Bars(["linux/amd64"])
    bars(Progress(0, "walk", 0, None))
    bars(Progress(0, "parent", 5_000_000, 10_000_000))
    bars.say("a warning")
    bars(Progress(0, "pack", 3_000_000, 10_000_000))
    bars(Progress(0, "done", 1, 1))
    bars.close()
    text = screen.getvalue()
    assert "a warning\n" in text
    assert "linux/amd64: packing:" in text
    assert text.rstrip("\r").rsplit("\r", 1)[-1].strip() == ""


def test_reporters() -> None:
    def kind(mode: str, *, terminal: bool) -> Any:
        return type(reporter(mode, ["x"], print, terminal=terminal))

    assert [kind(mode, terminal=True) for mode in ("auto", "bar", "plain", "none")] == [Bars, Bars, Lines, type(None)]
    assert [kind(mode, terminal=False) for mode in ("auto", "bar", "plain", "none")] == [type(None), Bars, Lines, type(None)]


def test_nothing_on_a_pipe(tree: Path, tmp_path: Path) -> None:
    """By default a script sees neither bars nor a summary."""
    command = [sys.executable, "-P", "-m", "build_oci", "-o", str(tmp_path / "out")]
    done = subprocess.run(command, input=document(tree), capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_bars_on_a_terminal(tree: Path, tmp_path: Path) -> None:
    main_end, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    command = [sys.executable, "-P", "-m", "build_oci", "-o", str(tmp_path / "out")]
    child = subprocess.run(command, input=document(tree).encode(), stdout=subprocess.PIPE, stderr=terminal, check=True)
    os.close(terminal)
    seen = b""
    try:
        while piece := os.read(main_end, 4096):
            seen += piece
    except OSError:  # how a pseudo-terminal ends
        pass
    os.close(main_end)
    assert child.stdout == b""
    assert b"linux/amd64: packing" in seen
    assert b"40 files" in seen  # the summary


def test_metrics(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text(document(tree))
    monkeypatch.chdir(tmp_path)
    assert main(["-f", "config.yaml", "-o", "out", "-j", "2", "--metrics", "metrics.json"]) == 0
    assert capsys.readouterr() == ("", "")
    found = json.loads((tmp_path / "metrics.json").read_text())
    page = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text()
    (image,) = found["images"]
    for key in (*found, *image, *image["stages"]):
        assert f"`{key}`" in page, key
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert image["digest"] == index["manifests"][0]["digest"]
    assert (image["files"], image["unchanged"], image["whiteouts"], found["workers"], found["compressionLevel"]) == (40, 0, 0, 2, 3)
    assert image["layerSize"] > 4_000_000 < image["uncompressedSize"]


@pytest.mark.parametrize("path", [".", "missing/metrics.json", "config.yaml/metrics.json"])
def test_metrics_that_cannot_be_written_are_told_of_first(
    path: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(document(tree))
    monkeypatch.chdir(tmp_path)
    assert main(["-f", "config.yaml", "-o", "out", "--metrics", path]) == 1
    assert capsys.readouterr().err.startswith(f"build-oci: error: {path}: no file can be written here\nhint: ")
    assert not (tmp_path / "out").exists()


def test_verbose_explains(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.yaml").write_text(document(tree))
    (tmp_path / "two.yaml").write_text(json.dumps(json.loads(document(tree, tmp_path / "one")) | {"compression": "gzip"}))
    assert main(["-f", "one.yaml", "-o", "one", "-j", "3", "-v"]) == 0
    assert "build-oci: compression zstd level 3, 3 workers, SHA-256 of files by " in capsys.readouterr().err
    assert main(["-f", "two.yaml", "-o", "two", "-v"]) == 0
    assert ": recompressed from zstd to gzip\n" in capsys.readouterr().err


def test_schema_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "build-oci"
