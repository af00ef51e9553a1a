"""Which components share a layer, so that an update moves few bytes: made once, then kept from
build to build.

A plan is made by `partition` from sizes and chances. The next build keeps it: a component stays in
its layer, a new one goes where it costs least, or alone while there is room, one that is gone
leaves its place. Where the plan is expected to move over 20 % more than a fresh one, the layers
that this update moves in any case exchange components first, because that moves no further byte.
Where that is not enough, the fresh plan is taken. Nothing here knows files, tars or layouts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from build_oci.records import NamedTuple
from build_oci.split.partition import Check, join_neighbours, layer_cost, partition
from build_oci.split.rates import Component, History, chance, changed_names, learn, update_days

# The earlier plan is changed where it is expected to move more than this times the bytes of a fresh
# one: up to there a component stays in its layer. benchmarks/README.md has the figures.
WORTH_A_NEW_PLAN = 1.2
# How many updates count beside this one where a new component is given its layer.
_UPDATES_AHEAD = 8


class PlanLayer(NamedTuple):
    """The names of the components of one layer: sorted, at least one."""

    components: tuple[str, ...]


class Plan(NamedTuple):
    """layers: bottom first, each component in exactly one. history: of every component, and of
    those gone not long ago.
    """

    layers: tuple[PlanLayer, ...]
    history: Mapping[str, History]

    def places(self) -> dict[str, int]:
        """The number of its layer for every component."""
        return {
            name: number for number, layer in enumerate(self.layers) for name in layer.components
        }


class PlanResult(NamedTuple):
    """A plan and why it is as it is.

    expected_cost, fresh_cost: bytes that an update is expected to move, with the plan and with one
    that heeds no earlier plan.
    replanned: an earlier plan was given up.
    reason: a line for people.
    """

    plan: Plan
    expected_cost: float
    fresh_cost: float
    replanned: bool
    reason: str


def make_plan(
    components: Iterable[Component],
    max_layers: int,
    previous: Plan | None = None,
    *,
    changed: Collection[str] | None = None,
    check: Check = lambda: None,
) -> PlanResult:
    """The plan for COMPONENTS in at most MAX_LAYERS layers, after PREVIOUS.

    CHANGED names the components that changed since; None: what the digests say. The order of
    COMPONENTS does not matter. CHECK is called now and then and may raise, to stop. Raises
    ValueError where a name comes twice or a number makes no sense."""
    components = sorted(components, key=lambda component: component.name)
    _validate(components, max_layers)
    before: Mapping[str, History] = previous.history if previous else {}
    told = changed is not None
    changed = changed if changed is not None else changed_names(components, before)
    history = learn(components, before, changed, told)
    planner = _Planner(components, history, max_layers, check)
    fresh = planner.fresh()
    fresh_cost = planner.cost(fresh)
    if previous is None or not previous.layers:
        return PlanResult(_plan(fresh, history), fresh_cost, fresh_cost, False, "no earlier plan")
    kept = planner.keep(previous, changed)
    kept_cost = planner.cost(kept)
    recut = ""
    if kept_cost > WORTH_A_NEW_PLAN * fresh_cost:
        better = planner.recut(kept, previous, changed)
        if (better_cost := planner.cost(better)) < kept_cost:
            kept, kept_cost = better, better_cost
            recut = (
                ", after components changed places between layers that this update moves in any"
                " case"
            )
    if kept_cost > WORTH_A_NEW_PLAN * fresh_cost:
        reason = (
            f"made anew: the earlier plan was expected to move {_more(kept_cost, fresh_cost)} bytes"
            " in an update than this one"
        )
        return PlanResult(_plan(fresh, history), fresh_cost, fresh_cost, True, reason)
    reason = (
        f"kept: expected to move {_more(kept_cost, fresh_cost)} bytes in an update than a fresh"
        f" plan{recut}"
    )
    return PlanResult(_plan(kept, history), kept_cost, fresh_cost, False, reason)


def _validate(components: Sequence[Component], max_layers: int) -> None:
    if max_layers < 1:
        raise ValueError(f"{max_layers} is no number of layers")
    for component, name in zip(
        components, ["", *(component.name for component in components)], strict=False
    ):
        if component.name == name:
            raise ValueError(f"a name is empty, or two components are called {name!r}")
        if component.size < 0 or not 0 < component.interval_days < math.inf:
            raise ValueError(
                f"component {component.name!r} has the size {component.size} and the interval"
                f" {component.interval_days}"
            )


def _plan(layers: Sequence[Sequence[str]], history: Mapping[str, History]) -> Plan:
    return Plan(tuple(PlanLayer(tuple(sorted(layer))) for layer in layers), history)


def _more(cost: float, than: float) -> str:
    """`31 % more`, `as many`."""
    percent = round(100 * (cost / than - 1)) if than else 0
    return (
        f"{percent} % more" if percent > 0 else f"{-percent} % fewer" if percent < 0 else "no more"
    )


class _Planner:
    """Fresh and kept plans for COMPONENTS, sorted by name; layers are lists of names."""

    def __init__(
        self,
        components: Sequence[Component],
        history: Mapping[str, History],
        max_layers: int,
        check: Check,
    ) -> None:
        self._names = [component.name for component in components]
        self._sizes = [component.size for component in components]
        days = update_days([history[name] for name in self._names])
        self._chances = [chance(history[name], days) for name in self._names]
        self._number = {name: number for number, name in enumerate(self._names)}
        self._max_layers = max_layers
        self._check = check

    def fresh(self) -> list[list[str]]:
        """A plan that heeds no other. The layers that change least are lowest: clients that know a
        layer by all that lies below it keep the more of them."""
        layers = [
            sorted(layer)
            for layer in partition(self._sizes, self._chances, self._max_layers, self._check)
        ]
        layers.sort(key=lambda layer: (-self._calm(layer), layer))
        return self._named(layers)

    def keep(self, previous: Plan, changed: Collection[str]) -> list[list[str]]:
        """PREVIOUS for the components that are there now, of which CHANGED are not what they were,
        in its order; a layer that nothing is left of is left out.
        """
        place = previous.places()
        held: list[list[int]] = [[] for _ in previous.layers]
        new = []
        for name, number in self._number.items():
            if (layer := place.get(name)) is None:
                new.append(number)
            else:
                held[layer].append(number)
        layers = [layer for layer in held if layer]
        if len(layers) > self._max_layers:
            layers = self._join(layers)
        self._add(layers, new, self._moving(layers, previous, changed))
        return self._named(layers)

    def recut(
        self, layers: list[list[str]], previous: Plan, changed: Collection[str]
    ) -> list[list[str]]:
        """LAYERS, with those that this update moves in any case cut again, into no more than they
        are. The others stay as they are.

        A layer is moved if one of its components changed, or if it holds other components than any
        layer of PREVIOUS. Layers of new components alone are left out."""
        places = previous.places()
        numbered = [[self._number[name] for name in layer] for layer in layers]
        moving = [
            at
            for at, moves in enumerate(self._moving(numbered, previous, changed))
            if moves and not places.keys().isdisjoint(layers[at])
        ]
        numbers = sorted(number for at in moving for number in numbered[at])
        sizes, chances = (
            [self._sizes[number] for number in numbers],
            [self._chances[number] for number in numbers],
        )
        parts = [
            [numbers[part] for part in layer]
            for layer in partition(sizes, chances, max(len(moving), 1), self._check)
        ]
        parts.sort(key=lambda layer: (-self._calm(layer), layer))
        after = [list(layer) for layer in layers]
        named = self._named(parts)
        for place, at in enumerate(moving):
            after[at] = named[place] if place < len(named) else []
        return [layer for layer in after if layer]

    def _moving(
        self, layers: list[list[int]], previous: Plan, changed: Collection[str]
    ) -> list[bool]:
        """Which of LAYERS this update moves in any case: those of which a component is among
        CHANGED, and those that are no layer of PREVIOUS.
        """
        whole = {layer.components for layer in previous.layers}
        changed = set(changed)
        return [
            tuple(names) not in whole or not changed.isdisjoint(names)
            for names in ([self._names[number] for number in sorted(layer)] for layer in layers)
        ]

    def _join(self, layers: list[list[int]]) -> list[list[int]]:
        """LAYERS, so many of them joined that they are few enough: the others keep their
        components.
        """

        def order(layer: list[int]) -> tuple[float, list[int]]:
            return (1.0 - self._calm(layer)) / max(self._bytes(layer), 1), layer

        return join_neighbours(
            sorted(layers, key=order), self._sizes, self._chances, self._max_layers
        )

    def _add(self, layers: list[list[int]], new: list[int], moving: list[bool]) -> None:
        """Puts NEW into LAYERS, the dearest first: alone while there is room, else where it costs
        least, now and in the next _UPDATES_AHEAD updates. Now it costs the bytes of a layer that is
        not MOVING.
        """
        new.sort(key=lambda number: (-self._sizes[number] * self._chances[number], number))
        alone = new[: self._max_layers - len(layers)]
        layers += [[number] for number in alone]
        moving += [True] * len(alone)
        calm = [self._calm(layer) for layer in layers]
        size = [self._bytes(layer) for layer in layers]
        for number in new[len(alone) :]:
            self._check()
            bytes_, chance_ = self._sizes[number], self._chances[number]
            stay = bytes_ * (1.0 - chance_)
            prices = [
                _UPDATES_AHEAD * (chance_ * (s * c) - stay * c) + (0 if m else s)
                for s, c, m in zip(size, calm, moving, strict=True)
            ]
            to = prices.index(min(prices))
            layers[to].append(number)
            moving[to] = True
            calm[to] *= 1.0 - chance_
            size[to] += bytes_

    def _named(self, layers: list[list[int]]) -> list[list[str]]:
        return [[self._names[number] for number in layer] for layer in layers]

    def cost(self, layers: Iterable[Iterable[str]]) -> float:
        """The bytes that an update is expected to move."""
        numbered = ([self._number[name] for name in layer] for layer in layers)
        return math.fsum(layer_cost(self._bytes(layer), self._calm(layer)) for layer in numbered)

    def _calm(self, layer: Iterable[int]) -> float:
        calm = 1.0
        for number in layer:
            calm *= 1.0 - self._chances[number]
        return calm

    def _bytes(self, layer: Iterable[int]) -> int:
        return sum(self._sizes[number] for number in layer)
