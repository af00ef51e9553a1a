"""The part of an image's config that says how a container runs: whether clients can load what it
holds.

It is passed through untouched, so what is wrong with it is told, never mended. Go clients refuse a
document in which one field has another type than they know, and ignore a name that they do not
know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_labels(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _is_set(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, dict) for item in value.values())


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_Check = tuple[Callable[[Any], bool], str]
_STRING: _Check = (_is_string, "a string")
_STRINGS: _Check = (_is_strings, "a list of strings")
_SET: _Check = (_is_set, "a mapping of names to empty mappings, such as `80/tcp: {}`")
_BOOLEAN: _Check = (_is_boolean, "true or false")
# What the image-spec names, and what Docker adds to it.
_FIELDS: dict[str, _Check] = {
    "User": _STRING,
    "ExposedPorts": _SET,
    "Env": (_is_strings, "a list of strings, such as `[A=b]`"),
    "Entrypoint": _STRINGS,
    "Cmd": _STRINGS,
    "Volumes": _SET,
    "WorkingDir": _STRING,
    "Labels": (_is_labels, "a mapping of strings to strings"),
    "StopSignal": _STRING,
    "ArgsEscaped": _BOOLEAN,
    "Memory": (_is_integer, "a whole number"),
    "MemorySwap": (_is_integer, "a whole number"),
    "CpuShares": (_is_integer, "a whole number"),
    "Healthcheck": (_is_object, "a mapping"),
    "Hostname": _STRING,
    "Domainname": _STRING,
    "Image": _STRING,
    "AttachStdin": _BOOLEAN,
    "AttachStdout": _BOOLEAN,
    "AttachStderr": _BOOLEAN,
    "Tty": _BOOLEAN,
    "OpenStdin": _BOOLEAN,
    "StdinOnce": _BOOLEAN,
    "NetworkDisabled": _BOOLEAN,
    "MacAddress": _STRING,
    "OnBuild": _STRINGS,
    "Shell": _STRINGS,
    "StopTimeout": (_is_integer, "a whole number"),
}
_LOWER = {name.lower(): name for name in _FIELDS}


def config_findings(config: Any) -> Iterator[tuple[str, str]]:
    """(name, what is wrong with it) of each field of CONFIG that clients cannot load or will not
    see; the name is empty for all of it.
    """
    if config is None:
        return
    if not isinstance(config, dict):
        yield "", "is not a mapping: clients cannot read the image"
        return
    for name, value in config.items():
        if name in _FIELDS:
            fits, wanted = _FIELDS[name]
            if value is not None and not fits(value):
                yield name, f"must be {wanted}: clients cannot read the image"
        elif near := _near(name):
            yield name, f"is no name that clients know; did you mean `{near}`?"
        if name == "Env" and _is_strings(value):
            for number, item in enumerate(value):
                if "=" not in item:
                    yield f"{name}[{number}]", "has no `=`: a variable is written NAME=VALUE"


def _near(name: str) -> str:
    """The known field that NAME is a slip of, or nothing."""
    if found := _LOWER.get(name.lower().replace("_", "").replace("-", "")):
        return found
    from difflib import get_close_matches

    close = get_close_matches(name.lower(), _LOWER, n=1, cutoff=0.8)
    return _LOWER[close[0]] if close else ""


# ---- a config on top of another one


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
    elif _is_strings(given):
        changes = {item.partition("=")[0]: item for item in given}
    else:
        return given
    merged: dict[str, str | None] = (
        {item.partition("=")[0]: item for item in parent} if _is_strings(parent) else {}
    )
    merged |= changes
    return [item for item in merged.values() if item is not None]


_BY_NAME: dict[str, Callable[[Any, Any], Any]] = {"Labels": _labels, "Env": _environment}
