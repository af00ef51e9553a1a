"""Who owns a file: one module for each kind of source, all behind one call."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from build_oci.records import NamedTuple
from build_oci.split.component import DEFAULT_INTERVAL, Component

if TYPE_CHECKING:
    from build_oci.config.model import ComponentSource
    from build_oci.split.tree import TreeIndex


class Registry:
    """The components that have been named so far, and warnings.

    Sources name a component by its number here.
    """

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self._numbers: dict[str, int] = {}
        self._intervals: list[float | None] = []
        self._sources: list[str] = []
        self._names: list[str] = []
        self._warned: set[int] = set()

    def number(self, name: str, source: str, interval: float | None = None) -> int:
        """The number of the component NAME.

        The first INTERVAL (days) that is given for it holds.
        """
        number = self._numbers.setdefault(name, len(self._intervals))
        if number == len(self._intervals):
            self._intervals.append(interval)
            self._sources.append(source)
            self._names.append(name)
        elif interval is not None:
            self.set_interval(number, interval, source)
        return number

    def set_interval(self, number: int, interval: float, source: str = "") -> None:
        """As `number` does for a component that has one already.

        Sources may disagree, but no source with itself.
        """
        known = self._intervals[number]
        if known is None:
            self._intervals[number] = interval
        elif (
            known != interval
            and number not in self._warned
            and source in ("", self._sources[number])
        ):
            self._warned.add(number)
            what = (
                f"the component `{self._names[number]}` is given more than one interval; the first,"
                f" {known:g} days, holds"
            )
            self.warn(f"{self._sources[number]}: {what}")

    def name(self, number: int) -> str:
        return self._names[number]

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def components(self) -> list[Component]:
        """All components by their numbers."""
        return [
            Component(name, DEFAULT_INTERVAL if interval is None else interval, source)
            for name, interval, source in zip(
                self._names, self._intervals, self._sources, strict=True
            )
        ]


class Context(NamedTuple):
    """What a source works with."""

    tree: TreeIndex
    registry: Registry
    config: ComponentSource


Owners: TypeAlias = "array[int]"
"""For each entry of the tree the number of its component, or NO_OWNER."""

Claim: TypeAlias = Callable[[Context], Owners]
"""What a source is: it says which entries it claims, regardless of other sources. Raises UsageError
or TreeError for bad input.
"""


def no_owners(context: Context) -> Owners:
    """An array in which nobody owns anything."""
    return array("I", b"\xff\xff\xff\xff") * len(context.tree.paths)
