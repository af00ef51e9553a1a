"""The source `file`: a map from paths to components that a build system wrote, in one of three
forms that are told apart by content.

    {"NAME": {"files": ["/usr/…"], "interval": "weekly"}}
    {"schema": 3, "entries": [{"path": "/usr/…", "component": "NAME", "interval": "weekly"}]}
    PATH<tab>NAME[<tab>INTERVAL]

Memory stays within a small multiple of the larger limit below: lines are read one at a time; JSON
is read whole, within limits of bytes and of values, and each of its small objects is reduced to a
tuple as soon as it is read.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO, NoReturn

from build_oci.config.components import name_problem
from build_oci.errors import UsageError, counted
from build_oci.records import NamedTuple
from build_oci.split.component import NO_OWNER, parse_interval, shown_name
from build_oci.split.sources import Context, Owners, no_owners
from build_oci.split.tree import MOST_LINE

MOST_JSON = 64 << 20  # bytes
MOST_VALUES = 3_000_000
MOST_LINES_FORM = 512 << 20  # bytes
_MOST_ABSENT = 100_000  # paths that the tree lacks, of which the owner is remembered
_MARK = b"\xef\xbb\xbf"  # some editors begin UTF-8 with it
_FORMS = (
    "it is a JSON object of components, one with `schema` and `entries`, or lines of PATH, a tab"
    " and COMPONENT"
)
_OBJECT = re.compile(rb"\s*\{\s*(?:[\"}]|\Z)")


class _Entry(NamedTuple):
    """One object of `entries`, values as they came."""

    path: Any
    component: Any
    interval: Any


class _Files(NamedTuple):
    """The object of one component, likewise."""

    files: Any
    interval: Any


class _Duplicate(ValueError):
    """A JSON object has a name twice, of which readers see one only."""


def claim(context: Context) -> Owners:
    """Each path goes to the component of its entry.

    UsageError names the file, and the line or entry that is wrong.
    """
    path = context.config.path
    with _opened(path) as file:
        return _Claims(context, path).read(file)


def _opened(path: str) -> BinaryIO:
    try:
        # Opening a FIFO would wait for whoever writes it.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the map of components cannot be opened: {getattr(error, 'strerror', None) or error}",
            where=path,
            hint=(
                ""
                if os.path.isabs(path)
                else f"a relative path starts at the current directory, {os.getcwd()}"
            ),
        ) from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise UsageError(
            "the map of components is not a regular file",
            where=path,
            hint="write the map to a file, and name that",
        )
    return os.fdopen(file, "rb")


_Claimed = tuple[int, bytes, int]
"""The number of a line or entry, a path, the number of its component."""


class _Claims:
    """The claims of one map file.

    `place` tells in words where the line or entry of a number stands; each form has its own.
    """

    def __init__(self, context: Context, path: str) -> None:
        self.context = context
        self.path = path
        self.source = f"file {path}"
        self.owners = no_owners(context)
        self.place: Callable[[int], str] = str
        self.numbers: dict[tuple[str, Any], int] = {}
        self.encoding = "utf-8"

    def fail(self, place: str, what: str, hint: str = "") -> NoReturn:
        between = ":" if place.isdigit() else ": " if place else ""
        raise UsageError(what, where=f"{self.path}{between}{place}", hint=hint)

    def read(self, file: BinaryIO) -> Owners:
        try:
            size = os.fstat(file.fileno()).st_size
            head = file.read(MOST_LINE)
            file.seek(0)
            is_json = _OBJECT.match(head.removeprefix(_MARK)) or not head.strip()
            limit = MOST_JSON if is_json else MOST_LINES_FORM
            if size > limit:
                self.fail(
                    "",
                    f"the map of components has {counted(size, 'byte')}; at most {limit:,} are"
                    " read",
                )
            self.apply(self.json(file.read(limit)) if is_json else self.lines(file))
        except OSError as error:
            self.fail("", f"the map of components cannot be read: {error.strerror}")
        return self.owners

    def apply(self, claims: Iterator[_Claimed]) -> None:
        """Write every claim into `owners`."""
        tree, owners = self.context.tree, self.owners
        get = tree.entry
        absent: dict[bytes, int] = {}
        absent_count = 0
        first_absent = b""
        for count, (place, path, number) in enumerate(claims):
            if count % 4096 == 0:
                tree.check()
            index = get(path[1:] if path[:1] == b"/" else path)
            if index is None:
                index = tree.find(path)
            if index is None:
                first_absent = first_absent or path
                absent_count += 1
                name = path.strip(b"/")
                before = (
                    absent.get(name, number)
                    if len(absent) >= _MOST_ABSENT
                    else absent.setdefault(name, number)
                )
            else:
                before = owners[index]
                owners[index] = number
            if before != number and before != NO_OWNER:
                component, other = (
                    self.context.registry.name(number),
                    self.context.registry.name(before),
                )
                what = (
                    f"`{shown_name(path)}` belongs to `{component}` here, but to `{other}` before"
                )
                self.fail(self.place(place), what, "remove one of the two")
        if absent_count:
            more = ", …" if absent_count > 1 else ""
            what = (
                f"names {counted(absent_count, 'path')} that the tree lacks:"
                f" `{shown_name(first_absent)}`{more}"
            )
            self.context.registry.warn(f"{self.path}: {what}")

    def number(self, place: int, component: str, interval: Any) -> int:
        """The number of the component, checked once for each name and interval that is written."""
        key = (component, interval)
        known = self.numbers.get(key)
        if known is not None:
            return known
        if problem := name_problem(component):
            self.fail(self.place(place), f"the component `{shown_name(component)}` {problem}")
        try:
            days = None if interval is None else parse_interval(interval)
        except ValueError as error:
            self.fail(self.place(place), f"the interval `{shown_name(str(interval))}` {error}")
        number = self.numbers[key] = self.context.registry.number(component, self.source, days)
        return number

    # -- the forms

    def lines(self, file: BinaryIO) -> Iterator[_Claimed]:
        number = 0
        numbers: dict[bytes, int] = {}  # by all that follows the path
        while line := file.readline(MOST_LINE):
            number += 1
            if len(line) >= MOST_LINE:
                self.fail(str(number), f"the line is longer than {MOST_LINE} bytes", _FORMS)
            line = line.removeprefix(_MARK) if number == 1 else line
            line = line.rstrip(b"\r\n")
            if not line or line.startswith(b"#"):
                continue
            path, _, rest = line.partition(b"\t")
            owner = numbers.get(rest)
            if owner is None:
                owner = numbers[rest] = self.rest_of_line(number, line, rest)
            if not path.strip(b"/"):
                self.fail(str(number), "names no path")
            yield number, path, owner

    def rest_of_line(self, number: int, line: bytes, rest: bytes) -> int:
        component, *interval = rest.split(b"\t")
        if not rest or len(interval) > 1:
            what = (
                "has more than path, component and interval"
                if rest
                else "has no component behind a tab"
            )
            hint = f"this map is not understood: {_FORMS}" if number == 1 else ""
            self.fail(str(number), f"`{shown_name(line)}` {what}", hint)
        try:
            return self.number(
                number,
                component.decode(),
                interval[0].decode() if interval and interval[0] else None,
            )
        except UnicodeDecodeError:
            self.fail(str(number), f"`{shown_name(line)}`: the component is not UTF-8")

    def json(self, data: bytes) -> Iterator[_Claimed]:
        data = data.removeprefix(_MARK)
        if not data.strip():
            self.fail("", "the map of components is empty", _FORMS)
        if sum(data.count(sign) for sign in (b",", b"{", b"[")) > MOST_VALUES:
            self.fail("", f"the map of components has more than {MOST_VALUES:,} values")
        # One byte a character wherever that is possible, because a single wide one makes Python's
        # string four times as large.
        codec, errors = ("utf-8", "surrogateescape") if b"\\u" in data else ("latin-1", "strict")
        text = data.decode(codec, errors)
        self.encoding = codec
        del data
        try:
            document = json.loads(text, object_pairs_hook=_reduced)
        except _Duplicate as error:
            self.fail(
                "",
                f"the name `{shown_name(str(error))}` stands twice in one object",
                "a name may stand there once",
            )
        except json.JSONDecodeError as error:
            self.fail(
                str(error.lineno),
                f"not valid JSON: {error.msg}",
                "is the file cut?" if error.pos >= len(text.rstrip()) else "",
            )
        except RecursionError:
            self.fail("", "the map of components is nested too deep")
        except ValueError as error:  # a number of thousands of digits
            self.fail("", f"not valid JSON: {error}")
        del text
        if not isinstance(document, dict):
            self.fail("", "the map of components is of no form that is known", _FORMS)
        if "schema" in document and not isinstance(document["schema"], _Files):
            return self.entries(document)
        return self.components(document)

    def entries(self, document: dict[str, Any]) -> Iterator[_Claimed]:
        if type(document["schema"]) is not int or document["schema"] != 3:
            self.fail(
                "",
                f"the schema `{shown_name(str(document['schema']))}` is not known",
                "this version reads schema 3",
            )
        entries = document.get("entries")
        if not isinstance(entries, list):
            self.fail("entries", "must be a list of objects")
        self.place = "entries[{}]".format
        for place, entry in enumerate(entries):
            if not isinstance(entry, _Entry):
                self.fail(self.place(place), "must be an object with `path` and `component`")
            path, component, interval = entry
            yield place, self.raw(place, path), self.owner(place, component, interval)

    def components(self, document: dict[str, Any]) -> Iterator[_Claimed]:
        for name, files in document.items():
            place = shown_name(name.encode(self.encoding, "surrogatepass"))
            self.place = partial(_in_component, place, False)
            if not isinstance(files, _Files) or not isinstance(files.files, list):
                self.fail(place, "must be an object with a list `files`", _FORMS)
            # Before its files, because it may have none.
            owner = self.owner(0, name, files.interval)
            self.place = partial(_in_component, place, True)
            for number, path in enumerate(files.files):
                yield number, self.raw(number, path), owner

    def owner(self, place: int, component: Any, interval: Any) -> int:
        """The number of a component whose name and interval are values of JSON, of any type."""
        if not isinstance(component, str):
            self.fail(self.place(place), "`component` must be a string")
        if interval is not None and not isinstance(interval, str | int | float):
            self.fail(
                self.place(place), "`interval` must be a number of days or a word such as `weekly`"
            )
        if not component.isascii():
            try:
                component = component.encode(self.encoding, "surrogateescape").decode()
            except UnicodeError:
                name = shown_name(component.encode(self.encoding, "surrogatepass"))
                self.fail(self.place(place), f"the component `{name}` is not UTF-8")
        return self.number(place, component, interval)

    def raw(self, place: int, text: Any) -> bytes:
        """The bytes of a path: those of the file, whatever they are; an escaped half surrogate is a
        byte, as Python writes it.
        """
        if not isinstance(text, str):
            self.fail(self.place(place), "a path must be a string")
        try:
            path = text.encode(self.encoding, "surrogateescape")
        except UnicodeEncodeError:
            self.fail(
                self.place(place), f"the path `{shown_name(text)}` holds half of a surrogate pair"
            )
        if not path.strip(b"/"):
            self.fail(self.place(place), "names no path")
        return path


def _in_component(name: str, in_files: bool, number: int) -> str:
    return f"{name}: files[{number}]" if in_files else name


def _reduced(pairs: list[tuple[str, Any]]) -> Any:
    """An object of the JSON file as the smallest thing that holds all of it that is used."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _Duplicate(name)
            seen.add(name)
    if "files" in found and not isinstance(found["files"], _Files):
        return _Files(found["files"], found.get("interval"))
    if "path" in found and not isinstance(found["path"], _Files):
        return _Entry(found["path"], found.get("component"), found.get("interval"))
    return found
