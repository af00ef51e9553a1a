"""The command line (contract: cli-build, cli-exit-status, cli-errors). The build itself is a
stand-in here.
"""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import IMAGE
from places import REPOSITORY

from build_oci.cli.arguments import PARSERS, SHELLS, SUBCOMMANDS, parser
from build_oci.cli.command import main
from build_oci.cli.metrics import summary
from build_oci.errors import TreeError, shortened, size_text
from build_oci.oci.documents import Platform
from build_oci.work.cpus import usable_cpus


def image_of(platform: Platform, **more: Any) -> Any:
    """A BuiltImage as far as the command looks at it."""
    nothing = {"layers_size": 0, "uncompressed_size": 0, "files": 0, "unchanged": 0, "whiteouts": 0}
    described = types.SimpleNamespace(platform=platform)
    rest = {"seconds": 0.0, "plan": None, "layers": (), "others": ()}
    return types.SimpleNamespace(
        **{"digest": "sha256:ab", "descriptor": described} | nothing | rest | more
    )


class StandIn:
    """Stands in for build_oci.pipeline: notes what it was asked for, then does `action`."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.action: Callable[[dict[str, Any]], None] = lambda call: None
        self.images = [
            image_of(
                Platform("arm64", "linux", variant="v8"),
                layers_size=250_000,
                uncompressed_size=1_000_000,
                files=7,
                unchanged=1234,
                whiteouts=5,
                seconds=1.25,
            )
        ]

    def build(self, config: Any, **options: Any) -> Any:
        self.calls.append({"config": config, **options})
        for image in self.images:
            options["on_image"](image)
        self.action(options)
        return types.SimpleNamespace(images=self.images)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "build_oci.pipeline", stand_in)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    monkeypatch.delenv("BUILD_OCI_DEBUG", raising=False)
    (tmp_path / "config.yaml").write_text(IMAGE)
    return stand_in


def feed(monkeypatch: pytest.MonkeyPatch, text: str, *, terminal: bool = False) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
    monkeypatch.setattr(stdin, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stdin", stdin)


@pytest.mark.parametrize("workers", [["-j", "3"], ["-j3"], ["--workers", "3"], ["--workers=3"]])
def test_options(
    stand_in: StandIn,
    workers: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "7")
    assert main([*workers, "-f", "config.yaml", "-o", "out", "--progress", "none"]) == 0
    (call,) = stand_in.calls
    assert (call["workers"], call["output"], call["epoch"]) == (3, "out", 7)
    assert call["config"].images[0].where == "config.yaml:2: images[0]"
    # Standard output stays empty during a build, and so does standard error where nobody watches.
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("arguments", [[], ["-f", "-"]])
def test_standard_input(
    stand_in: StandIn,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    feed(monkeypatch, IMAGE)
    assert main(arguments) == 0
    (call,) = stand_in.calls
    assert (call["workers"], call["output"], call["epoch"]) == (usable_cpus(), ".", None)
    assert call["config"].images[0].where == "<stdin>:2: images[0]"
    assert capsys.readouterr() == ("", "")


def test_terminal_input(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    feed(monkeypatch, IMAGE, terminal=True)
    assert main([]) == 0
    assert "waiting for the configuration (YAML) on standard input" in capsys.readouterr().err


def test_summary(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With -v, or on a terminal, one line an image: layout, platform, digest, sizes before and
    after, ratio, files, seconds. It comes when the image is done, so also where a later one fails.
    """
    line = (
        "build-oci: .: linux/arm64/v8: sha256:ab  1.0 MB -> 250.0 kB (25.0%)  7 files, 1,234"
        " unchanged, 5 whiteouts  1.2 s\n"
    )
    assert main(["-f", "config.yaml", "-v"]) == 0
    assert capsys.readouterr() == ("", line)
    assert main(["-f", "config.yaml", "-v", "-o", "a\nb"]) == 0
    assert capsys.readouterr() == ("", line.replace(".:", "a\\x0ab:", 1))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["-f", "config.yaml"]) == 0
    assert capsys.readouterr() == ("", line)
    assert main(["-f", "config.yaml", "-q"]) == 0
    assert capsys.readouterr() == ("", "")


def test_summary_without_layers() -> None:
    image = image_of(Platform("amd64", "linux"))
    told = summary(image, "out")
    assert told == ("build-oci: out: linux/amd64: sha256:ab  no layer of its own  0 files  0.0 s")


def test_long_names_lose_their_middle() -> None:
    """contract: cli-escapes. What no system call takes is cut."""
    whole, longer = "d/" * 2048, "d/" * 10_000
    assert shortened(whole) == whole
    line = TreeError("is of a type that no layer can hold", where=longer).lines()[0]
    assert len(line) < 4096
    assert "d/d/…d/d/" in line


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (49_999, "50.0 kB"),
        (3_075_200_000, "3,075.2 MB"),
    ],
)
def test_small_sizes(size: int, text: str) -> None:
    """No size that is not 0 reads as 0.0."""
    assert size_text(size) == text


def test_warnings(stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("tags: gzip\n" + IMAGE)
    stand_in.action = lambda call: call["warn"]("./so\ncket: is skipped")
    assert main(["-f", "config.yaml"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "build-oci: warning: config.yaml:1: tags: `tags` is not a key; did you mean `images`?",
        "build-oci: warning: ./so\\x0acket: is skipped",
    ]
    assert main(["-f", "config.yaml", "-q"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-j0"], "argument -j/--workers: must be a whole number from 1 to 1024, not `0`"),
        (["-j", "many"], "not `many`"),
        (["-j99999"], "not `99999`"),
        (["--out", "x"], "unrecognized arguments"),
        (["config.yaml"], "unrecognized arguments: config.yaml"),
        (["-o", ""], "the path is empty"),
        (["--progress", "fancy"], "invalid choice"),
        (["-q", "-v"], "not allowed with argument"),
        (
            ["-f", "missing.yaml"],
            (
                "build-oci: error: missing.yaml: cannot read the configuration: No such file or"
                " directory"
            ),
        ),
        (["-f", "."], "build-oci: error: .: cannot read the configuration: Is a directory"),
        (["-f", "wrong.yaml"], "build-oci: error: wrong.yaml:1: mode: must be one of `oci`"),
        (
            ["--check", "-f", "layer.yaml"],
            "build-oci: error: layer.yaml:4: images[0].layer: cannot use the directory `gone`",
        ),
    ],
)
def test_usage_errors(
    stand_in: StandIn,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Status 2: the command line or the configuration is wrong; one line, then a hint."""
    (tmp_path / "wrong.yaml").write_text("mode: tar\n" + IMAGE)
    (tmp_path / "layer.yaml").write_text(IMAGE + "  layer: gone")
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    error, *hints = err.splitlines()
    assert error.startswith("build-oci: error: ")
    assert message in error
    assert all(hint.startswith("hint: ") for hint in hints)
    assert len(hints) <= 1
    assert (out, stand_in.calls) == ("", [])


def test_warnings_come_with_errors(
    stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A key that is misspelt in one place may be the one that is missing in another: both are
    told.
    """
    (tmp_path / "misspelt.yaml").write_text("images:\n- {architecture: amd64, tags: linux}")
    assert main(["-f", "misspelt.yaml"]) == 2
    warning, error = capsys.readouterr().err.splitlines()[:2]
    assert (
        warning
        == "build-oci: warning: misspelt.yaml:2: images[0].tags: `tags` is not a key, and is"
        " ignored"
    )
    assert error.startswith("build-oci: error: misspelt.yaml:2: images[0]")


def test_epoch_error(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """contract: config-epoch."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    assert main(["-f", "config.yaml"]) == 2
    assert capsys.readouterr().err.startswith("build-oci: error: SOURCE_DATE_EPOCH: must be")


def test_check(stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", "-f", "config.yaml"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["--check", "-v", "-f", "config.yaml"]) == 0
    assert capsys.readouterr().err == "build-oci: nothing is wrong with config.yaml: 1 image\n"
    (tmp_path / "config.yaml").write_text(IMAGE + "  layer: gone")
    assert main(["--check", "-f", "config.yaml"]) == 2
    assert stand_in.calls == []


@pytest.mark.parametrize(
    ("error", "status", "lines"),
    [
        (TreeError("vanished", where=b"./a\xff"), 1, ["build-oci: error: ./a\\xff: vanished"]),
        (
            OSError(28, "No space left on device", "out/blob"),
            1,
            ["build-oci: error: out/blob: No space left on device"],
        ),
        (OSError("odd"), 1, ["build-oci: error: odd"]),
        (MemoryError(), 1, ["build-oci: error: out of memory", "hint: lower"]),
        (
            RecursionError("deep"),
            1,
            [
                "build-oci: error: internal error: RecursionError: deep",
                "hint: this is a bug, please report it",
            ],
        ),
        (KeyboardInterrupt(), 130, ["build-oci: error: stopped"]),
        (
            ValueError("two\nlines"),
            1,
            ["build-oci: error: internal error: ValueError: two\\x0alines", "hint: "],
        ),
    ],
)
def test_failures(
    stand_in: StandIn,
    error: BaseException,
    status: int,
    lines: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Status 1: the build failed. Never a traceback."""

    def fail(call: Any) -> None:
        raise error

    stand_in.action = fail
    assert main(["-f", "config.yaml"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == len(lines)
    assert all(found.startswith(line) for found, line in zip(err.splitlines(), lines, strict=True))


def test_debug(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback with BUILD_OCI_DEBUG=1 only."""
    monkeypatch.setenv("BUILD_OCI_DEBUG", "1")
    stand_in.action = lambda call: call["nothing"]
    assert main(["-f", "config.yaml"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert "build-oci: error: internal error: KeyError: 'nothing'" in err


@pytest.mark.parametrize("argument", ["--version", "-h", "--help"])
def test_answers(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([argument]) == 0
    out, err = capsys.readouterr()
    assert "build-oci" in out
    assert err == ""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals(
    stand_in: StandIn, number: signal.Signals, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """130 / 143 after SIGINT / SIGTERM: clean-up runs, a second signal does not disturb it, the
    handlers are restored.
    """
    cleaned = []

    def stop(call: Any) -> None:
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)
            cleaned.append(True)
            raise TreeError("what a cancelled thread makes of it")

    stand_in.action = stop
    former = signal.signal(number, signal.default_int_handler)
    try:
        assert main(["-f", "config.yaml"]) == status
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, former)
    assert cleaned == [True]
    assert capsys.readouterr().err == f"build-oci: error: stopped by {number.name}\n"


def test_ignored_signal_stays_ignored(stand_in: StandIn) -> None:
    """nohup build-oci."""
    stand_in.action = lambda call: signal.raise_signal(signal.SIGHUP)
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert main(["-f", "config.yaml"]) == 0
    finally:
        signal.signal(signal.SIGHUP, former)


def options_of(action: Any) -> list[str]:
    return [option for option in action.option_strings if option.startswith("--")]


def test_every_option_is_documented() -> None:
    """Those of a build in the manual page and in the table of docs/command-line.md; those of each
    sub-command in its part of the manual page.
    """
    manual, page = (
        (REPOSITORY / path).read_text() for path in ("docs/build-oci.1", "docs/command-line.md")
    )
    for action in parser()._actions:
        for option in options_of(action):
            assert option.replace("-", "\\-") in manual, option
            assert option in page or option in ("--help", "--quiet", "--verbose"), option
    parts = manual.split(".SS build\\-oci ")[1:]
    assert [part.split()[0] for part in parts] == list(PARSERS) == list(SUBCOMMANDS)
    for (name, make), part in zip(PARSERS.items(), parts, strict=True):
        for action in make()._actions:
            if action.option_strings and "--help" not in action.option_strings:
                told = [option.replace("-", "\\-") in part for option in action.option_strings]
                assert any(told), (name, action.option_strings)


@pytest.mark.parametrize("shell", SHELLS)
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    assert main(["--print-completion", shell]) == 0
    script = capsys.readouterr().out
    for action in parser()._actions:
        for option in options_of(action):
            assert option in script or option[2:] in script, option
    if (program := shutil.which(shell)) and shell == "bash":
        subprocess.run([program, "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["build-oci", "ver"], ["verify"]),
        (["build-oci", "-v", "c"], ["compare"]),
        (["build-oci", "verify", "--boo"], ["--bootc"]),
        (["build-oci", "merge", "--dig"], ["--digestfile"]),
        (["build-oci", "compare", "--max"], ["--max-download"]),
        (["build-oci", "show", "--fil"], ["--files"]),
        (["build-oci", "verify", "--prune"], []),
        (["build-oci", "--dig"], ["--digestfile"]),
        (["build-oci", "--schema", "pl"], ["plan"]),
        (["build-oci", "verify", "lay"], ["layout"]),
        (["build-oci", "compare", "fi"], ["file"]),
    ],
)
def test_completion_in_bash(
    words: list[str], expected: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sub-commands, the options of each, and files."""
    pytest.importorskip("shtab")
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is missing")
    (tmp_path / "layout").mkdir()
    (tmp_path / "file").touch()
    assert main(["--print-completion", "bash"]) == 0
    script = capsys.readouterr().out
    asked = """
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        $(complete -p build-oci | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        [bash, "--norc", "-c", f"compopt() {{ :; }}\n{script}\n{asked}", "bash", *words],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == expected, done.stderr


def test_completion_without_shtab(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["--print-completion", "bash"]) == 2
    assert "pip install shtab" in capsys.readouterr().err
