"""oci_image - an OCI image layout, by build-oci

The artifact is an image layout. Each dependency says in its `config` what it is:

    (none)            staged at /: the tool, and what its commands need
    layer: NAME       a directory to pack; several dependencies may make up one
    parent: NAME      an image to build upon: the artifact of another oci_image
    previous: NAME    an image of an earlier build
    part: NAME        an image whose layers are taken
    location: PATH    staged there, for commands and maps of components

In `config`, the keys `tool`, `options` and `commands` are the element's. All others are build-oci's
configuration, in which the NAMEs stand where build-oci expects a directory: `layer: NAME`, `parent:
{image: NAME}`. A value that has a slash is a path in the sandbox.

`commands` are run by sh before the image is built, and may change what was staged; without them the
root of the sandbox is read-only, which leaves less to capture.

This file is all that BuildStream loads, by `origin: local` as by `origin: pip`, so it imports
nothing that is beside it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from buildstream.element import DependencyConfiguration, ElementError
from buildstream.node import MappingNode, Node, ScalarNode, SequenceNode
from buildstream.sandbox.sandbox import Sandbox
from buildstream.scriptelement import ScriptElement

_STAGED = "/oci"
_DOCUMENT = "image.json"
_OWN_KEYS = ("tool", "options", "commands")
# What a dependency may be: the folder below _STAGED, and whether several dependencies may share a
# name.
_ROLES = {
    "layer": ("layers", True),
    "parent": ("parents", False),
    "previous": ("previous", False),
    "part": ("parts", False),
}
# Of the image config, which is passed through: what clients load as something else than a string.
_BOOLEANS = [
    "ArgsEscaped",
    "AttachStdin",
    "AttachStdout",
    "AttachStderr",
    "Tty",
    "OpenStdin",
    "StdinOnce",
    "NetworkDisabled",
]
_NUMBERS = ["Memory", "MemorySwap", "CpuShares", "StopTimeout"]
_HEALTHCHECK = ["Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"]
_TYPED = {
    **{name: {"type": "boolean"} for name in _BOOLEANS},
    **{name: {"type": "integer"} for name in _NUMBERS},
    "Healthcheck": {"properties": {name: {"type": "integer"} for name in _HEALTHCHECK}},
}


class OciImageElement(ScriptElement):
    """See the top of this file."""

    BST_MIN_VERSION = "2.0"

    def configure(self, node: MappingNode[Any]) -> None:
        """Read the element's `config`; ElementError names the line that build-oci would refuse."""
        self._tool = node.get_str_list("tool")
        self._options = node.get_str_list("options")
        commands = node.get_str_list("commands")
        with open(os.path.join(os.path.dirname(__file__), "schema.json"), encoding="utf-8") as file:
            schema = json.load(file)
        schema["properties"].update({key: {} for key in _OWN_KEYS})
        document = _typed(node, schema, "config")
        self._document: dict[str, Any] = {
            key: value for key, value in document.items() if key not in _OWN_KEYS
        }
        self._images = node.get_sequence("images", allowed_types=None)
        self.set_install_root()
        # Paths in the document, of plans for instance, are relative to the artifact.
        self.set_work_dir(self.get_variable("install-root"))
        self.set_root_read_only(not commands)
        # $MAXJOBS is expanded in the sandbox, so it is no part of the cache key; nothing of the
        # document passes through the shell.
        command = [
            *map(shlex.quote, self._tool),
            '${MAXJOBS:+-j "$MAXJOBS"}',
            "--progress",
            "none",
            *map(shlex.quote, self._options),
        ]
        if commands:
            self.add_commands("commands", commands)
        self.add_commands(
            "build-oci", [" ".join([*command, "-f", f"{_STAGED}/{_DOCUMENT}", "-o", "."])]
        )

    def configure_dependencies(self, dependencies: Iterable[DependencyConfiguration]) -> None:
        """Stage each dependency where the document finds it, and put the places into the
        document.
        """
        named: dict[str, dict[str, Node]] = {role: {} for role in _ROLES}
        has_root = False
        for dependency in dependencies:
            location = self._location(dependency, named)
            has_root = has_root or location == "/"
            self.layout_add(dependency.element, dependency.path, location)
        if not has_root:
            raise ElementError(
                f"{self}: no dependency brings build-oci: name an element that has it, without"
                " `config`"
            )
        used: set[tuple[str, str]] = set()
        for holder, key, role, node in _places(self._document["images"], self._images):
            holder[key] = self._resolved(holder[key], role, named, used, node)
        for role, names in named.items():
            for name, node in names.items():
                if (role, name) not in used:
                    raise ElementError(
                        f"{node.get_provenance()}: no image of this element names the {role}"
                        f" “{name}”"
                    )

    def _location(
        self, dependency: DependencyConfiguration, named: Mapping[str, dict[str, Node]]
    ) -> str:
        config = dependency.config
        if not config:
            return "/"
        config.validate_keys(["location", *_ROLES])
        roles = list(config.keys())
        if len(roles) != 1:
            raise ElementError(
                f"{config.get_provenance()}: a dependency is one of: location, {', '.join(_ROLES)}"
            )
        role = roles[0]
        name: str = config.get_str(role)
        if role == "location":
            return name
        folder, may_be_shared = _ROLES[role]
        if not name or "/" in name or name in (".", ".."):
            raise ElementError(
                f"{config.get_provenance()}: the {role} “{name}” needs a name that is one word,"
                " without a slash"
            )
        if name in named[role] and not may_be_shared:
            raise ElementError(
                f"{config.get_provenance()}: another dependency is the {role} “{name}” already"
            )
        named[role].setdefault(name, config)
        return f"{_STAGED}/{folder}/{name}"

    def _resolved(
        self,
        value: str,
        role: str,
        named: Mapping[str, Mapping[str, Node]],
        used: set[tuple[str, str]],
        node: Node,
    ) -> str:
        """The place in the sandbox that VALUE means."""
        if "/" in value:
            return value
        if value not in named[role]:
            known = ", ".join(f"“{name}”" for name in named[role]) or "none"
            raise ElementError(
                f"{node.get_provenance()}: no dependency is the {role} “{value}”; those that are:"
                f" {known}"
            )
        used.add((role, value))
        return f"{_STAGED}/{_ROLES[role][0]}/{value}"

    def get_unique_key(self) -> Any:
        return {**super().get_unique_key(), "document": json.dumps(self._document, sort_keys=True)}

    def stage(self, sandbox: Sandbox) -> None:
        super().stage(sandbox)
        place = sandbox.get_virtual_directory().open_directory(_STAGED.lstrip("/"), create=True)
        with place.open_file(_DOCUMENT, mode="w") as file:
            json.dump(self._document, file, ensure_ascii=True, indent=1)


def _places(images: Any, nodes: SequenceNode[Any]) -> Iterator[tuple[Any, Any, str, Node]]:
    """(mapping, key, role, where it stands) of each value that may be the name of a dependency."""
    for image, node in zip(images, nodes, strict=True):
        for section, role in (("parent", "parent"), ("previous", "previous"), ("layer", "part")):
            if isinstance(image.get(section), dict) and "image" in image[section]:
                yield image[section], "image", role, node
        if isinstance(image.get("layer"), str):
            yield image, "layer", "layer", node
        for item in image.get("layers", ()):
            for key, role in (("add", "layer"), ("image", "part")):
                if isinstance(item, dict) and key in item:
                    yield item, key, role, node


# What BuildStream loads has no types: every scalar is a string. The schema says what it was meant
# to be.


def _typed(node: Node, schema: Mapping[str, Any], where: str) -> Any:
    """NODE as JSON of the types that SCHEMA wants. ElementError with the line where it does not
    fit.
    """
    if "anyOf" in schema:
        return _any_of(node, schema["anyOf"], where)
    if isinstance(node, MappingNode):
        return _mapping(node, schema, where)
    if isinstance(node, SequenceNode):
        return _sequence(node, schema, where)
    assert isinstance(node, ScalarNode)
    return _scalar(node, schema, where)


def _any_of(node: Node, choices: list[Mapping[str, Any]], where: str) -> Any:
    refused: list[str] = []
    for choice in choices:
        try:
            return _typed(node, choice, where)
        except ElementError as error:
            # A choice that wants a list says nothing of what is wrong with a scalar.
            if isinstance(node, SequenceNode) == (choice.get("type") == "array"):
                refused.append(str(error))
    raise ElementError(
        refused[-1] if refused else f"{node.get_provenance()}: {where} must not be of this kind"
    )


def _sequence(node: SequenceNode[Any], schema: Mapping[str, Any], where: str) -> list[Any]:
    _expect(schema.get("type", "array") == "array", node, where, "must not be a list")
    found = [
        _typed(item, schema.get("items", {}), f"{where}[{number}]")
        for number, item in enumerate(node)
    ]
    _expect(
        schema.get("minItems", 0) <= len(found) <= schema.get("maxItems", len(found)),
        node,
        where,
        "has the wrong number of items",
    )
    if "enum" in schema:
        choices = " or ".join(f"[{', '.join(map(str, choice))}]" for choice in schema["enum"])
        _expect(found in schema["enum"], node, where, f"must be {choices}")
    return found


def _mapping(node: MappingNode[Any], schema: Mapping[str, Any], where: str) -> dict[str, Any]:
    _expect(
        schema.get("type", "object") == "object" and "enum" not in schema,
        node,
        where,
        "must not be a mapping",
    )
    known = schema.get("properties", {})
    others = schema.get("additionalProperties", {})
    found = {}
    for key, value in node.items():
        _expect(
            key in known or others is not False,
            value,
            f"{where}.{key}",
            f"is unknown; known are: {', '.join(sorted(known))}",
        )
        # The image config is passed through, so the schema does not know its fields.
        inside = (
            {"properties": _TYPED}
            if key == "config" and known.get(key, {}).keys() <= {"description"}
            else known.get(key, others)
        )
        found[key] = _typed(value, inside, f"{where}.{key}")
    for key in schema.get("required", ()):
        _expect(key in found, node, where, f"lacks “{key}”")
    if "if" in schema and all(
        key in found and _matches(found[key], value)
        for key, value in schema["if"]["properties"].items()
    ):
        _mapping(
            node,
            {
                "properties": {
                    **known,
                    **{k: {**known[k], **v} for k, v in schema["then"]["properties"].items()},
                }
            },
            where,
        )
    return found


def _matches(value: Any, condition: Mapping[str, Any]) -> bool:
    """Is VALUE as the CONDITION of a schema's `if` says?"""
    if "anyOf" in condition:
        return any(_matches(value, choice) for choice in condition["anyOf"])
    if "contains" in condition:
        return isinstance(value, list) and any(
            _matches(item, condition["contains"]) for item in value
        )
    return bool(value == condition["const"])


def _scalar(node: ScalarNode, schema: Mapping[str, Any], where: str) -> Any:
    if node.is_none():  # type: ignore[attr-defined]
        _expect("type" not in schema and "enum" not in schema, node, where, "has no value")
        return None
    text = node.as_str()
    if "enum" in schema:
        meant = next(
            (
                value
                for value in schema["enum"]
                if text == value or (isinstance(value, bool) and _boolean(text) is value)
            ),
            None,
        )
        choices = ", ".join(json.dumps(value) for value in schema["enum"])
        _expect(meant is not None, node, where, f"must be one of {choices}, not “{text}”")
        return meant
    kind = schema.get("type", "string")
    kinds = kind if isinstance(kind, list) else [kind]
    if "boolean" in kinds and _boolean(text) is not None:
        return _boolean(text)
    if "integer" in kinds and text.lstrip("-").isdecimal() and text.isascii():
        low, high = schema.get("minimum"), schema.get("maximum")
        fits = (low is None or int(text) >= low) and (high is None or int(text) <= high)
        _expect(
            fits, node, where, f"must be a whole number from {low} to {high or 'any'}, not {text}"
        )
        return int(text)
    _expect("string" in kinds, node, where, f"must be {' or '.join(kinds)}, not “{text}”")
    _expect(len(text) >= schema.get("minLength", 0), node, where, "must not be empty")
    _expect(
        re.search(schema.get("pattern", ""), text) is not None,
        node,
        where,
        f"must look like {schema.get('pattern')}, not “{text}”",
    )
    return text


def _boolean(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text.lower())


def _expect(fits: bool, node: Node, where: str, what: str) -> None:
    if not fits:
        raise ElementError(f"{node.get_provenance()}: {where} {what}")


def setup() -> type[OciImageElement]:
    """BuildStream's way in."""
    return OciImageElement
