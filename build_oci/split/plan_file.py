"""A plan as a file that is committed, and as annotations of the layers that were made from it.

Both are foreign when read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn

from build_oci.errors import PlanError
from build_oci.split.plan import Plan, PlanLayer
from build_oci.split.rates import DIGEST_KEPT, History

SCHEMA = "io.build-oci.plan/1"
ANNOTATION = "io.build-oci.components"
# As for every JSON document; some 35,000 components.
MOST_BYTES = 4 << 20
# Registries refuse a manifest above 4 MiB. Half of it is for what else a manifest holds, parents'
# annotations included.
MOST_ANNOTATED = 2 << 20
_MOST_LAYERS = 499
_LONGEST_NAME = 4096
_MOST_BUILDS = 10**9

# A component's fields in a plan file, and what a field that is left out means.
_FIELDS: dict[str, Any] = {"builds": 0, "changes": 0, "digest": "", "interval": None, "gone": 0}


def dump_plan(plan: Plan, where: str = "") -> bytes:
    """PLAN as a JSON document: sorted, one line a component, so that a commit shows what changed.

    Raises PlanError, with WHERE, if it is too large to be read again."""
    layers = [
        _lines((name, plan.history[name]) for name in layer.components) for layer in plan.layers
    ]
    gone = _lines((name, history) for name, history in sorted(plan.history.items()) if history.gone)
    text = (
        '{\n  "gone": '
        + _braced(gone, "    ", "  ")
        + ',\n  "layers": ['
        + ",".join("\n    " + _braced(layer, "      ", "    ") for layer in layers)
        + ("\n  " if layers else "")
        + f'],\n  "schema": {json.dumps(SCHEMA)}\n}}\n'
    )
    if len(text) > MOST_BYTES:
        raise PlanError(
            f"the plan has {len(text)} bytes, more than the {MOST_BYTES} that are read again",
            where=where,
            hint="let fewer components own the files, such as source packages instead of files",
        )
    return text.encode("ascii")


def _lines(components: Iterable[tuple[str, History]]) -> list[str]:
    return [
        f"{json.dumps(name)}: {json.dumps(_fields(history), sort_keys=True)}"
        for name, history in components
    ]


def _braced(lines: Sequence[str], indent: str, outer: str) -> str:
    return (
        "{"
        + ",".join(f"\n{indent}{line}" for line in lines)
        + (f"\n{outer}" if lines else "")
        + "}"
    )


def _fields(history: History) -> dict[str, Any]:
    fields = {
        "builds": history.builds,
        "changes": history.changes,
        "digest": history.digest,
        "gone": history.gone,
        "interval": _number(history.interval_days),
    }
    return {name: value for name, value in fields.items() if value != _FIELDS[name]}


def _number(days: float) -> int | float:
    return int(days) if days.is_integer() else days


def load_plan(data: bytes, where: str) -> Plan:
    """The plan in the file WHERE that holds DATA.

    Raises PlanError for anything that `dump_plan` would not have written.
    """
    refuse = _Refusal(
        where, "give the plan file that build-oci wrote, or remove it and have a new one made"
    )
    document = _parse(data, refuse)
    _expect(document, {"gone", "layers", "schema"}, {"layers", "schema"}, "it", refuse)
    if document["schema"] != SCHEMA:
        refuse(f"its schema is {_shown(document['schema'])}, not “{SCHEMA}”")
    written = document["layers"]
    if not isinstance(written, list) or len(written) > _MOST_LAYERS:
        refuse(f"its layers are no list of at most {_MOST_LAYERS}")
    histories: dict[str, History] = {}
    layers = []
    for number, members in enumerate(written):
        if not isinstance(members, dict) or not members:
            refuse(f"its layer {number} is no object of components")
        for name, fields in members.items():
            _remember(histories, name, _history(fields, name, present=True, refuse=refuse), refuse)
        layers.append(PlanLayer(tuple(sorted(members))))
    gone = document.get("gone", {})
    if not isinstance(gone, dict):
        refuse("“gone” is no object of components")
    for name, fields in gone.items():
        _remember(histories, name, _history(fields, name, present=False, refuse=refuse), refuse)
    return Plan(tuple(layers), dict(sorted(histories.items())))


class _Refusal:
    """Raises the one error that is wrong with a plan."""

    def __init__(self, where: str, hint: str) -> None:
        self._where = where
        self._hint = hint

    def __call__(self, what: str) -> NoReturn:
        raise PlanError(what, where=self._where, hint=self._hint)


def _parse(data: bytes, refuse: Callable[[str], NoReturn]) -> Any:
    if len(data) > MOST_BYTES:
        refuse(f"has {len(data)} bytes, more than the {MOST_BYTES} of a plan")

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        whole = dict(found)
        if len(whole) < len(found):
            seen: set[str] = set()
            for key, _ in found:
                if key in seen:
                    refuse(f"has the key {_shown(key)} twice")
                seen.add(key)
        return whole

    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=pairs, parse_constant=_no_number)
    except RecursionError:
        refuse("is nested too deep for a plan")
    except ValueError as error:  # UnicodeDecodeError, JSONDecodeError, a number of too many digits
        refuse(f"is no JSON document: {error}")


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _expect(
    value: Any, allowed: set[str], needed: set[str], called: str, refuse: Callable[[str], NoReturn]
) -> None:
    if not isinstance(value, dict):
        refuse(f"{called} is no object")
    if unknown := sorted(value.keys() - allowed):
        refuse(f"{called} has the unknown key {_shown(unknown[0])}")
    if missing := sorted(needed - value.keys()):
        refuse(f"{called} has no “{missing[0]}”")


def _remember(
    histories: dict[str, History], name: str, history: History, refuse: Callable[[str], NoReturn]
) -> None:
    if name in histories:
        refuse(f"the component {_shown(name)} is there twice")
    histories[name] = history


def _history(
    fields: Any, name: str, *, present: bool, refuse: Callable[[str], NoReturn]
) -> History:
    called = f"the component {_shown(name)}"
    if not 0 < len(name) <= _LONGEST_NAME:
        refuse(f"{called} has a name of {len(name)} characters")
    _expect(
        fields,
        _FIELDS.keys() - ({"gone"} if present else set()),
        {"interval"} | (set() if present else {"gone"}),
        called,
        refuse,
    )
    values = _FIELDS | fields
    for field in ("builds", "changes", "gone"):
        value = values[field]
        if (
            type(value) is not int
            or not 0 <= value <= _MOST_BUILDS
            or (field == "gone" and not present and not value)
        ):
            refuse(f"{called} has {_shown(value)} as its “{field}”")
    if values["changes"] > values["builds"]:
        refuse(f"{called} has changed {values['changes']} times in {values['builds']} builds")
    days = values["interval"]
    if type(days) not in (int, float) or not 0 < days < math.inf or days > 10**9:
        refuse(f"{called} has {_shown(days)} as its “interval”")
    digest = values["digest"]
    if not isinstance(digest, str) or len(digest) > DIGEST_KEPT:
        refuse(f"{called} has {_shown(digest)} as its “digest”")
    return History(values["builds"], values["changes"], float(days), digest, values["gone"])


def _shown(value: Any) -> str:
    """VALUE in a message: not too much of it."""
    text = (
        value
        if isinstance(value, str)
        else type(value).__name__
        if isinstance(value, (dict, list))
        else repr(value)
    )
    return f"“{text[:80]}{'…' if len(text) > 80 else ''}”"


# An annotation is compact, because it stands in a manifest. {"layer": 3, "of": 40, "components":
# [[NAME, DAYS, BUILDS, CHANGES, DIGEST], …]}, and in layer 0 those that are gone: "gone": [[NAME,
# DAYS, BUILDS, CHANGES, DIGEST, GONE], …]. ASCII alone.


def layer_annotation(plan: Plan, number: int) -> str:
    """What the descriptor of the layer NUMBER of PLAN remembers under ANNOTATION."""
    annotation: dict[str, Any] = {
        "layer": number,
        "of": len(plan.layers),
        "components": [_row(name, plan.history[name]) for name in plan.layers[number].components],
    }
    gone = [
        [*_row(name, history), history.gone]
        for name, history in sorted(plan.history.items())
        if history.gone
    ]
    if number == 0 and gone:
        annotation["gone"] = gone
    return json.dumps(annotation, separators=(",", ":"))


def _row(name: str, history: History) -> list[Any]:
    return [name, _number(history.interval_days), history.builds, history.changes, history.digest]


def layer_annotations(plan: Plan) -> list[str] | None:
    """The annotation of every layer; None if a manifest cannot hold them all. Half of them would be
    worse than none: the next build would take the components of the other half for new ones. The
    caller then says so, and that a plan file has room."""
    annotations = [layer_annotation(plan, number) for number in range(len(plan.layers))]
    return (
        annotations
        if sum(len(json.dumps(text)) for text in annotations) <= MOST_ANNOTATED
        else None
    )


def plan_from_annotations(annotations: Sequence[str | None], where: str) -> Plan | None:
    """The plan that the layers of an image remember: ANNOTATIONS of all its layers, bottom first,
    None where a layer has none.

    Layers without one are passed over: a parent's, the one of directories, what others have added.
    A parent that was split itself has a plan of its own: the topmost counts. None if there is no
    plan. Raises PlanError, with WHERE, if it is broken."""
    refuse = _Refusal(where, "give another previous image, or build once without it")
    histories: dict[str, History] = {}
    layers: list[PlanLayer] = []
    for annotation in _topmost(annotations, refuse):
        layers.append(_layer(annotation["components"], histories, refuse))
        for row in annotation.get("gone", []):
            _remember_row(row, histories, refuse, present=False)
    return Plan(tuple(reversed(layers)), dict(sorted(histories.items()))) if layers else None


def _topmost(
    annotations: Sequence[str | None], refuse: Callable[[str], NoReturn]
) -> Iterator[dict[str, Any]]:
    """The annotations of the topmost plan, from its last layer to its first."""
    expected: int | None = None
    total = 0
    for text in reversed(annotations):
        if text is None or expected == 0:
            continue
        total += len(text)
        if total > MOST_BYTES:
            refuse(
                f"the annotations “{ANNOTATION}” of its layers have more than {MOST_BYTES}"
                " characters"
            )
        annotation = _parse(text.encode("utf-8", "surrogatepass"), refuse)
        called = f"the annotation “{ANNOTATION}” of a layer"
        _expect(
            annotation,
            {"layer", "of", "components", "gone"},
            {"layer", "of", "components"},
            called,
            refuse,
        )
        if expected is None:
            expected = annotation["of"]
            if type(expected) is not int or not 0 < expected <= _MOST_LAYERS:
                refuse(f"{called} has {_shown(expected)} as the number of its plan's layers")
            of = expected
        if annotation["of"] != of or annotation["layer"] != expected - 1:
            refuse(
                f"{called} is the one of layer {_shown(annotation['layer'])}, where that of"
                f" {expected - 1} was to follow"
            )
        if not isinstance(annotation.get("gone", []), list):
            refuse(f"{called} has a “gone” that is no list")
        expected -= 1
        yield annotation
    if expected:
        refuse(f"{expected} of the layers of its plan have no annotation “{ANNOTATION}”")


def _layer(
    rows: Any, histories: dict[str, History], refuse: Callable[[str], NoReturn]
) -> PlanLayer:
    if not isinstance(rows, list) or not rows:
        refuse(f"the annotation “{ANNOTATION}” of a layer has no list of components")
    return PlanLayer(
        tuple(sorted([_remember_row(row, histories, refuse, present=True) for row in rows]))
    )


def _remember_row(
    row: Any, histories: dict[str, History], refuse: Callable[[str], NoReturn], *, present: bool
) -> str:
    names = ["interval", "builds", "changes", "digest"] + ([] if present else ["gone"])
    if not isinstance(row, list) or len(row) != 1 + len(names) or not isinstance(row[0], str):
        refuse(
            f"the annotation “{ANNOTATION}” of a layer has a component that is no list of"
            f" {1 + len(names)} fields"
        )
    fields = dict(zip(names, row[1:], strict=True))
    _remember(histories, row[0], _history(fields, row[0], present=present, refuse=refuse), refuse)
    return row[0]


def plan_schema() -> dict[str, Any]:
    """The plan file as a JSON Schema (draft 2020-12). JSON-able, and the same at every call."""
    count = {"type": "integer", "minimum": 0, "maximum": _MOST_BUILDS}
    present: dict[str, Any] = {
        "builds": (
            count
            | {
                "default": 0,
                "description": "Updates that were seen with the component before and after.",
            }
        ),
        "changes": (
            count
            | {
                "default": 0,
                "description": "How many of those changed it; not more than builds.",
            }
        ),
        "digest": {
            "type": "string",
            "maxLength": DIGEST_KEPT,
            "default": "",
            "description": "The beginning of its content's digest.",
        },
        "interval": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 10**9,
            "description": "Days from one change to the next, as its source says.",
        },
    }
    gone = present | {
        "gone": count | {"minimum": 1, "description": "Updates since it was last there."}
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "build-oci plan",
        "description": "Which components share a layer, and how often each changed.",
        "type": "object",
        "additionalProperties": False,
        "required": ["layers", "schema"],
        "properties": {
            "schema": {"const": SCHEMA},
            "layers": {
                "description": "Bottom first; a component is in one of them.",
                "type": "array",
                "maxItems": _MOST_LAYERS,
                "items": _components(present, ["interval"]) | {"minProperties": 1},
            },
            "gone": (
                _components(gone, ["gone", "interval"])
                | {
                    "description": "Components that were there not long ago.",
                    "default": {},
                }
            ),
        },
    }


def _components(fields: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "propertyNames": {"minLength": 1, "maxLength": _LONGEST_NAME},
        "additionalProperties": {
            "type": "object",
            "additionalProperties": False,
            "required": required,
            "properties": fields,
        },
    }
