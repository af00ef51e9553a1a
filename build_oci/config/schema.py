"""The configuration as a JSON Schema (draft 2020-12), for editors: made from the table of keys that
validation reads.
"""

from __future__ import annotations

from typing import Any

from build_oci.config.keys import (
    ARCHITECTURES,
    CODEC_PAIRS,
    PLAIN_SOURCES,
    SOURCE_KEYS,
    SYSTEMS,
    TOP_KEYS,
    Key,
    Kind,
)

# What editors suggest; other names are a warning of the build, no error.
_SUGGESTIONS = {"architecture": ARCHITECTURES.split(), "os": SYSTEMS.split()}


def schema() -> dict[str, Any]:
    """The schema of a whole document. JSON-able, and the same at every call."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "build-oci",
        "description": "The images that build-oci builds.",
        **_section(TOP_KEYS),
        # As the build has it: a level is for a compression that has levels.
        "if": {
            "properties": {
                "compression": {
                    "anyOf": [{"const": "gzip"}, {"type": "array", "contains": {"const": "gzip"}}]
                }
            },
            "required": ["compression"],
        },
        "then": {"properties": {"compression-level": {"maximum": 9}}},
    }


def _section(keys: tuple[Key, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {key.name: _property(key) for key in keys},
    }
    if required := [key.name for key in keys if key.required]:
        found["required"] = required
    return found


def _property(key: Key) -> dict[str, Any]:
    found: dict[str, Any] = {"description": f"{key.doc[:1].upper()}{key.doc[1:]}."}
    found |= _value(key)
    default = (
        next((written for written, meant in key.choices.items() if meant == key.default), None)
        if key.choices
        else key.default
    )
    if key.kind is Kind.CHOICES:
        found["default"] = key.default[0]
    elif default not in (None, {}, ()):
        found["default"] = list(default) if isinstance(default, tuple) else default
    return found


def _value(key: Key) -> dict[str, Any]:
    match key.kind:
        case Kind.STRING:
            found: dict[str, Any] = (
                {"type": "string", "minLength": 1} if key.required else {"type": "string"}
            )
            return found | (
                {"examples": _SUGGESTIONS[key.name]} if key.name in _SUGGESTIONS else {}
            )
        case Kind.PATH | Kind.FILE | Kind.LAYOUT:
            return {"type": "string", "minLength": 1}
        case Kind.TREE:
            return {"anyOf": [{"type": "string", "minLength": 1}, _section(key.keys)]}
        case Kind.BOOLEAN:
            return {"type": "boolean"}
        case Kind.INTEGER:
            return {"type": "integer", "minimum": key.minimum} | (
                {} if key.maximum is None else {"maximum": key.maximum}
            )
        case Kind.CHOICE:
            return {"enum": list(key.choices)}
        case Kind.CHOICES:
            alone = {
                "type": "array",
                "minItems": 1,
                "maxItems": 1,
                "items": {"enum": list(key.choices)},
            }
            two = {
                "type": "array",
                "enum": [list(order) for pair in CODEC_PAIRS for order in (pair, pair[::-1])],
            }
            return {"anyOf": [{"enum": list(key.choices)}, alone, two]}
        case Kind.OWNER:
            return {"type": "string", "pattern": "^[0-9]{1,10}:[0-9]{1,10}$"}
        case Kind.STRINGS | Kind.PATTERNS:
            return {"type": "array", "items": {"type": "string"}}
        case Kind.ANNOTATIONS:
            return {"type": "object", "additionalProperties": {"type": "string"}}
        case Kind.SECTION:
            return _section(key.keys)
        case Kind.SECTIONS:
            return {"type": "array", "items": _section(key.keys)}
        case Kind.SOURCES:
            given = [_section((key._replace(required=True),)) for key in SOURCE_KEYS]
            return {"type": "array", "items": {"anyOf": [{"enum": list(PLAIN_SOURCES)}, *given]}}
        case Kind.GLOBS:
            globs = {"type": "array", "items": {"type": "string", "minLength": 1}}
            return {
                "type": "object",
                "propertyNames": {"minLength": 1},
                "additionalProperties": globs,
            }
        case Kind.ANYTHING:
            return {}
