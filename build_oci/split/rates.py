"""How probable it is that an update changes a component: at first from its interval, then from what
was seen.

The chance is the mean of a Beta distribution: the interval's chance counts as much as PRIOR_BUILDS
builds that were seen. Arithmetic is +, -, ·, / alone, because `exp` may differ in its last digit
between C libraries, and the plan with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

# Days between two updates, for the chance that stands at the beginning. Only the ratio to the
# intervals counts.
UPDATE_DAYS = 1.0
# How many builds the interval's word is worth. Of 1 to 8, the simulated series
# (benchmarks/update_simulation.py) moved least with 2; 3 was 1 % behind.
PRIOR_BUILDS = 2.0
# After so many builds without it, a component that is gone is forgotten.
REMEMBERED_BUILDS = 26
# As much of a content digest as a plan keeps: a chance match of 64 bits is out of the question.
DIGEST_KEPT = 16
_LEAST_CHANCE = 1e-6


class Component(NamedTuple):
    """A set of files that change together, as the planner sees it.

    size: bytes that it adds to a layer. interval_days: how often it changes, as far as anybody
    said. digest: of its content, in hexadecimal, where it is known; a plan keeps the first
    DIGEST_KEPT digits. Names are any text that is not empty, in the order of code points: files
    that no source claims come as components of their own, under whatever names the caller reserves
    for them.
    """

    name: str
    size: int
    interval_days: float = 7.0
    digest: str | None = None


class History(NamedTuple):
    """What a plan remembers of a component.

    builds: updates that were seen with it before and after; changes: those of them that changed it;
    digest: its content in the last build, "" where it was not known; gone: updates since it was
    last there, 0 while it is there."""

    builds: int = 0
    changes: int = 0
    interval_days: float = 7.0
    digest: str = ""
    gone: int = 0


def chance(history: History) -> float:
    """The probability that an update changes the component: above 0, below 1."""
    prior = UPDATE_DAYS / (UPDATE_DAYS + history.interval_days)
    seen = (PRIOR_BUILDS * prior + history.changes) / (PRIOR_BUILDS + history.builds)
    return min(max(seen, _LEAST_CHANCE), 1.0 - _LEAST_CHANCE)


def changed_names(components: Iterable[Component], before: Mapping[str, History]) -> set[str]:
    """The components whose digest is not the one that BEFORE holds. Without both digests none is
    said to have changed.
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
