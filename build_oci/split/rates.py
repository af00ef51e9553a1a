"""How probable it is that an update changes a component: at first from its interval, then from what
was seen.

The chance is the mean of a Beta distribution: the interval's chance counts as much as PRIOR_BUILDS
builds that were seen. Intervals are days, and how many days pass between two updates is learned
too: so many that the components together change as often as they did (`update_days`). Without that
a component that was not seen to change yet would be taken for one that never does.

Arithmetic is +, -, ·, / alone, because `exp` may differ in its last digit between C libraries, and
the plan with it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

from build_oci.records import NamedTuple

# Days between two updates, as long as nothing was seen.
UPDATE_DAYS = 2.0
# How many builds the interval's word is worth. Of 1 to 6, series that were simulated on a Debian
# desktop moved least with 3 and 4, and 1 % more with 2.
PRIOR_BUILDS = 3.0
# After so many builds without it, a component that is gone is forgotten.
REMEMBERED_BUILDS = 26
# As much of a content digest as a plan keeps: a chance match of 64 bits is out of the question.
DIGEST_KEPT = 16
_LEAST_CHANCE = 1e-6
_MOST_UPDATE_DAYS = 1024.0
_HALVINGS = 30  # down to a millionth of a day


class Component(NamedTuple):
    """A set of files that change together, as the planner sees it.

    size: bytes that it adds to a layer.
    interval_days: how often it changes, as far as anybody said.
    digest: of its content, in hexadecimal, where it is known; a plan keeps the first DIGEST_KEPT
    digits.
    name: any text that is not empty; names are in the order of code points. Files that no source
    claims come as components of their own, under whatever names the caller reserves for them.
    """

    name: str
    size: int
    interval_days: float = 7.0
    digest: str | None = None


class History(NamedTuple):
    """What a plan remembers of a component.

    builds: updates that were seen with it before and after.
    changes: those of them that changed it.
    digest: its content in the last build, "" where it was not known.
    gone: updates since it was last there, 0 while it is there.
    """

    builds: int = 0
    changes: int = 0
    interval_days: float = 7.0
    digest: str = ""
    gone: int = 0


def update_days(histories: Collection[History]) -> float:
    """Days between two updates: with so many the intervals of HISTORIES say that there are as many
    changes as were seen. UPDATE_DAYS counts as much as one build that was seen.
    """
    seen = math.fsum(
        history.changes + UPDATE_DAYS / (UPDATE_DAYS + history.interval_days)
        for history in histories
    )
    low, high = 0.0, _MOST_UPDATE_DAYS
    for _ in range(_HALVINGS):
        days = (low + high) / 2
        said = math.fsum(
            (history.builds + 1) * (days / (days + history.interval_days)) for history in histories
        )
        low, high = (days, high) if said < seen else (low, days)
    return (low + high) / 2


def chance(history: History, days: float = UPDATE_DAYS) -> float:
    """The probability that an update changes the component, where DAYS pass between two: above 0,
    below 1.
    """
    prior = days / (days + history.interval_days)
    seen = (PRIOR_BUILDS * prior + history.changes) / (PRIOR_BUILDS + history.builds)
    return min(max(seen, _LEAST_CHANCE), 1.0 - _LEAST_CHANCE)


def changed_names(components: Iterable[Component], before: Mapping[str, History]) -> set[str]:
    """The components whose digest is not the one that BEFORE holds.

    Without both digests none is said to have changed.
    """
    return {
        component.name
        for component in components
        if component.digest
        and (old := before.get(component.name)) is not None
        and old.digest
        and old.digest != component.digest[:DIGEST_KEPT]
    }


def learn(
    components: Collection[Component],
    before: Mapping[str, History],
    changed: Collection[str],
    told: bool,
) -> dict[str, History]:
    """BEFORE, one build later: sorted by name, with COMPONENTS as they are now and those that are
    gone.

    CHANGED names what changed since. TOLD: that is so for every component; else only for those with
    a digest then and now. A build in which no component changed, came or went is no update and
    counts nothing: so the same tree again gives the same plan.
    """
    changed = set(changed)
    names = {component.name for component in components}
    present = {name for name, history in before.items() if not history.gone}
    counts = 1 if names != present or not changed.isdisjoint(names) else 0
    after = {}
    for component in components:
        old = before.get(component.name, History())
        digest = (component.digest or "")[:DIGEST_KEPT]
        seen = counts if component.name in present and (told or (digest and old.digest)) else 0
        after[component.name] = History(
            builds=old.builds + seen,
            changes=old.changes + (seen if component.name in changed else 0),
            interval_days=float(component.interval_days),
            digest=digest,
        )
    for name, old in before.items():
        if name not in names and old.gone + counts <= REMEMBERED_BUILDS:
            after[name] = old._replace(gone=old.gone + counts)
    return dict(sorted(after.items()))
