"""The arguments of the command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from build_oci.errors import UsageError
from build_oci.version import __version__

MAX_WORKERS = 1024
SHELLS = ("bash", "zsh", "fish")
# By name: what stands behind it on the line of usage. command.py has who runs them.
SUBCOMMANDS = {
    "verify": "[LAYOUT]",
    "merge": "LAYOUT... -o OUT",
    "compare": "OLD NEW",
    "show": "[LAYOUT]",
}

_SCHEMA = (
    "print the JSON Schema of the configuration, for editors; with `plan`, that of the file of"
    " `split.plan`, with `compare`, that of what compare prints with --json"
)
_LAYOUT = (
    "a layout or an oci-archive, of any builder; LAYOUT@N or LAYOUT:REFNAME is one image of it"
)

_OUTPUT = (
    "write the layout there (default: the current directory); oci-archive:FILE writes it as one"
    " archive, oci-archive:- to standard output"
)
_USAGE = "\n       ".join(
    [
        "build-oci [options] < config.yaml",
        *(f"build-oci {name} {rest}" for name, rest in SUBCOMMANDS.items()),
    ]
)
_NO_SYNC = (
    "do not wait until the disk has everything: quicker, but after a power loss the index may name"
    " empty blobs"
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, where="command line", hint=self._way_out(message))

    def _way_out(self, message: str) -> str:
        """What to do about MESSAGE, which is one of argparse's."""
        from difflib import get_close_matches

        _, _, first = message.partition("unrecognized arguments: ")
        first = first.partition(" ")[0].partition("=")[0]
        known = [option for action in self._actions for option in action.option_strings]
        near = (
            get_close_matches(first, known if first.startswith("-") else list(SUBCOMMANDS), n=1)
            if first
            else []
        )
        if near:
            return f"did you mean `{near[0]}`?"
        if first and os.path.isfile(first):
            return f"a configuration is named with -f: `{self.prog} -f {first}`"
        return f"`{self.prog} --help` lists the options"


def subcommand(argv: Sequence[str]) -> tuple[str, list[str]]:
    """The sub-command that ARGV names and its arguments, to which belong the options that stand
    before it. Else "" and all.
    """
    if not SUBCOMMANDS.keys().isdisjoint(argv):  # else there is no need to know all options
        options = {name: action for action in parser()._actions for name in action.option_strings}
        at = 0
        while at < len(argv) and argv[at].startswith("-") and argv[at] not in ("-", "--"):
            at += 1 + _takes_next(argv[at], argv[at + 1 : at + 2], options)
        if at < len(argv) and argv[at] in SUBCOMMANDS:
            return argv[at], [*argv[:at], *argv[at + 1 :]]
    return "", list(argv)


def _takes_next(
    argument: str, following: Sequence[str], options: Mapping[str, argparse.Action]
) -> bool:
    """Is what FOLLOWS the option ARGUMENT its value?"""
    if not argument.startswith("--"):  # -j, -qj; behind a value's letter stands the value: -j4
        letters = [options.get(f"-{letter}") for letter in argument[1:]]
        with_value = [action is not None and action.nargs != 0 for action in letters]
        return True in with_value and with_value.index(True) == len(letters) - 1
    action = options.get(argument)
    if action is None or action.nargs == 0:
        return False
    return action.nargs is None or not "".join(following).startswith("-")


def _count(text: str) -> int:
    if not (
        text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= MAX_WORKERS
    ):
        raise argparse.ArgumentTypeError(
            f"must be a whole number from 1 to {MAX_WORKERS}, not `{text}`"
        )
    return int(text)


def _path(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return text


def _formatter(prog: str) -> argparse.HelpFormatter:
    # Left alone, it imports half a dozen modules to find out how wide the terminal is, before any
    # help is asked for.
    try:
        width = os.get_terminal_size(2).columns
    except (OSError, AttributeError, ValueError):
        width = 80
    return argparse.HelpFormatter(prog, width=width - 2)


def _new(prog: str, description: str, **more: Any) -> argparse.ArgumentParser:
    return _Parser(
        formatter_class=_formatter, prog=prog, description=description, allow_abbrev=False, **more
    )


def _add_workers(made: argparse.ArgumentParser, what: str) -> None:
    """-j, which says how many WHAT."""
    made.add_argument(
        "-j",
        "--workers",
        metavar="N",
        type=_count,
        help=f"{what} (default: the CPUs this process may use)",
    )


def _add_volume(made: argparse.ArgumentParser, quiet: str, verbose: str) -> None:
    """-q and -v, which do QUIET and VERBOSE."""
    volume = made.add_mutually_exclusive_group()
    volume.add_argument("-q", "--quiet", action="store_true", help=quiet)
    volume.add_argument("-v", "--verbose", action="store_true", help=verbose)


def parser() -> argparse.ArgumentParser:
    """What the command line may say; UsageError for anything else."""
    made = _new(
        "build-oci",
        "Builds the OCI images that a YAML document on standard input describes, as an OCI image"
        " layout.",
        usage=_USAGE,
    )
    add = made.add_argument
    _add_workers(made, "worker threads")
    add(
        "-f",
        "--file",
        metavar="FILE",
        type=_path,
        default="-",
        help="read the configuration there; - is standard input (the default)",
    )
    add("-o", "--output", metavar="DIR", type=_path, default=".", help=_OUTPUT)
    add(
        "--check",
        action="store_true",
        help="validate the configuration and look at every path it names; build nothing",
    )
    add("--strict", action="store_true", help="take every warning for an error")
    add(
        "--progress",
        choices=("auto", "bar", "plain", "none"),
        default="auto",
        help="auto: bars on a terminal, nothing otherwise",
    )
    _add_volume(
        made,
        "no warnings, no summary",
        "say what is decided and why, and a summary line for each image",
    )
    add(
        "--metrics", metavar="FILE", type=_path, help="write sizes, counts and times there, as JSON"
    )
    add(
        "--digestfile",
        metavar="FILE",
        type=_path,
        help="write the digest of the index, or of the one manifest, there and nothing else",
    )
    add(
        "--prune",
        action="store_true",
        help="afterwards remove the blobs of the output that its index does not reach",
    )
    add("--no-sync", action="store_true", help=_NO_SYNC)
    add(
        "--schema",
        metavar="OF",
        nargs="?",
        const="config",
        choices=("config", "plan", "compare"),
        help=_SCHEMA,
    )
    add("--version", action="version", version=f"build-oci {__version__}")
    add(
        "--print-completion",
        metavar="SHELL",
        choices=SHELLS,
        help=f"print the completion of options for a shell: {', '.join(SHELLS)}",
    )
    return made


def verify_parser() -> argparse.ArgumentParser:
    """What may stand behind `verify`."""
    made = _new(
        "build-oci verify",
        "Recomputes everything that a layout or oci-archive of any builder says of itself, and"
        " lists every mismatch.",
    )
    made.add_argument(
        "layout",
        metavar="LAYOUT",
        nargs="?",
        type=_path,
        default=".",
        help="the layout or oci-archive (default: the current directory)",
    )
    _add_workers(made, "layers to read at once")
    made.add_argument(
        "--bootc",
        action="store_true",
        help="look for what keeps an image from booting with bootc and composefs, too",
    )
    _add_volume(made, "mismatches only", "what is odd but allowed, too, and what was looked at")
    return made


def merge_parser() -> argparse.ArgumentParser:
    """What may stand behind `merge`."""
    made = _new(
        "build-oci merge",
        "Writes one layout with the images of several, for example one for each architecture.",
    )
    made.add_argument(
        "layouts",
        metavar="LAYOUT",
        nargs="+",
        type=_path,
        help="a layout or oci-archive of any builder",
    )
    made.add_argument("-o", "--output", metavar="OUT", type=_path, required=True, help=_OUTPUT)
    _add_workers(made, "blobs to read at once")
    made.add_argument(
        "--digestfile",
        metavar="FILE",
        type=_path,
        help="write the digest of the index there and nothing else",
    )
    made.add_argument("--no-sync", action="store_true", help=_NO_SYNC)
    _add_volume(
        made,
        "no warnings, no summary",
        "a summary line, even where standard error is no terminal",
    )
    return made


def _bytes(text: str) -> int:
    from build_oci.cli.compare import parse_size

    try:
        return parse_size(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a size such as 200M or 150MiB, not `{text}`"
        ) from None


def compare_parser() -> argparse.ArgumentParser:
    """What may stand behind `compare`."""
    made = _new(
        "build-oci compare",
        "Tells what differs between two images, what an update costs, and why each new layer is"
        " new.",
        epilog=(
            "Exit status: 0 equal, 1 different, 2 trouble. With --max-download: 0 within the limit,"
            " 1 above it, 2 trouble."
        ),
    )
    add = made.add_argument
    add("old", metavar="OLD", type=_path, help=_LAYOUT)
    add("new", metavar="NEW", type=_path, help="what it is compared with, named likewise")
    add("--deep", action="store_true", help="read the layers that both have, too")
    add("--html", metavar="FILE", type=_path, help="write a page with a map of the new image there")
    add(
        "--max-download",
        metavar="SIZE",
        type=_bytes,
        help="exit with 1 if more is to be downloaded, else with 0: 200M, 150MiB, …",
    )
    _add_common(made)
    add(
        "-q",
        "--quiet",
        action="store_true",
        help=(
            "print nothing but errors and the line of --max-download; without --html and --json,"
            " layers are not read then"
        ),
    )
    return made


def show_parser() -> argparse.ArgumentParser:
    """What may stand behind `show`."""
    made = _new(
        "build-oci show",
        "Tells which images a layout holds, and what their layers are.",
        epilog="Exit status: 0, or 2 for trouble.",
    )
    add = made.add_argument
    add(
        "layout",
        metavar="LAYOUT",
        nargs="?",
        type=_path,
        default=".",
        help=f"{_LAYOUT} (default: the current directory)",
    )
    add(
        "--deep",
        action="store_true",
        help="read the layers: their ratios, and the largest directories",
    )
    add(
        "--files",
        action="store_true",
        help="read the layers, and list every file that the image holds",
    )
    _add_common(made)
    return made


def _add_common(made: argparse.ArgumentParser) -> None:
    add = made.add_argument
    add("--json", action="store_true", help="print one JSON document")
    add("--all", action="store_true", help="lists at full length")
    _add_workers(made, "layers to read at once")


# Those of the sub-commands, by name.
PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "verify": verify_parser,
    "merge": merge_parser,
    "compare": compare_parser,
    "show": show_parser,
}
_FILES = ("FILE", "OUT", "LAYOUT", "OLD", "NEW")


def completion(shell: str) -> str:
    """The script that lets SHELL complete sub-commands and options.

    UsageError without shtab, which writes it.
    """
    try:
        import shtab
    except ImportError:
        hint = "install it beside build-oci: pip install shtab"
        raise UsageError(
            "shtab, which writes it, is not installed", where="--print-completion", hint=hint
        ) from None
    described = parser()
    subparsers = described.add_subparsers()
    parsers = [described]
    for name, make in PARSERS.items():
        made = make()
        parsers.append(
            subparsers.add_parser(
                name, parents=[made], add_help=False, help=made.description, prog=made.prog
            )
        )
    for action in [action for each in parsers for action in each._actions]:
        if action.metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar == "DIR":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    return str(shtab.complete(described, shell))
