"""YAML text as a graph of nodes that knows its lines, within bounds that no document of good faith
meets.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, Protocol

from build_oci.errors import BuildOciError, ConfigError, UsageError, printable
from build_oci.records import NamedTuple

MAX_SIZE = 4 << 20
"""Most bytes of a document: no registry takes a larger image configuration."""
MAX_EXPANDED = 2 * MAX_SIZE
"""Most characters that come out of a document once its aliases are written out, where every node
counts NODE_SIZE on top of its text.
"""
NODE_SIZE = 64
MAX_EVENTS = MAX_EXPANDED // NODE_SIZE
"""Most nodes and ends of collections, as many as may come out of a document; each takes some 300
bytes in the YAML library.
"""
MAX_NUMBER = 200
"""Most characters of a number: YAML 1.1 reads `1:0:0…` by the base 60, which takes time as the
square of its length.
"""
MAX_DEPTH = 100
"""Most levels of nesting; the recursion here, in the YAML library and in the JSON writer stays far
from its limit.
"""


class Node(Protocol):
    """What is used of a node of the YAML library.

    `id` is `scalar`, `sequence` or `mapping`, `value` its text, nodes or pairs of nodes.
    """

    id: str
    tag: str
    value: Any
    start_mark: Any


Scalar = str | int | float | bool | None
Pairs = dict[str, tuple[Node, Node]]

TAG = "tag:yaml.org,2002:"
NULL = TAG + "null"
# A date stays what was written; `=`, YAML 1.1's forgotten default key, is a string as in every
# other language.
STRING_TAGS = frozenset(TAG + name for name in ("str", "timestamp", "value"))
UNPRINTABLE = "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
SURROGATE = "[\ud800-\udfff]"
# A pair of escapes behind an even number of backslashes.
SURROGATE_ESCAPES = (
    r"((?<!\\)(?:\\\\)*)(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)


class BadValue(ValueError):
    """A value that is wrong where it stands: what, and a hint.

    Whoever knows the place reports it.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what, hint)
        self.what = what
        self.hint = hint


class Place(NamedTuple):
    """Where something stands: the line, from 1, and the key's path (`images[0].layer`)."""

    line: int
    path: str


def shown(value: object) -> str:
    """VALUE for a message: one line, at most 60 characters."""
    text = printable(str(value))
    return text if len(text) <= 60 else text[:59] + "…"


def join(path: str, key: str) -> str:
    """The path of KEY in the mapping at PATH."""
    return f"{path}.{shown(key)}" if path else shown(key)


def describe(node: Node) -> str:
    """What NODE is, for `must be …, not …`."""
    if node.id != "scalar":
        return "a list" if node.id == "sequence" else "a mapping"
    kind = node.tag.removeprefix(TAG)
    if kind == "null":
        return "nothing"
    return {"int": "the number ", "float": "the number ", "bool": "the boolean "}.get(
        kind, "the string "
    ) + f"`{shown(node.value)}`"


def is_list(node: Node) -> bool:
    """Whether NODE is a list; BadValue for one with a tag of its own."""
    return _is_plain(node, "sequence", "seq")


def is_mapping(node: Node) -> bool:
    """Whether NODE is a mapping; BadValue for one with a tag of its own."""
    return _is_plain(node, "mapping", "map")


def _is_plain(node: Node, collection: str, tag: str) -> bool:
    if node.id == collection and node.tag != TAG + tag:
        raise _bad_tag(node)
    return bool(node.id == collection)


def _bad_tag(node: Node) -> BadValue:
    tag = node.tag.replace(TAG, "!!", 1)
    return BadValue(
        f"the tag `{shown(tag)}` has no meaning here",
        "plain strings, numbers, booleans, lists and mappings are all there is",
    )


def _without_surrogates(text: str) -> str:
    r"""TEXT with characters in the place of pairs of escapes (`\ud83d\ude80`), which JSON writes
    and YAML refuses, where TEXT is JSON.
    """
    if not re.search(SURROGATE_ESCAPES, text) or not text.lstrip().startswith("{"):
        return text
    import json

    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return re.sub(SURROGATE_ESCAPES, lambda found: found[1] + json.loads(f'"{found[2]}"'), text)


class Document:
    """One YAML document: `root`, its top node, and the problems and warnings that reading it brings
    up.

    A problem that leaves nothing to go on with raises ConfigError at once; all others wait for
    `finish`.
    """

    def __init__(self, text: str | bytes, source: str) -> None:
        self.source = source
        self._problems: list[tuple[int, BuildOciError]] = []
        self._warnings: list[tuple[int, str]] = []
        self._size = 0
        self._open: set[int] = set()
        self.root = self._compose(_without_surrogates(self._decode(text)))

    # -- what is reported

    def where(self, place: Place) -> str:
        """`config.yaml:12: images[0].layer`."""
        return (
            f"{self.source}:{place.line}: {place.path}"
            if place.path
            else f"{self.source}:{place.line}"
        )

    @property
    def has_problems(self) -> bool:
        return bool(self._problems)

    def problem(self, place: Place, what: str, hint: str = "") -> None:
        self._problems.append((place.line, UsageError(what, where=self.where(place), hint=hint)))

    def warn(self, place: Place, what: str) -> None:
        self._warnings.append((place.line, printable(f"{self.where(place)}: {what}")))

    def finish(self) -> tuple[str, ...]:
        """The warnings in the order of the document; ConfigError with every problem, and them, if
        there was one.
        """
        warnings = tuple(text for _, text in sorted(self._warnings, key=lambda item: item[0]))
        if self._problems:
            raise ConfigError(
                [problem for _, problem in sorted(self._problems, key=lambda item: item[0])],
                warnings,
            )
        return warnings

    def _fail(self, where: str, what: str, hint: str = "") -> NoReturn:
        raise ConfigError(
            [*(problem for _, problem in self._problems), UsageError(what, where=where, hint=hint)]
        )

    # -- text to nodes

    def _decode(self, text: str | bytes) -> str:
        if len(text) > MAX_SIZE:
            self._fail(
                self.source,
                f"the document is larger than {MAX_SIZE >> 20} MiB",
                "is this really the configuration?",
            )
        if isinstance(text, bytes):
            codec = (
                "utf-16" if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
            )
            try:
                text = text.decode(codec)
            except UnicodeDecodeError as error:
                line = error.object.count(b"\n", 0, error.start) + 1
                self._fail(
                    f"{self.source}:{line}",
                    f"byte 0x{error.object[error.start]:02x} at offset {error.start} is not"
                    f" {codec.upper()}",
                    "save the document as UTF-8",
                )
        # The pattern takes longer to compile than most documents to check; all that Python calls
        # printable may stand in YAML.
        quick = text.replace("\n", "").isprintable()
        if not quick and (stray := re.search(UNPRINTABLE, text)):
            before = text[: stray.start()]
            at = f"{self.source}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
            self._fail(
                at,
                f"the character U+{ord(stray[0]):04X} cannot stand in YAML",
                "write it as an escape in a string in double quotes",
            )
        return text

    def _compose(self, text: str) -> Node:
        import yaml

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        depth = documents = events = 0
        root: Any = None
        try:
            # Parsing events needs no recursion; composing nodes does, in C without a bound. So the
            # depth is looked at first.
            for event in yaml.parse(text, Loader=loader):
                events += 1
                mark: Any = event.start_mark
                line = mark.line + 1
                if isinstance(event, yaml.CollectionStartEvent):
                    depth += 1
                elif isinstance(event, yaml.CollectionEndEvent):
                    depth -= 1
                elif isinstance(event, yaml.DocumentStartEvent):
                    documents += 1
                if events > MAX_EVENTS:
                    self._fail(
                        f"{self.source}:{line}",
                        "the document has too many keys and values",
                        "is this really the configuration?",
                    )
                if depth > MAX_DEPTH:
                    self._fail_depth(line)
                if documents > 1:
                    self._fail(
                        f"{self.source}:{line}",
                        "a second document begins here; the configuration is one document",
                        "remove the `---`",
                    )
            root = yaml.compose(text, Loader=loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f"{self.source}:{mark.line + 1}:{mark.column + 1}" if mark else self.source
            what = ", ".join(part for part in (error.context, error.problem) if part)
            hint = ""
            # libyaml has come to a limit of its own, far beyond ours, before the first event.
            if mark and "nesting depth" in what:
                self._fail_depth(mark.line + 1)
            if mark and "cannot start any token" in what:
                tab = text.split("\n")[mark.line][mark.column :].startswith("\t")
                hint = "YAML indents with spaces, never with tabs" if tab else "quote the value"
            if mark and not hint and "mapping values are not allowed" in what:
                hint = (
                    "indent the key as its neighbours are, or quote the value that holds this `:`"
                )
            elif not hint and error.context_mark:
                hint = f"what cannot be read begins in line {error.context_mark.line + 1}"
            self._fail(where, f"not valid YAML: {what}", hint)
        except yaml.YAMLError as error:
            self._fail(self.source, f"not valid YAML: {' '.join(str(error).split())}")
        if root is None:
            self._fail(
                self.source,
                "the configuration is empty",
                "a document needs at least `images:`, a list of the images to build",
            )
        top: Node = root
        return top

    # -- nodes to values

    def place(self, node: Node, path: str) -> Place:
        return Place(node.start_mark.line + 1, path)

    def scalar(self, node: Node) -> Scalar:
        """The value of a scalar node by the rules of YAML 1.1, dates as strings; BadValue for what
        has none.
        """
        from yaml.constructor import SafeConstructor

        self._spend(node)
        if node.tag in STRING_TAGS:
            if not node.value.isascii() and re.search(SURROGATE, node.value):
                raise BadValue(
                    "half of a surrogate pair is no character",
                    "write the whole character as `\\UXXXXXXXX`",
                )
            return str(node.value)
        convert: dict[str, Callable[[SafeConstructor, Any], Scalar]] = {
            NULL: SafeConstructor.construct_yaml_null,
            TAG + "bool": SafeConstructor.construct_yaml_bool,
            TAG + "int": SafeConstructor.construct_yaml_int,
            TAG + "float": SafeConstructor.construct_yaml_float,
        }
        if node.tag not in convert:
            raise _bad_tag(node)
        try:
            if len(node.value) > MAX_NUMBER:
                raise ValueError("too long")
            value = convert[node.tag](SafeConstructor(), node)
            # Python reads a hexadecimal number of any length, but writes none above its limit of
            # digits.
            str(value)
        except (ValueError, KeyError, IndexError, OverflowError) as error:
            raise BadValue(
                f"`{shown(node.value)}` cannot be read as {node.tag.removeprefix(TAG)}",
                "quote it if it is a string",
            ) from error
        return value

    def pairs(self, node: Node, path: str) -> Pairs:
        """The keys of a mapping, `<<` resolved, each with its key node and value node.

        A duplicate is a problem.

        A key that is no string gets the name that JSON gives it (`true`, `null`, `1.5`).
        """
        import json

        merged: Pairs = {}
        own: Pairs = {}
        merges = 0
        for key_node, value_node in node.value:
            if key_node.tag == TAG + "merge":
                merges += 1
                if merges == 2:
                    self.problem(
                        self.place(key_node, path),
                        "the key `<<` stands here twice",
                        "merge a list: `<<: [*a, *b]`",
                    )
                for source in reversed(
                    value_node.value if value_node.id == "sequence" else [value_node]
                ):
                    if source.id != "mapping":
                        self.problem(
                            self.place(source, path),
                            f"`<<` merges mappings, not {describe(source)}",
                            "write `<<: *NAME`",
                        )
                        continue
                    with self._inside(source, path):
                        merged.update(self.pairs(source, path))
                continue
            if key_node.id != "scalar":
                self.problem(
                    self.place(key_node, path),
                    f"a key must be a string, not {describe(key_node)}",
                    "quote the key",
                )
                continue
            try:
                key = self.scalar(key_node)
            except BadValue as bad:
                self.problem(self.place(key_node, path), bad.what, bad.hint)
                continue
            name = key if isinstance(key, str) else json.dumps(key)
            if name in own:
                first = own[name][0].start_mark.line + 1
                what = f"the key `{shown(name)}` stands here twice, first in line {first}"
                self.problem(self.place(key_node, join(path, name)), what, "remove one of them")
                continue
            own[name] = (key_node, value_node)
        return merged | own

    def plain(self, node: Node, path: str) -> Any:
        """NODE as the dict, list, str, int, float, bool or None that JSON can write.

        What JSON cannot write is a problem.
        """
        try:
            if node.id == "scalar":
                value = self.scalar(node)
                if isinstance(value, float) and not math.isfinite(value):
                    raise BadValue(
                        f"`{shown(node.value)}` is a number that JSON cannot write",
                        "quote it if it is a string",
                    )
                return value
            with self._inside(node, path):
                if is_list(node):
                    return [
                        self.plain(child, f"{path}[{index}]")
                        for index, child in enumerate(node.value)
                    ]
                is_mapping(node)
                return {
                    name: self.plain(value, join(path, name))
                    for name, (_, value) in self.pairs(node, path).items()
                }
        except BadValue as bad:
            self.problem(self.place(node, path), bad.what, bad.hint)
            return None

    def _fail_depth(self, line: int) -> NoReturn:
        self._fail(f"{self.source}:{line}", f"nested more than {MAX_DEPTH} levels deep")

    def _spend(self, node: Node) -> None:
        self._size += NODE_SIZE + (len(node.value) if node.id == "scalar" else 0)
        if self._size > MAX_EXPANDED:
            line = node.start_mark.line + 1
            self._fail(
                f"{self.source}:{line}",
                "the document grows out of bounds",
                "write out what its aliases repeat, and see how much it is",
            )

    @contextmanager
    def _inside(self, node: Node, path: str) -> Iterator[None]:
        """While a collection is being read: it cannot hold itself, nor can aliases stack up deeper
        than text could.
        """
        self._spend(node)
        if id(node) in self._open:
            self._fail(
                self.where(self.place(node, path)), "an alias stands inside what it is an alias of"
            )
        if len(self._open) >= MAX_DEPTH:
            self._fail_depth(node.start_mark.line + 1)
        self._open.add(id(node))
        try:
            yield
        finally:
            self._open.remove(id(node))
