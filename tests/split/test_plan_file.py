"""contract: split-plan-file. A plan in a file and in annotations: the same when read again, and one
clear error where it is broken.
"""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from build_oci.errors import PlanError
from build_oci.split import plan_file
from build_oci.split.plan import Plan, PlanLayer, make_plan
from build_oci.split.plan_file import (
    MOST_BYTES,
    dump_plan,
    layer_annotation,
    layer_annotations,
    load_plan,
    plan_from_annotations,
    plan_schema,
)
from build_oci.split.rates import Component, History

NAMES = st.text(min_size=1, max_size=6)
DAYS = st.floats(1e-9, 1e9) | st.integers(1, 1000).map(float)
HISTORIES = st.builds(
    lambda more, changes, days, digest: History(changes + more, changes, days, digest),
    st.integers(0, 99),
    st.integers(0, 99),
    DAYS,
    st.text("0123456789abcdef", max_size=16),
)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    names = draw(st.lists(NAMES, unique=True, max_size=12))
    history = {name: draw(HISTORIES) for name in names}
    layers: dict[int, list[str]] = {}
    for name in names:
        home = draw(st.integers(-1, 3))
        if home < 0:
            history[name] = history[name]._replace(gone=draw(st.integers(1, 26)))
        else:
            layers.setdefault(home, []).append(name)
    return Plan(
        tuple(PlanLayer(tuple(sorted(layers[home]))) for home in sorted(layers)),
        dict(sorted(history.items())),
    )


VALIDATOR = jsonschema.Draft202012Validator(plan_schema())


@pytest.mark.once
@given(plans())
def test_file_again(plan: Plan) -> None:
    data = dump_plan(plan)
    assert load_plan(data, "plan.json") == plan
    assert dump_plan(load_plan(data, "plan.json")) == data
    VALIDATOR.validate(json.loads(data))


@pytest.mark.once
@given(plans(), st.lists(st.integers(0, 4)), plans())
def test_annotations_again(plan: Plan, gaps: list[int], parent: Plan) -> None:
    """Between layers without one, and on top of a parent that has a plan of its own."""
    texts: list[str | None] = list(layer_annotations(plan) or [])
    for gap in gaps:
        texts.insert(min(gap, len(texts)), None)
    if plan.layers:
        assert plan_from_annotations([*(layer_annotations(parent) or []), *texts], "x") == plan
    else:
        assert plan_from_annotations(texts, "x") is None


def test_the_form() -> None:
    plan = Plan(
        (PlanLayer(("b", "ü")), PlanLayer(("c",))),
        {
            "b": History(3, 1, 7.0, "ab"),
            "c": History(),
            "g": History(gone=2),
            "ü": History(0, 0, 0.5),
        },
    )
    assert (
        dump_plan(plan).decode()
        == """{
  "gone": {
    "g": {"gone": 2, "interval": 7}
  },
  "layers": [
    {
      "b": {"builds": 3, "changes": 1, "digest": "ab", "interval": 7},
      "\\u00fc": {"interval": 0.5}
    },
    {
      "c": {"interval": 7}
    }
  ],
  "schema": "io.build-oci.plan/1"
}
"""
    )
    assert layer_annotation(plan, 1) == '{"layer":1,"of":2,"components":[["c",7,0,0,""]]}'
    assert layer_annotation(plan, 0).endswith('"gone":[["g",7,0,0,"",2]]}')


def document(**fields: Any) -> bytes:
    return json.dumps(
        {"schema": plan_file.SCHEMA, "layers": [{"a": {"interval": 7}}]} | fields
    ).encode()


def component(**fields: Any) -> bytes:
    return document(layers=[{"a": {"interval": 7} | fields}])


BROKEN = {
    b"": "is no JSON document",
    b"\xff": "is no JSON document",
    b"[" * 100_000: "nested too deep",
    b"[]": "it is no object",
    b" " * (MOST_BYTES + 1): "more than the",
    document(schema="io.build-oci.plan/2"): "schema",
    document(more=1): "unknown key “more”",
    document(layers={}): "no list",
    document(layers=[{}]): "layer 0",
    document(layers=[["a"]]): "layer 0",
    document(layers=[{"a": {"interval": 7}}] * 2): "“a” is there twice",
    document(layers=[{"a": {"interval": 7}}] * 500): "at most 499",
    document(layers=[{"": {"interval": 7}}]): "name",
    document(layers=[{"x" * 5000: {"interval": 7}}]): "5000 characters",
    document(layers=[{"a": {}}]): "no “interval”",
    document(gone=[]): "“gone”",
    document(gone={"a": {"interval": 7, "gone": 1}}): "twice",
    document(gone={"b": {"interval": 7}}): "no “gone”",
    document(gone={"b": {"interval": 7, "gone": 0}}): "“gone”",
    component(interval=0): "interval",
    component(interval="7"): "interval",
    component(interval=True): "interval",
    component(builds=-1): "builds",
    component(builds=1.5): "builds",
    component(builds=10**10): "builds",
    component(changes=1): "1 times in 0 builds",
    component(digest=5): "digest",
    component(digest="0" * 17): "digest",
    component(gone=1): "unknown key “gone”",
    component(interval=0).replace(b"0", b"1e999"): "interval",
    component(interval=0).replace(b"0", b"NaN"): "no number",
    component(builds=0).replace(b"0", b"9" * 5000): "no JSON document",
    b'{"schema": 1, "schema": 1}': "the key “schema” twice",
    document(layers=[{"a\nb\x1b": {}}]): r"“a\x0ab\x1b” has no",
}


@pytest.mark.parametrize("data", BROKEN, ids=range(len(BROKEN)))
def test_broken(data: bytes) -> None:
    with pytest.raises(PlanError) as caught:
        load_plan(data, "dir/plan.json")
    error = caught.value
    assert BROKEN[data] in error.what
    assert error.where == "dir/plan.json"
    assert error.hint
    assert len(error.what) < 300
    assert "\n" not in error.what
    # The schema refuses it as well, but for what a schema cannot say.
    if parses(data) and not any(
        said in error.what for said in ("twice", "times", "“nan”", "no JSON")
    ):
        assert not VALIDATOR.is_valid(json.loads(data))


def parses(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


@pytest.mark.once
@given(
    st.binary(max_size=40)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda x: (
            st.lists(x) | st.dictionaries(st.sampled_from(["layers", "schema", "gone", "a"]), x)
        ),
    ).map(lambda x: json.dumps(x).encode())
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(PlanError):
        load_plan(data, "x")


ROW = ["a", 7, 0, 0, ""]


@pytest.mark.parametrize(
    ("annotations", "what"),
    [
        (["x"], "no JSON document"),
        (["[]"], "no object"),
        ([{"layer": 0, "of": 1}], "no “components”"),
        ([{"layer": 0, "of": 1, "components": []}], "no list of components"),
        ([{"layer": 0, "of": 1, "components": [["a", 7, 0, 0]]}], "5 fields"),
        ([{"layer": 0, "of": 1, "components": [[1, 7, 0, 0, ""]]}], "5 fields"),
        ([{"layer": 0, "of": 1, "components": [["a", -7, 0, 0, ""]]}], "interval"),
        ([{"layer": 0, "of": 1, "components": [ROW], "gone": [ROW]}], "6 fields"),
        ([{"layer": 0, "of": 1, "components": [ROW], "gone": 1}], "no list"),
        ([{"layer": 0, "of": 1, "components": [ROW, ROW]}], "twice"),
        ([{"layer": 0, "of": 2, "components": [ROW]}], "where that of 1"),
        ([{"layer": 1, "of": 2, "components": [ROW]}], "1 of the layers"),
        ([{"layer": 0, "of": 0, "components": [ROW]}], "“0” as the number"),
        ([{"layer": 0, "of": 10**6, "components": [ROW]}], "layers"),
        (["x" * MOST_BYTES, "x"], "characters"),
    ],
)
def test_broken_annotations(annotations: list[Any], what: str) -> None:
    texts = [text if isinstance(text, str) else json.dumps(text) for text in annotations]
    if what == "characters":
        texts = ["[" + " " * MOST_BYTES + "]"]
    with pytest.raises(PlanError) as caught:
        plan_from_annotations(texts, "blobs/sha256/1")
    assert what in caught.value.what
    assert caught.value.where == "blobs/sha256/1"
    assert caught.value.hint


def test_fits_a_manifest() -> None:
    components = [
        Component(f"source-package-of-some-length-{number}", 1000 + number, 7, f"{number:064x}")
        for number in range(2000)
    ]
    plan = make_plan(components, 500).plan
    assert sum(len(json.dumps(text)) for text in layer_annotations(plan) or []) < 400_000


def test_too_many_for_a_manifest_and_for_a_file() -> None:
    names = tuple(f"{number:05}{'x' * 200}" for number in range(20_000))
    plan = Plan((PlanLayer(names),), {name: History() for name in names})
    assert layer_annotations(plan) is None
    with pytest.raises(PlanError, match="more than the"):
        dump_plan(plan, "plan.json")
