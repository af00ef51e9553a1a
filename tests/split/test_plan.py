"""contract: split-plan. Which components share a layer: cheap, sticky, learning, and the same for
every order of the input.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from build_oci.split.partition import partition
from build_oci.split.plan import Plan, PlanLayer, make_plan
from build_oci.split.rates import (
    REMEMBERED_BUILDS,
    UPDATE_DAYS,
    Component,
    History,
    chance,
    update_days,
)

COMPONENTS = st.lists(
    st.builds(
        Component,
        name=st.text("abcdé\n\udcff", min_size=1, max_size=4),
        size=st.integers(0, 1 << 40),
        interval_days=st.sampled_from([0.001, 1, 7, 14, 30.5, 91, 365, 1e9]),
        digest=st.sampled_from([None, "0" * 64, "1" * 64]),
    ),
    max_size=25,
    unique_by=lambda component: component.name,
)
LAYERS = st.integers(1, 12)


def cost(layers: Sequence[Sequence[int]], sizes: Sequence[int], chances: Sequence[float]) -> float:
    """The expected bytes of an update (contract: split-plan)."""
    return sum(
        sum(sizes[i] for i in layer) * (1 - math.prod(1 - chances[i] for i in layer))
        for layer in layers
    )


def all_partitions(count: int, most: int) -> Iterator[list[list[int]]]:
    for homes in itertools.product(range(most), repeat=count):
        yield [[i for i in range(count) if homes[i] == home] for home in range(most)]


def test_near_the_best_of_all() -> None:
    draw = random.Random(1)
    ratios = []
    for _ in range(25):
        count, most = draw.choice([(6, 3), (7, 3), (8, 2)])
        sizes = [int(draw.lognormvariate(10, 2)) for _ in range(count)]
        chances = [draw.choice([0.01, 0.05, 0.125, 0.4, 0.9]) for _ in range(count)]
        best = min(cost(layers, sizes, chances) for layers in all_partitions(count, most))
        ratios.append(cost(partition(sizes, chances, most), sizes, chances) / best)
    assert max(ratios) < 1.06
    assert sum(ratios) / len(ratios) < 1.01


def names(plan: Plan) -> list[str]:
    return [name for layer in plan.layers for name in layer.components]


@given(COMPONENTS, LAYERS, st.randoms(use_true_random=False))
def test_every_component_in_one_layer_whatever_the_order(
    components: list[Component], most: int, shuffler: random.Random
) -> None:
    plan = make_plan(components, most).plan
    assert sorted(names(plan)) == sorted(component.name for component in components)
    assert len(plan.layers) <= most
    assert all(layer.components for layer in plan.layers)
    shuffled = list(components)
    shuffler.shuffle(shuffled)
    assert make_plan(shuffled, most) == make_plan(components, most)


@given(COMPONENTS, COMPONENTS, LAYERS, LAYERS)
def test_sticky(old: list[Component], new: list[Component], most_old: int, most_new: int) -> None:
    """Unless it is made anew, components whose layers do not change stay together, in the order of
    the layers.
    """
    before = make_plan(old, most_old).plan
    result = make_plan(new, most_new, before)
    plan = result.plan
    assert sorted(names(plan)) == sorted(component.name for component in new)
    assert len(plan.layers) <= most_new
    assert make_plan(new[::-1], most_new, before) == result
    if not before.layers or not new:
        return
    assert result.expected_cost <= 1.2 * result.fresh_cost * (1 + 1e-12)
    if result.replanned:
        assert plan.layers == make_plan(new, most_new, Plan((), before.history)).plan.layers


@given(COMPONENTS, LAYERS, st.sets(st.integers(0, 24)))
def test_a_layer_without_a_change_stays(
    components: list[Component], most: int, which: set[int]
) -> None:
    """Whatever changes: unless the plan is made anew, only layers that hold a changed component
    differ.
    """
    before = make_plan(components, most).plan
    changed = {component.name for number, component in enumerate(components) if number in which}
    result = make_plan(components, most, before, changed=changed)
    if not result.replanned:
        assert len(result.plan.layers) <= max(len(before.layers), 1)
        unchanged = {layer for layer in before.layers if changed.isdisjoint(layer.components)}
        assert unchanged <= set(result.plan.layers)


@given(COMPONENTS, LAYERS, st.integers(0, 24), st.integers(0, 1 << 42))
def test_one_component_that_grows_moves_only_itself(
    components: list[Component], most: int, which: int, size: int
) -> None:
    before = make_plan(components, most)
    if which < len(components):
        components[which] = components[which]._replace(size=size)
        after = make_plan(components, most, before.plan, changed=[components[which].name])
        assert after.replanned or after.plan.layers == before.plan.layers


@given(COMPONENTS, LAYERS)
def test_the_same_tree_again_gives_the_same_plan(components: list[Component], most: int) -> None:
    first = make_plan(components, most).plan
    again = make_plan(components, most, first)
    assert again.plan == first
    assert not again.replanned


def equal(names: str, size: int = 1000) -> list[Component]:
    return [Component(name, size) for name in names]


def test_new_ones_alone_while_there_is_room_then_where_it_costs_least() -> None:
    previous = make_plan(equal("abcd"), 3).plan
    wider = make_plan([*equal("abcd"), Component("z", 10)], 4, previous).plan
    assert wider.layers[:3] == previous.layers
    assert wider.layers[3] == PlanLayer(("z",))
    big = [Component("a", 1 << 30, 365), Component("b", 100, 1), Component("c", 1 << 20, 30)]
    full = make_plan(big, 3).plan
    packed = make_plan([*big, Component("often", 50, 1)], 3, full).plan
    assert PlanLayer(("b", "often")) in packed.layers


def test_one_that_is_gone_leaves_its_place() -> None:
    previous = make_plan(equal("abcdefgh"), 4).plan
    lost = previous.layers[1].components[0]
    after = make_plan([c for c in equal("abcdefgh") if c.name != lost], 4, previous).plan
    expected = [
        tuple(name for name in layer.components if name != lost) for layer in previous.layers
    ]
    assert [layer.components for layer in after.layers] == [layer for layer in expected if layer]
    assert after.history[lost].gone == 1


def test_the_gone_are_remembered_for_a_while() -> None:
    plan = make_plan([*equal("ab"), Component("x", 5)], 3).plan
    for number in range(REMEMBERED_BUILDS):
        plan = make_plan(equal("ab"), 3, plan, changed=["a"]).plan
        assert plan.history["x"].gone == number + 1
    plan = make_plan(equal("ab"), 3, plan, changed=["a"]).plan
    assert "x" not in plan.history


def test_made_anew_above_a_fifth_and_said() -> None:
    components = [Component(f"{number:02}", 1 << 20) for number in range(20)]
    narrow = make_plan(components, 1).plan
    result = make_plan(components, 20, narrow)
    assert result.replanned
    assert result.reason.startswith("made anew: ")
    assert result.plan.layers == make_plan(components, 20).plan.layers
    assert result.expected_cost == result.fresh_cost
    kept = make_plan(components, 20, result.plan)
    assert (kept.replanned, kept.reason[:6]) == (False, "kept: ")


def test_fewer_layers_than_before() -> None:
    components = [Component(f"{number:02}", 1000 + number) for number in range(20)]
    previous = make_plan(components, 10).plan
    after = make_plan(components, 9, previous)
    assert len(after.plan.layers) == 9
    assert len(set(previous.layers) - set(after.plan.layers)) == 2


def test_learns_from_digests() -> None:
    first = make_plan(
        [Component("a", 1, 7, "1" * 64), Component("b", 1, 7, "2" * 64), Component("c", 1)], 3
    ).plan
    after = make_plan(
        [Component("a", 1, 7, "3" * 64), Component("b", 1, 7, "2" * 64), Component("c", 1)],
        3,
        first,
    ).plan
    assert {name: history[:2] for name, history in after.history.items()} == {
        "a": (1, 1),
        "b": (1, 0),
        "c": (0, 0),
    }
    assert chance(after.history["a"]) > chance(after.history["c"]) > chance(after.history["b"])


def test_chances() -> None:
    assert chance(History(interval_days=1), 1.0) == 0.5
    assert chance(History(1000, 500, 365)) == pytest.approx(0.5, rel=0.01)
    assert 0 < chance(History(10**9, 0, 1e9)) < chance(History(10**9, 10**9, 1e-9)) < 1


def test_how_often_an_update_comes() -> None:
    """Where two in five of many yearly components change in an update, a year has few of them: and
    one that was not seen to change yet is not taken for one that never does."""
    fresh = [History(0, 0, 365.0)] * 100
    assert update_days(fresh) == pytest.approx(UPDATE_DAYS, abs=1e-3)
    seen = [History(20, 20 if number < 40 else 0, 365.0) for number in range(100)]
    days = update_days(seen)
    assert days / (days + 365) == pytest.approx(0.4, rel=0.06)
    assert chance(seen[99], days) > 10 * chance(seen[99])
    often = update_days([History(1000, 1000, 7.0)])
    assert often == pytest.approx(1024)
    assert update_days([]) < 1024


@pytest.mark.parametrize("moved", ["larger", "smaller"])
def test_a_new_component_spares_the_layers_that_stay(moved: str) -> None:
    """It goes to a layer that is moved in any case, not to one that would be moved for it."""
    before = [Component("larger", 2600, 365, "1"), Component("smaller", 1500, 365, "1")]
    first = make_plan(before, 2).plan
    now = [
        component._replace(digest="2" if component.name == moved else "1") for component in before
    ]
    after = make_plan([*now, Component("new", 1, 365, "1")], 2, first).plan
    assert tuple(sorted((moved, "new"))) in [layer.components for layer in after.layers]


def test_layers_that_change_least_are_lowest() -> None:
    plan = make_plan(
        [Component("daily", 9, 1), Component("yearly", 9, 365), Component("weekly", 9, 7)], 3
    ).plan
    assert [layer.components for layer in plan.layers] == [("yearly",), ("weekly",), ("daily",)]


@pytest.mark.parametrize(
    "components",
    [
        equal("aa"),
        [Component("a", -1)],
        [Component("a", 1, 0)],
        [Component("a", 1, math.inf)],
        [Component("a", 1, math.nan)],
    ],
)
def test_nonsense_is_refused(components: list[Component]) -> None:
    with pytest.raises(ValueError, match="'a'"):
        make_plan(components, 3)
    with pytest.raises(ValueError, match="0 is no number"):
        make_plan([], 0)


def test_can_be_stopped() -> None:
    class Stop(Exception):
        pass

    def stop() -> None:
        raise Stop

    with pytest.raises(Stop):
        make_plan(equal("abcd"), 2, check=stop)
