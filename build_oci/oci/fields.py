"""The types that clients know of the fields of documents: above all of the part of an image's
config that says how a container runs.

That part is passed through untouched, so what is wrong with it is told, never mended. Go clients
refuse a document in which one field has another type than they know, and ignore a name that they do
not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def is_strings(value: Any) -> bool:
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
_STRINGS: _Check = (is_strings, "a list of strings")
_SET: _Check = (_is_set, "a mapping of names to empty mappings, such as `80/tcp: {}`")
_BOOLEAN: _Check = (_is_boolean, "true or false")
# What the image-spec names, and what Docker adds to it.
_FIELDS: dict[str, _Check] = {
    "User": _STRING,
    "ExposedPorts": _SET,
    "Env": (is_strings, "a list of strings, such as `[A=b]`"),
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
# Of the config of an image around that part, of an entry of its history, of a descriptor and of a
# platform in one.
_IMAGE: dict[str, _Check] = {
    "author": _STRING,
    "architecture": _STRING,
    "os": _STRING,
    "variant": _STRING,
    "os.version": _STRING,
    "os.features": _STRINGS,
}
_HISTORY: dict[str, _Check] = {
    "created_by": _STRING,
    "author": _STRING,
    "comment": _STRING,
    "empty_layer": _BOOLEAN,
}
_DESCRIPTOR: dict[str, _Check] = {"urls": _STRINGS, "artifactType": _STRING}
_PLATFORM = {name: check for name, check in _IMAGE.items() if name != "author"}
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
    yield from _typed(config, _FIELDS)
    for name, value in config.items():
        if name not in _FIELDS and (near := _near(name)):
            yield name, f"is no name that clients know; did you mean `{near}`?"
        if name == "Env" and is_strings(value):
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


def image_findings(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The same of CONTENT, the whole config of an image."""
    yield from _typed(content, _IMAGE)
    history = content.get("history")
    for number, entry in enumerate(history if isinstance(history, list) else ()):
        if isinstance(entry, dict):
            for name, what in _typed(entry, _HISTORY):
                yield f"history[{number}].{name}", what
    for name, what in config_findings(content.get("config")):
        yield f"config.{name}" if name else "config", what


def descriptor_findings(item: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The same of ITEM, a descriptor. The image-spec wants both names of a platform."""
    yield from _typed(item, _DESCRIPTOR)
    if isinstance(platform := item.get("platform"), dict):
        for name in ("architecture", "os"):
            if platform.get(name) in (None, ""):
                yield f"platform.{name}", "is missing"
        for name, what in _typed(platform, _PLATFORM):
            yield f"platform.{name}", what


def _typed(content: dict[str, Any], checks: dict[str, _Check]) -> Iterator[tuple[str, str]]:
    """What has another type in CONTENT than CHECKS know."""
    for name, (fits, wanted) in checks.items():
        if (value := content.get(name)) is not None and not fits(value):
            yield name, f"must be {wanted}: clients cannot read the image"
