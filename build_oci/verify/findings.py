"""What `build-oci verify` finds: mismatches and oddities, each told once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from build_oci.errors import ParentError, printable
from build_oci.records import NamedTuple

_REMEMBERED = 1 << 17  # lines, so that what several images share is told once


class Finding(NamedTuple):
    """Something wrong (`is_problem`) or odd but allowed, without the place where it is."""

    is_problem: bool
    what: str


class Findings:
    """Tells findings, line by line: what is wrong (`problem`), what an image that boots should not
    have (`warning`) and what is odd but allowed (`note`). `mismatches` counts the first, `warnings`
    the second."""

    def __init__(
        self,
        problem: Callable[[str], None],
        note: Callable[[str], None],
        warning: Callable[[str], None],
    ) -> None:
        """PROBLEM, NOTE and WARNING are called with `WHERE: WHAT`."""
        self.mismatches = self.warnings = 0
        self._say_problem = problem
        self._say_note = note
        self._say_warning = warning
        self._said: set[int] = set()

    def problem(self, where: str | Path, what: str) -> None:
        self.refused(printable(f"{where}: {what}"))

    def note(self, where: str | Path, what: str) -> None:
        line = printable(f"{where}: {what}")
        if self._is_new(line):
            self._say_note(line)

    def tell_boot(self, where: str | Path, finding: Finding) -> None:
        """A FINDING about booting, which is a problem or a warning."""
        if finding.is_problem:
            self.problem(where, finding.what)
        elif self._is_new(line := printable(f"{where}: {finding.what}")):
            self.warnings += 1
            self._say_warning(line)

    def tell(self, where: str | Path, finding: Finding) -> None:
        (self.problem if finding.is_problem else self.note)(where, finding.what)

    def refused(self, line: str) -> None:
        """A problem whose LINE is made already."""
        if self._is_new(line):
            self.mismatches += 1
            self._say_problem(line)

    @contextmanager
    def caught(self) -> Iterator[None]:
        """What is refused here is a problem, and the rest is looked at all the same."""
        try:
            yield
        except ParentError as error:
            self.refused(str(error))

    def _is_new(self, line: str) -> bool:
        """What several images share, or refer to, is told once."""
        if hash(line) in self._said:
            return False
        if len(self._said) < _REMEMBERED:
            self._said.add(hash(line))
        return True


def shown(value: object) -> str:
    """A VALUE of a document for a message."""
    if isinstance(value, str):
        return f"“{value[:100]}”"
    if isinstance(value, dict | list):
        return "no string"
    return "absent" if value is None else str(value)[:100]
