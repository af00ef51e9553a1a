"""Cuts components into layers so that the expected bytes of an update are few.

Numbers only: no names, no files.

A layer with the components i has to be moved as a whole when any of them changes, so it costs

    (Σ sᵢ) · (1 - Π qᵢ)      sᵢ: bytes    pᵢ: the chance that i changes in an update    qᵢ = 1 - pᵢ

A layer is kept as two numbers, `size` S and `calm` Q = Π qᵢ, the chance that it stays as it is.
Then

    joining layers a and b costs   Sa·Qa·(1 - Qb) + Sb·Qb·(1 - Qa)      never negative
    adding i to layer b costs      pᵢ·(Sb·Qb) + sᵢ·(1 - qᵢ·Qb)          linear in (Sb·Qb, Qb)

The search has two steps. First, components are sorted by pᵢ / sᵢ and neighbours are joined, the
cheapest pair first, until there are few enough layers. (To first order, i belongs where sᵢ·Pb +
pᵢ·Sb is least, P being the sum of the chances. So layers that cannot be improved are cones around
the origin of the plane of s and p: ranges of p / s.) Second, single components move to the layer
where they cost least, until none gains.

The arithmetic is +, -, ·, / alone, in one order, and no `sum()` of floats (Python 3.12 adds them
otherwise than 3.11): so the result is the same on every machine and Python.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence

# Layers that are looked at over all moves, which bounds the second step to about half a second of
# CPU time. A sweep over 2,000 components in 500 layers is a million.
_LOOKS = 8_000_000
_MOST_SWEEPS = 30
# A move must gain this part of the component's own bytes, so that rounding cannot send it back and
# forth.
_LEAST_GAIN = 1e-9
# A sweep that gains less than this part of the whole is the last.
_LEAST_SWEEP = 1e-3

Check = Callable[[], None]


def layer_cost(size: float, calm: float) -> float:
    """The expected bytes of an update for one layer of SIZE bytes that stays as it is with the
    chance CALM.
    """
    return size * (1.0 - calm)


def partition(
    sizes: Sequence[int], chances: Sequence[float], most: int, check: Check = lambda: None
) -> list[list[int]]:
    """The components 0 … len(SIZES) - 1, in at most MOST layers; each layer is sorted, none is
    empty.

    CHANCES are within 0 … 1, both ends left out. CHECK is called now and then and may raise. The
    result depends on the order of the components only where two are alike."""
    if len(sizes) <= most:
        return [[number] for number in range(len(sizes))]
    order = sorted(
        range(len(sizes)),
        key=lambda number: (chances[number] / max(sizes[number], 1), sizes[number], number),
    )
    layers = join_neighbours([[number] for number in order], sizes, chances, most)
    _Moves(layers, sizes, chances).run(check)
    return [sorted(layer) for layer in layers if layer]


def join_neighbours(
    layers: list[list[int]], sizes: Sequence[int], chances: Sequence[float], most: int
) -> list[list[int]]:
    """LAYERS in their order, but with the cheapest neighbours joined until there are MOST or
    fewer.
    """
    members = [list(layer) for layer in layers]
    size = [float(sum(sizes[number] for number in layer)) for layer in members]
    calm = [_calm(layer, chances) for layer in members]
    count = len(members)
    after = list(range(1, count + 1))
    before = list(range(-1, count - 1))
    age = [0] * count  # grows with each join, so that the heap's outdated pairs are known

    def pair(left: int, right: int) -> tuple[float, int, int, int, int]:
        cost = size[left] * calm[left] * (1.0 - calm[right]) + size[right] * calm[right] * (
            1.0 - calm[left]
        )
        return cost, left, right, age[left], age[right]

    heap = [pair(left, left + 1) for left in range(count - 1)]
    heapq.heapify(heap)
    alive = count
    while alive > most:
        _, left, right, age_left, age_right = heapq.heappop(heap)
        if age[left] != age_left or age[right] != age_right:
            continue
        members[left] += members[right]
        members[right] = []
        size[left] += size[right]
        calm[left] *= calm[right]
        age[left] += 1
        age[right] = -1
        alive -= 1
        after[left] = after[right]
        if after[left] < count:
            before[after[left]] = left
            heapq.heappush(heap, pair(left, after[left]))
        if before[left] >= 0:
            heapq.heappush(heap, pair(before[left], left))
    return [layer for layer in members if layer]


def _calm(layer: Sequence[int], chances: Sequence[float]) -> float:
    calm = 1.0
    for number in layer:
        calm *= 1.0 - chances[number]
    return calm


class _Moves:
    """Moves single components between LAYERS, in place, while that makes the whole cheaper."""

    def __init__(
        self, layers: list[list[int]], sizes: Sequence[int], chances: Sequence[float]
    ) -> None:
        self._layers = layers
        self._sizes = sizes
        self._chances = chances
        self._home = {number: at for at, layer in enumerate(layers) for number in layer}
        self._size = [0] * len(layers)
        self._calm = [1.0] * len(layers)
        self._still = [0.0] * len(layers)  # size · calm: the bytes that are expected to stay
        for at in range(len(layers)):
            self._measure(at)

    def _measure(self, at: int) -> None:
        self._size[at] = sum(self._sizes[number] for number in self._layers[at])
        self._calm[at] = _calm(self._layers[at], self._chances)
        self._still[at] = self._size[at] * self._calm[at]

    def run(self, check: Check) -> None:
        # The dearest first: they have the most to gain, and the small ones then settle around them.
        order = sorted(
            self._home, key=lambda number: (-self._sizes[number] * self._chances[number], number)
        )
        looks = 0
        for _ in range(_MOST_SWEEPS):
            gained = 0.0
            for number in order:
                if looks > _LOOKS:
                    return
                looks += len(self._layers)
                check()
                gained += self._move(number)
            if gained <= _LEAST_SWEEP * self._cost():
                return

    def _cost(self) -> float:
        return math.fsum(
            layer_cost(size, calm) for size, calm in zip(self._size, self._calm, strict=True)
        )

    def _move(self, number: int) -> float:
        home = self._home[number]
        size, chance = self._sizes[number], self._chances[number]
        stay = 1.0 - chance
        # What a layer costs more with the component in it, less `size`, which is the same in every
        # layer.
        calm_home = self._calm[home] / stay
        here = chance * ((self._size[home] - size) * calm_home) - size * stay * calm_home
        weight = size * stay
        prices = [
            chance * still - weight * calm
            for still, calm in zip(self._still, self._calm, strict=True)
        ]
        prices[home] = here
        best = min(prices)
        if here - best <= _LEAST_GAIN * size:
            return 0.0
        to = prices.index(best)
        self._layers[home].remove(number)
        self._layers[to].append(number)
        self._home[number] = to
        self._measure(home)
        self._measure(to)
        return here - best
