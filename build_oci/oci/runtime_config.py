"""The part of an image's config that says how a container runs, put upon that of another image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from build_oci.oci.fields import is_strings


def inherit(parent: Any, given: Any) -> Any:
    """The config PARENT with what GIVEN says in place of its own: `Labels` and `Env` by name,
    anything else by key; None removes.

    What stays keeps its place, what is new comes behind it. GIVEN may write `Env` as a mapping of
    names to values too. A GIVEN that is no mapping replaces the whole, if it is not None.
    """
    if given is None or parent is None:
        return parent if given is None else changes_of(given)
    if not isinstance(given, dict):
        return given
    merged = dict(parent)
    for key, value in given.items():
        merge = _BY_NAME.get(key)
        changed = merge(merged.get(key), value) if merge else value
        if changed is None:
            merged.pop(key, None)
        else:
            merged[key] = changed
    return merged


def changes_of(given: Any) -> Any:
    """GIVEN without what only removes something, and `Env` as a list: what it says by itself."""
    return inherit({}, given)


def _labels(parent: Any, given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    merged = (parent if isinstance(parent, dict) else {}) | given
    return {name: value for name, value in merged.items() if value is not None}


def _environment(parent: Any, given: Any) -> Any:
    """GIVEN is a list of NAME=VALUE, or a mapping of names to values, of which None removes the
    name.
    """
    if isinstance(given, dict):
        if not all(value is None or isinstance(value, str) for value in given.values()):
            return given
        changes: dict[str, str | None] = {
            name: None if value is None else f"{name}={value}" for name, value in given.items()
        }
    elif is_strings(given):
        changes = {item.partition("=")[0]: item for item in given}
    else:
        return given
    merged: dict[str, str | None] = (
        {item.partition("=")[0]: item for item in parent} if is_strings(parent) else {}
    )
    merged |= changes
    return [item for item in merged.values() if item is not None]


_BY_NAME: dict[str, Callable[[Any, Any], Any]] = {"Labels": _labels, "Env": _environment}
