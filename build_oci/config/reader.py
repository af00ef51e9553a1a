"""Reads the nodes of a document by the tables of `keys`: values by key, every problem with its
line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from build_oci.config.components import name_problem, pattern_problem
from build_oci.config.document import (
    NULL,
    STRING_TAGS,
    BadValue,
    Document,
    Node,
    Pairs,
    Place,
    describe,
    is_list,
    is_mapping,
    join,
    shown,
)
from build_oci.config.keys import PLAIN_SOURCES, SECTIONS, SOURCE_KEYS, Key, Kind
from build_oci.config.model import ComponentSource
from build_oci.config.patterns import compile_pattern
from build_oci.records import NamedTuple

# How alike a stray key and a known one are (difflib's ratio) where it is a slip: `layr` 0.89,
# `imags` 0.91. What real documents carry beside the known keys (`created`, `tags`) has 0.6 at the
# most.
SLIP = 0.8
_PATHS = (Kind.PATH, Kind.FILE, Kind.LAYOUT, Kind.TREE)
NO_COMPRESSION = ("none", "off", "no", "plain", "uncompressed", "tar", "store", "stored")
_SOURCES_HINT = (
    "write `components: [{file: MAP}, xattr, packages, {paths: {kernel: [usr/lib/modules]}}]`"
)
_GLOB = Key(
    "", Kind.STRING, "a path below the root, or a glob such as `usr/share/fonts/**`", required=True
)


class Section(NamedTuple):
    """The values of one mapping by key, defaults filled in, and the place of the mapping and of
    every key it has a value for.
    """

    place: Place
    values: dict[str, Any]
    places: dict[str, Place]


class Reader:
    """Reads nodes by the tables of `keys`; every problem goes to the document."""

    def __init__(self, document: Document) -> None:
        self.document = document

    def section(self, node: Node, path: str, keys: tuple[Key, ...]) -> Section:
        document = self.document
        section = Section(document.place(node, path), {key.name: key.default for key in keys}, {})
        known = {key.name: key for key in keys}
        pairs = document.pairs(node, path)
        for name, (key_node, value_node) in pairs.items():
            place = document.place(key_node, join(path, name))
            if name not in known:
                self.unknown_key(name, place, keys, pairs)
                document.plain(value_node, place.path)
            elif value_node.tag == NULL and known[name].kind is not Kind.ANYTHING:
                if known[name].required:
                    document.problem(
                        place,
                        f"has no value, and must be {known[name].kind}",
                        f"it is {known[name].doc}",
                    )
                else:
                    document.warn(place, "has no value, so it counts as not given")
            else:
                try:
                    section.values[name] = self.value(known[name], value_node, place.path)
                    section.places[name] = place
                except BadValue as bad:
                    document.problem(place, bad.what, bad.hint)
        for key in keys:
            if key.required and key.name not in pairs:
                document.problem(
                    section.place, f"the key `{key.name}` is missing", f"it is {key.doc}"
                )
        return section

    def unknown_key(self, name: str, place: Place, keys: tuple[Key, ...], given: Pairs) -> None:
        """Stray keys are common and harmless.

        A slip of a key that is not given is an error: the document means something else.
        """
        what = f"`{shown(name)}` is not a key{_way_out(name, keys)}"
        if meant := nearest(name, [key.name for key in keys if key.name not in given], SLIP):
            self.document.problem(
                place, f"`{shown(name)}` is not a key", f"did you mean `{meant}`?"
            )
        else:
            self.document.warn(place, what)

    def value(self, key: Key, node: Node, path: str) -> Any:
        """The value of KEY, or BadValue.

        What is wrong deeper inside the value is reported where it stands.
        """
        match key.kind:
            case Kind.STRING | Kind.PATH | Kind.FILE | Kind.LAYOUT:
                return self.string(key, node)
            case Kind.TREE:
                return (
                    self.section(node, path, key.keys)
                    if is_mapping(node)
                    else self.string(key, node)
                )
            case Kind.BOOLEAN:
                value = self.scalar(key.kind, node)
                return (
                    value
                    if isinstance(value, bool)
                    else must_be(
                        key.kind, node, _quotes_hint(value, ("true", "false", "yes", "no"))
                    )
                )
            case Kind.INTEGER:
                return self.integer(key, node)
            case Kind.CHOICE:
                return self.choice(key, node)
            case Kind.CHOICES:
                return (
                    self.each(node, path, lambda child, _: self.choice(key, child))
                    if is_list(node)
                    else (self.choice(key, node),)
                )
            case Kind.STRINGS | Kind.PATTERNS:
                if not is_list(node):
                    must_be(
                        key.kind,
                        node,
                        (
                            f"write it as `{key.name}: [{shown(node.value)}]`"
                            if node.id == "scalar"
                            else ""
                        ),
                    )
                read = self.pattern if key.kind is Kind.PATTERNS else self.string
                return self.each(node, path, lambda child, _: read(key, child))
            case Kind.OWNER:
                return self.owner(node)
            case Kind.ANNOTATIONS:
                return self.annotations(node, path) if is_mapping(node) else must_be(key.kind, node)
            case Kind.SECTION:
                hint = (
                    f"write it as `{key.name}: {{image: {shown(node.value)}}}`"
                    if key.name == "parent" and node.id == "scalar"
                    else ""
                )
                return (
                    self.section(node, path, key.keys)
                    if is_mapping(node)
                    else must_be(key.kind, node, hint)
                )
            case Kind.SECTIONS:
                if not is_list(node):
                    must_be(
                        key.kind, node, "begin it with a dash: `- `" if node.id == "mapping" else ""
                    )
                return self.each(
                    node,
                    path,
                    lambda child, at: (
                        self.section(child, at, key.keys)
                        if is_mapping(child)
                        else must_be(Kind.SECTION, child)
                    ),
                )
            case Kind.SOURCES:
                if not is_list(node):
                    must_be(
                        key.kind,
                        node,
                        (
                            f"write it as `components: [{shown(node.value)}]`"
                            if node.id == "scalar"
                            else _SOURCES_HINT
                        ),
                    )
                return self.each(node, path, self.source)
            case Kind.GLOBS:
                return (
                    self.globs(node, path)
                    if is_mapping(node)
                    else must_be(key.kind, node, _SOURCES_HINT)
                )
            case Kind.ANYTHING:
                return self.document.plain(node, path)

    def each(self, node: Node, path: str, read: Callable[[Node, str], Any]) -> tuple[Any, ...]:
        values = []
        for index, child in enumerate(node.value):
            try:
                values.append(read(child, f"{path}[{index}]"))
            except BadValue as bad:
                self.document.problem(
                    self.document.place(child, f"{path}[{index}]"), bad.what, bad.hint
                )
        return tuple(values)

    def scalar(self, wanted: str, node: Node) -> object:
        return self.document.scalar(node) if node.id == "scalar" else must_be(wanted, node)

    def string(self, key: Key, node: Node) -> str:
        value = self.scalar(Kind.STRING, node)
        if not isinstance(value, str):
            return must_be(Kind.STRING, node, f'quote it: "{shown(node.value)}"')
        if key.kind is Kind.LAYOUT:
            from build_oci.oci.archive_source import layout_path

            value = layout_path(value)
        if not value and (key.required or key.kind in _PATHS):
            raise BadValue("is empty", f"it is {key.doc}")
        if "\0" in value and key.kind in _PATHS:
            raise BadValue("a path cannot hold a NUL character")
        return native_path(value) if key.kind in _PATHS else value

    def pattern(self, key: Key, node: Node) -> str:
        value = self.string(key, node)
        try:
            compile_pattern(value)
        except ValueError as error:
            raise BadValue(str(error)) from None
        return value

    def owner(self, node: Node) -> tuple[int, int]:
        # As it is written: to YAML 1.1, 10:20 is a number to the base of 60.
        found = (
            re.fullmatch("([0-9]{1,10}):([0-9]{1,10})", node.value) if node.id == "scalar" else None
        )
        if not found:
            return must_be("`UID:GID`, two numbers", node)
        uid, gid = int(found[1]), int(found[2])
        # The highest number means “unchanged” to chown.
        if max(uid, gid) >= (1 << 32) - 1:
            raise BadValue(f"must be two numbers up to {(1 << 32) - 2}")
        return uid, gid

    def integer(self, key: Key, node: Node) -> int:
        bounds = (
            f"{key.minimum} or more"
            if key.maximum is None
            else f"from {key.minimum} to {key.maximum}"
        )
        value = self.scalar(f"{key.kind} {bounds}", node)
        # A bool is an int to Python.
        if (
            type(value) is not int
            or value < key.minimum
            or (key.maximum is not None and value > key.maximum)
        ):
            return must_be(f"{key.kind} {bounds}", node)
        return value

    def choice(self, key: Key, node: Node) -> Any:
        wanted = "one of " + ", ".join(f"`{str(choice).lower()}`" for choice in key.choices)
        value = self.scalar(wanted, node)
        # 1 and True are the same key to a dict.
        if isinstance(value, str | bool) and value in key.choices:
            return key.choices[value]
        if key.name == "mode" and value == "docker":
            raise BadValue(
                "the format `docker` is not written: it was dropped by the original build-oci too",
                "remove `mode`, and convert the result: `skopeo copy oci:DIR docker-archive:FILE`",
            )
        choices = [choice for choice in key.choices if isinstance(choice, str)]
        near = (
            "disabled"
            if "disabled" in choices and str(value).lower() in NO_COMPRESSION
            else nearest(str(value).lower(), choices)
        )
        hint = (
            f"did you mean `{near}`?"
            if near
            else _quotes_hint(value, ("true", "false") if True in key.choices else ())
        )
        return must_be(wanted, node, hint)

    def source(self, node: Node, path: str) -> ComponentSource:
        """One item of `components`."""
        document = self.document
        where = document.where(document.place(node, path))
        wanted = "`xattr`, `packages`, `file: PATH` or `paths: {NAME: [GLOB]}`"
        if node.id == "scalar":
            value = self.scalar(wanted, node)
            if value in PLAIN_SOURCES:
                return ComponentSource(str(value), where)
            near = nearest(str(value).lower(), PLAIN_SOURCES)
            hint = (
                f"did you mean `{near}`?"
                if near
                else f"a map of components is `- file: {shown(value)}`"
            )
            return must_be(wanted, node, _SOURCES_HINT if value in ("file", "paths") else hint)
        if not is_mapping(node):
            must_be(wanted, node)
        section = self.section(node, path, SOURCE_KEYS)
        given = [name for name, value in section.values.items() if value is not None]
        if len(given) != 1 and not document.has_problems:  # or the missing one has a problem
            what = (
                "names two sources, `file` and `paths`"
                if given
                else f"names no source; it must be {wanted}"
            )
            raise BadValue(what, "write each as an item of its own" if given else "")
        return ComponentSource(
            given[0] if given else "",
            where,
            section.values["file"] or "",
            section.values["paths"] or {},
        )

    def globs(self, node: Node, path: str) -> dict[str, tuple[str, ...]]:
        """Components with the globs of each. What is wrong with one is reported where it stands."""
        document = self.document

        def glob(child: Node, _: str) -> str:
            value = self.string(_GLOB, child)
            if problem := pattern_problem(value):
                raise BadValue(
                    f"`{shown(value)}` {problem}",
                    "it is a path below the root, or a glob such as `usr/share/fonts/**`",
                )
            return value

        globs = {}
        for name, (key_node, value_node) in document.pairs(node, path).items():
            place = document.place(key_node, join(path, name))
            if problem := name_problem(name):
                document.problem(
                    place,
                    f"the component {problem}",
                    "a name is one to 255 bytes that can be printed",
                )
            try:
                if not is_list(value_node):
                    must_be(
                        Kind.STRINGS,
                        value_node,
                        (
                            f"write it as `[{shown(value_node.value)}]`"
                            if value_node.id == "scalar"
                            else ""
                        ),
                    )
                globs[name] = self.each(value_node, place.path, glob)
            except BadValue as bad:
                document.problem(place, bad.what, bad.hint)
        return globs

    def annotations(self, node: Node, path: str) -> dict[str, str]:
        document = self.document
        annotations = {}
        for name, (key_node, value_node) in document.pairs(node, path).items():
            place = document.place(key_node, join(path, name))
            if key_node.tag not in STRING_TAGS:
                document.problem(
                    place,
                    f"the key of an annotation must be a string, not {describe(key_node)}",
                    f'quote it: "{shown(key_node.value)}"',
                )
                continue
            try:
                value = self.scalar("a string", value_node)
                annotations[name] = (
                    value
                    if isinstance(value, str)
                    else must_be("a string", value_node, f'quote it: "{shown(value_node.value)}"')
                )
            except BadValue as bad:
                document.problem(place, bad.what, bad.hint)
        return annotations


def native_path(path: str) -> str:
    """PATH, a text of the document, as this process names files: on disk names are UTF-8, whatever
    the locale is.
    """
    return os.fsdecode(path.encode("utf-8", "surrogateescape"))


def must_be(wanted: str, node: Node, hint: str = "") -> NoReturn:
    raise BadValue(f"must be {wanted}, not {describe(node)}", hint)


def _quotes_hint(value: object, words: tuple[str, ...]) -> str:
    return "write it without quotes" if isinstance(value, str) and value.lower() in words else ""


def nearest(word: str, words: Iterable[str], cutoff: float = 0.6) -> str:
    from difflib import get_close_matches

    return next(iter(get_close_matches(word, list(words), n=1, cutoff=cutoff)), "")


def _way_out(name: str, keys: tuple[Key, ...]) -> str:
    """What to do about a key that is not among KEYS."""
    homes = [home for home, others in SECTIONS.items() if any(name == key.name for key in others)]
    near = nearest(name, [key.name for key in keys])
    asked = f"; did you mean `{near}`?" if near else ""
    return f" here; it is one {homes[0]}{asked}" if homes else asked or ", and is ignored"
