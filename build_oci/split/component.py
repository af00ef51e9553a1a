"""What a component is: its name, and how often it changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from build_oci.errors import printable

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


def interval_of_dates(seconds: Iterable[int]) -> float | None:
    """The mean number of days between the latest DATES (seconds since 1970) of a changelog; None if
    there are too few.

    It looks at nothing else, the present time least of all, so that the same tree always gives the
    same interval.
    """
    days = sorted({second // _DAY for second in seconds if second > 0}, reverse=True)[:_DATES_USED]
    if len(days) < 2:
        return None
    return min(max((days[0] - days[-1]) / (len(days) - 1), 1.0), 365.0)


def shown_name(name: str | bytes) -> str:
    """NAME for a message: one line, at most 80 characters."""
    text = printable(name)
    return text if len(text) <= 80 else text[:79] + "…"
