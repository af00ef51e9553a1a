"""Warnings as errors, and options in front of a sub-command."""

from __future__ import annotations

from pathlib import Path

import pytest

from build_oci.cli.arguments import subcommand
from build_oci.cli.command import main


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tree").mkdir()
    return tmp_path / "config.yaml"


def test_warnings_of_the_document(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every warning is reported as an error, and nothing is written."""
    config.write_text("tags: [a]\nimages:\n- {architecture: x86_64, os: linux, layer: tree}")
    assert main(["-f", "config.yaml", "-o", "out", "--strict"]) == 2
    errors = [
        line
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("build-oci: error: ")
    ]
    assert [":1: tags" in errors[0], ":3: images[0].architecture" in errors[1]] == [True, True]
    assert not Path("out").exists()
    assert main(["-f", "config.yaml", "-o", "out", "-q"]) == 0


def test_warnings_of_the_build(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "tree" / ".wh.x").touch()
    config.write_text("images:\n- {architecture: amd64, os: linux, layer: tree}")
    assert main(["-f", "config.yaml", "-o", "out", "--strict", "-q"]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert "tree/.wh.x: " in error
    assert hint == "hint: this is a warning, which --strict makes an error"
    assert not (Path("out") / "index.json").exists()


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["verify", "x"], ("verify", ["x"])),
        (["-q", "verify", "x"], ("verify", ["-q", "x"])),
        (["-j", "2", "-v", "verify"], ("verify", ["-j", "2", "-v"])),
        (["-j2", "merge", "a"], ("merge", ["-j2", "a"])),
        (["--workers=2", "verify"], ("verify", ["--workers=2"])),
        (["-o", "out", "merge", "a"], ("merge", ["-o", "out", "a"])),
        (
            ["--no-sync", "--digestfile", "d", "merge"],
            ("merge", ["--no-sync", "--digestfile", "d"]),
        ),
        (["-vj", "2", "verify"], ("verify", ["-vj", "2"])),
        (["-vj2", "verify"], ("verify", ["-vj2"])),
        (["--unknown", "verify"], ("verify", ["--unknown"])),
        (["--schema", "compare"], ("", ["--schema", "compare"])),
        (["-o", "verify"], ("", ["-o", "verify"])),
        (["-f", "verify", "-o", "merge"], ("", ["-f", "verify", "-o", "merge"])),
        (["verify", "merge"], ("verify", ["merge"])),
        (["-j", "verify"], ("", ["-j", "verify"])),
        ([], ("", [])),
    ],
)
def test_options_before_a_subcommand(argv: list[str], expected: tuple[str, list[str]]) -> None:
    assert subcommand(argv) == expected
