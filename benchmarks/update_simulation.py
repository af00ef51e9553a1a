"""Replays updates of an image and tells how many bytes a client moves, by the way that its
components are cut into layers.

    python benchmarks/update_simulation.py [--series N] [--seed N] [--prior BUILDS] [--worth RATIO]
        [--trees OLD NEW]

Two scenarios, made from a seed: `hidden rates`, 24 builds of 300 components in 40 layers, of which
the last eight updates count; and `Debian`, one update of 730 packages (about 3 GB) in 120 layers in
which 49 change. What is seen by nobody is how often each component changes: all intervals are said
to be a week. Prints bytes moved, as a multiple of the changed components' own.

With --trees, the update is the real one from the directory OLD to NEW, divided by `packages` into
120 layers, and what is made from a seed is the 16 updates before it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import time
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean, median
from typing import NamedTuple
from unittest.mock import patch

from build_oci.config.load import load_config
from build_oci.layer.digest import digest_files
from build_oci.layer.walk import read_tree
from build_oci.split import division, rates
from build_oci.split import plan as planning
from build_oci.split.partition import partition
from build_oci.split.plan import Plan, PlanResult, make_plan
from build_oci.split.rates import Component, History
from build_oci.work.crew import Crew

Layers = Sequence[Sequence[str]]


class Series(NamedTuple):
    """rates: how often an update changes each component; sizes: at first and after each update;
    updates: what each changes; counted: how many of the last count; layers: at most."""

    rates: dict[str, float]
    sizes: list[dict[str, int]]
    updates: list[set[str]]
    counted: int
    layers: int

    def components(self, number: int) -> list[Component]:
        """As they are after NUMBER updates."""
        return [Component(name, size) for name, size in self.sizes[number].items()]


def main() -> None:
    options = _options()
    rates.PRIOR_BUILDS = options.prior
    planning.WORTH_A_NEW_PLAN = options.worth
    if options.trees:
        old, new = map(components_of, options.trees)
        real_update(old, new, options.seed, options.series)
        return
    for title, make in (("hidden rates", hidden_rates), ("Debian", debian)):
        series = [make(options.seed + number) for number in range(options.series)]
        print(
            f"\n{title}: {options.series} series\n\n| layers | bytes moved | worst series"
            " |\n|---|--:|--:|"
        )
        for name, method in METHODS.items():
            many = [(method(one), bound(one)) for one in series]
            print(
                f"| {name} | {sum(m for m, _ in many) / sum(b for _, b in many):.2f} |"
                f" {max(m / b for m, b in many):.2f} |"
            )
    _speed()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--series", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prior", type=float, default=rates.PRIOR_BUILDS)
    parser.add_argument("--worth", type=float, default=planning.WORTH_A_NEW_PLAN)
    parser.add_argument("--trees", nargs=2, metavar=("OLD", "NEW"))
    return parser.parse_args()


def hidden_rates(seed: int) -> Series:
    draw = random.Random(seed)
    sizes = {f"component-{number:03}": int(draw.lognormvariate(14, 2)) for number in range(300)}
    chances = {name: min(max(draw.betavariate(0.4, 5.5), 0.002), 0.95) for name in sizes}
    return _series(draw, sizes, chances, [_update(draw, chances) for _ in range(24)], 8, 40)


def debian(seed: int) -> Series:
    """16 updates to learn from, then one in which 49 packages change."""
    draw = random.Random(seed)
    parts = [draw.lognormvariate(13, 2) for _ in range(730)]
    sizes = {
        f"package-{number:03}": int(part * 3e9 / sum(parts)) for number, part in enumerate(parts)
    }
    chances = {name: min(max(draw.betavariate(0.3, 4), 0.002), 0.95) for name in sizes}
    last: set[str] = set()
    while len(last) < 49:
        last |= _update(draw, chances)
    last = set(draw.sample(sorted(last), 49))
    return _series(
        draw, sizes, chances, [*(_update(draw, chances) for _ in range(16)), last], 1, 120
    )


def _update(draw: random.Random, chances: dict[str, float]) -> set[str]:
    return {name for name, chance in chances.items() if draw.random() < chance}


def _series(
    draw: random.Random,
    sizes: dict[str, int],
    chances: dict[str, float],
    updates: list[set[str]],
    counted: int,
    layers: int,
) -> Series:
    """A component that changes grows or shrinks by some tenth."""
    after = [sizes]
    for update in updates:
        after.append(
            {
                name: int(size * draw.lognormvariate(0, 0.1)) if name in update else size
                for name, size in after[-1].items()
            }
        )
    return Series(chances, after, updates, counted, layers)


def replay(series: Series, layers_after: Callable[[int], Layers]) -> int:
    """The bytes that the updates that count move, with the layers that LAYERS_AFTER says for each
    number of updates, in order.
    """
    moved = []
    before: set[frozenset[str]] = set()
    for number, sizes in enumerate(series.sizes):
        update = series.updates[number - 1] if number else set()
        layers = {frozenset(layer) for layer in layers_after(number)}
        moved.append(
            sum(
                sizes[name]
                for layer in layers
                if layer not in before or not layer.isdisjoint(update)
                for name in layer
            )
        )
        before = layers
    return sum(moved[-series.counted :])


def bound(series: Series) -> int:
    """The bytes of the changed components."""
    return replay(series, lambda number: [[name] for name in series.rates])


def one_layer(series: Series) -> int:
    return replay(series, lambda number: [list(series.rates)])


def by_size_and_hash(series: Series) -> int:
    """The rule of chunkah 0.6: components alone whose size is above the median by 1.5 times the
    median of all distances from it, in up to four fifths of the layers; the others in three tiers
    by interval, in bins by a hash of the name. With all intervals alike one tier holds them all."""

    def layers(number: int) -> Layers:
        sizes = series.sizes[number]
        middle = median(sizes.values())
        unusual = middle + 1.5 * median(abs(size - middle) for size in sizes.values())
        alone = sorted(
            (name for name in sizes if sizes[name] >= unusual), key=lambda name: -sizes[name]
        )[: (series.layers - 1) * 4 // 5]
        bins: list[list[str]] = [[] for _ in range(series.layers - len(alone))]
        for name in sizes.keys() - set(alone):
            bins[int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % len(bins)].append(
                name
            )
        return [*bins, *([name] for name in alone)]

    return replay(series, layers)


def fresh(series: Series) -> int:
    """No earlier plan is known."""
    return _replay_plans(series, lambda plan: None)


def fresh_with_counts(series: Series) -> int:
    """The counts of an earlier plan are known, its layers are not kept."""
    return _replay_plans(series, lambda plan: Plan((), plan.history))


def kept(series: Series) -> int:
    """The layers are kept; the counts are not, nor what changed."""
    return _replay_plans(
        series,
        lambda plan: Plan(plan.layers, {name: History() for name in plan.history}),
        learning=False,
    )


def kept_and_learning(series: Series) -> int:
    return _replay_plans(series, lambda plan: plan)


def _replay_plans(
    series: Series, remembered: Callable[[Plan], Plan | None], learning: bool = True
) -> int:
    known: Plan | None = None

    def layers(number: int) -> Layers:
        nonlocal known
        changed = series.updates[number - 1] if number and learning else set()
        plan = make_plan(series.components(number), series.layers, known, changed=changed).plan
        known = remembered(plan)
        return [layer.components for layer in plan.layers]

    return replay(series, layers)


def with_true_rates(series: Series) -> int:
    """Layers that never change, made for the rates that nobody knows."""
    names = list(series.rates)
    cut = partition(
        [series.sizes[0][name] for name in names],
        [series.rates[name] for name in names],
        series.layers,
    )
    layers = [[names[number] for number in layer] for layer in cut]
    return replay(series, lambda number: layers)


def components_of(tree: str) -> dict[str, Component]:
    """The components of the directory TREE by `packages`, with sizes and digests."""
    found: dict[str, Component] = {}

    def planned(components: Iterable[Component], *_: object, **__: object) -> PlanResult:
        found.update((component.name, component) for component in components)
        return make_plan(found.values(), 1)

    text = json.dumps(
        {
            "images": [
                {
                    "architecture": "amd64",
                    "os": "linux",
                    "layer": tree,
                    "split": {"components": ["packages"], "unclaimed": "ignore"},
                }
            ]
        }
    )
    split = load_config(text).images[0].split
    assert split is not None
    with Crew(2, 200 << 20) as crew, patch("build_oci.split.division.make_plan", planned):
        walked = read_tree(
            tree, crew, skip_xattrs=False, trust_checksum_xattrs=False, warn=lambda text: None
        )
        digest_files(walked, tree, crew, lambda done, total: None)
        owned = division.owned_tree(walked, tree, split)
        division.divide(walked, owned, most=1, digested=True)
    return found


def real_update(
    old: dict[str, Component], new: dict[str, Component], seed: int, series: int
) -> None:
    """What the update from OLD to NEW moves, first with a fresh plan, then after updates in which
    each component changes as often as one of which it is known whether the real update changes it:
    draws from a Beta distribution that has seen that.
    """
    changed = {name for name in new if name not in old or old[name].digest != new[name].digest}
    own = sum(new[name].size for name in changed)

    def moved(before: Plan) -> float:
        known = {layer.components for layer in before.layers}
        plan = make_plan(_bare(new), 120, before, changed=changed).plan
        return sum(
            new[name].size
            for layer in plan.layers
            if layer.components not in known or not changed.isdisjoint(layer.components)
            for name in layer.components
        )

    print(f"{len(new)} components, {len(changed)} changed: {own / 1e6:,.1f} MB")
    start = make_plan(_bare(old), 120).plan
    print(f"without earlier updates {moved(start) / own:.3f}")
    found = []
    for number in range(series):
        draw = random.Random(seed + number)
        chances = {
            name: min(
                max(draw.betavariate(0.3 + (name in changed), 4 + (name not in changed)), 0.002),
                0.95,
            )
            for name in sorted(old)
        }
        plan = start
        for _ in range(16):
            plan = make_plan(_bare(old), 120, plan, changed=_update(draw, chances)).plan
        found.append(moved(plan) / own)
    print(f"after 16 each {fmean(found):.3f}, {min(found):.3f} to {max(found):.3f}")


def _bare(components: dict[str, Component]) -> list[Component]:
    return [component._replace(digest=None) for component in components.values()]


METHODS: dict[str, Callable[[Series], int]] = {
    "one layer": one_layer,
    "the rule of chunkah 0.6": by_size_and_hash,
    "ours, a fresh plan each time": fresh,
    "ours, a fresh plan each time, with counts": fresh_with_counts,
    "ours, kept": kept,
    "ours, kept and learning": kept_and_learning,
    "ours, made once from the true rates": with_true_rates,
    "the changed components alone": bound,
}


def _speed() -> None:
    draw = random.Random(1)
    many = [
        Component(f"{number:04}", int(draw.lognormvariate(13, 2)), draw.choice([1, 7, 30, 91, 365]))
        for number in range(2000)
    ]
    start = time.process_time()
    plan = make_plan(many, 500).plan
    middle = time.process_time()
    make_plan(many, 500, plan, changed={"0001", "0101"})
    print(
        f"\n2,000 components into 500 layers: fresh {middle - start:.2f} s, kept"
        f" {time.process_time() - middle:.2f} s of CPU time"
    )


if __name__ == "__main__":
    main()
