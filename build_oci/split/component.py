"""What a component is: its name, and how often it changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from build_oci.errors import printable
from build_oci.records import NamedTuple

NO_OWNER = 0xFFFFFFFF
"""Stands in an array of owners where no component owns the entry."""
DEFAULT_INTERVAL = 7.0

INTERVALS = {
    "daily": 1.0,
    "weekly": 7.0,
    "biweekly": 14.0,
    "monthly": 30.0,
    "quarterly": 91.0,
    "yearly": 365.0,
}
_LONGEST_INTERVAL = 36500.0  # days
_DAY = 86400
_DATES_USED = 20
_DAYS_LOOKED_AT = 730


class Component(NamedTuple):
    """Files that change together. interval_days: the time between two changes, as far as it is
    known. source: who named it (`packages`).
    """

    name: str
    interval_days: float
    source: str


def parse_interval(value: object) -> float:
    """The interval in days that VALUE means: a number of days, such a number as a string, or a
    word. ValueError says what is allowed.
    """
    if isinstance(value, str):
        word = value.strip().lower()
        if word in INTERVALS:
            return INTERVALS[word]
        try:
            value = float(word) if len(word) < 32 else None
        except ValueError:
            value = None
    # The comparison comes before the conversion: a whole number of any length compares with a
    # float, but does not always become one.
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 < value <= _LONGEST_INTERVAL
    ):
        return float(value)
    raise ValueError(
        f"must be a number of days up to {_LONGEST_INTERVAL:.0f}, or one of {', '.join(INTERVALS)}"
    )


def latest_days(seconds: Iterable[int]) -> list[int]:
    """The latest days of a changelog (SECONDS since 1970), the last first: as many as are looked
    at.
    """
    return sorted({second // _DAY for second in seconds if second > 0}, reverse=True)[:_DATES_USED]


def intervals_of_changelogs(changelogs: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """The days between two changes of each component in CHANGELOGS, from what `latest_days` found,
    at least two days each.

    What counts is how many changes fall into the last two years, or into as much of them as the
    changelog covers. The half that is added is the usual estimate of a rate from few events: a
    component without any change is said to change once in four years. The two years end with the
    newest date of all, and the present time plays no part, so that the same tree always gives the
    same intervals. A hundredth part of the components may be newer, because a changelog can be
    dated in the future.
    """
    newest = sorted((days[0] for days in changelogs.values()), reverse=True)
    return {name: _interval(days, newest[len(newest) // 100]) for name, days in changelogs.items()}


def _interval(days: Sequence[int], end: int) -> float:
    covered = min(max(end - days[-1], 1), _DAYS_LOOKED_AT)
    changes = sum(1 for day in days[:-1] if day > end - covered)
    return max(covered / (changes + 0.5), 1.0)


def shown_name(name: str | bytes) -> str:
    """NAME for a message: one line, at most 80 characters."""
    text = printable(name)
    return text if len(text) <= 80 else text[:79] + "…"
