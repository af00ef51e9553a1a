"""The errors a user can meet: what, where, the way out, and the exit status that goes with it.

Every error prints as one line `build-oci: error: WHERE: WHAT` and, where there is a way out, a line
`hint: …`.
"""

from __future__ import annotations

import errno
import os


def printable(text: str | bytes) -> str:
    """TEXT on one line of plain UTF-8: control characters and bytes that are no UTF-8 are escaped
    as in `\\x1b`.
    """
    if isinstance(text, bytes):
        text = os.fsdecode(text)
    return "".join(
        character if character.isprintable() else _escaped(character) for character in text
    )


def _escaped(character: str) -> str:
    raw = character.encode(
        "utf-8", "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"
    )
    return "".join(f"\\x{byte:02x}" for byte in raw)


_LONGEST = 4096  # characters: a path that a system call takes is shown whole
_ENDS = 1000


def shortened(text: str) -> str:
    """TEXT without its middle where it is longer than any path that a system call takes."""
    return text if len(text) <= _LONGEST else f"{text[:_ENDS]}…{text[-_ENDS:]}"


_PLURALS = {"entry": "entries", "mismatch": "mismatches"}


def counted(number: int, noun: str) -> str:
    """`1 layer`, `6,768 entries`."""
    return f"{number:,} {noun if number == 1 else _PLURALS.get(noun, noun + 's')}"


def size_text(size: float) -> str:
    """`3,075.2 MB`, `250.0 kB`, `12 B`: bytes, in powers of 1000."""
    for unit, factor in (("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:,.1f} {unit}"
    return f"{size:.0f} B"


MEMORY_HINT = "lower `prefetch-limit-mb`, or the number of workers with -j"
# The way out of what any call that opens a file may meet.
OPEN_FILES = os.strerror(errno.EMFILE)
OPEN_FILES_HINT = "raise the limit of open files (ulimit -n), or use fewer workers (-j)"


class BuildOciError(Exception):
    """Base of every error this package raises on purpose. `where` and `hint` may be empty.

    Where too many files are open, no other hint than the one on that leads anywhere.
    """

    exit_status = 1

    def __init__(self, what: str, *, where: str | bytes = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = shortened(printable(what))
        self.where = shortened(printable(where))
        self.hint = printable(OPEN_FILES_HINT if OPEN_FILES in what else hint)

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what

    def lines(self) -> list[str]:
        """What a terminal shows: the error, then its hint if it has one."""
        return [f"build-oci: error: {self}"] + ([f"hint: {self.hint}"] if self.hint else [])


class UsageError(BuildOciError):
    """The command line or the environment is wrong."""

    exit_status = 2


class ConfigError(BuildOciError):
    """The configuration is wrong: every problem that was found, and the warnings, in the order of
    the document.
    """

    exit_status = 2

    def __init__(self, problems: list[BuildOciError], warnings: tuple[str, ...] = ()) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems
        self.warnings = warnings

    def lines(self) -> list[str]:
        return [line for problem in self.problems for line in problem.lines()]


class TreeError(BuildOciError):
    """The root file system could not be read, or changed while it was being packed; `where` is the
    path.
    """


class ParentError(BuildOciError):
    """A parent image is broken, hostile or not understood; `where` is the file or blob."""


class PlanError(BuildOciError):
    """A plan of layers, in a file or in an image's annotations, is broken, hostile or too large;
    `where` is the file or blob.
    """


class OutputError(BuildOciError):
    """The output could not be written; `where` is the path."""


class Cancelled(BuildOciError):
    """The build was asked to stop."""

    exit_status = 130
