"""The source `file`: a map from paths to components that a build system wrote, in one of three forms that are told apart by content.

    {"NAME": {"files": ["/usr/…"], "interval": "weekly"}}
    {"schema": 3, "entries": [{"path": "/usr/…", "component": "NAME", "interval": "weekly"}]}
    PATH<tab>NAME[<tab>INTERVAL]

Memory stays within a small multiple of the larger limit below: lines are read one at a time; JSON is read whole, within limits of bytes
and of values, and each of its small objects is reduced to a tuple as soon as it is read.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, NoReturn

from build_oci.errors import UsageError, counted
from build_oci.split.component import NO_OWNER, name_problem, parse_interval, shown_name
from build_oci.split.sources import Context, Owners, no_owners
from build_oci.split.tree import MOST_LINE

MOST_JSON = 64 << 20  # bytes
MOST_VALUES = 3_000_000
MOST_LINES_FORM = 512 << 20  # bytes
_MOST_ABSENT = 100_000  # paths that the tree lacks, of which the owner is remembered
_FORMS = "it is a JSON object of components, one with `schema` and `entries`, or lines of PATH, a tab and COMPONENT"
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


class _Claim(NamedTuple):
    """One line or entry: `place` says which."""

    place: str
    path: bytes
    component: str
    interval: Any  # None: not given


class _Duplicate(ValueError):
    """A JSON object has a name twice, of which readers see one only."""


def claim(context: Context) -> Owners:
    """Each path goes to the component of its entry. UsageError names the file, and the line or entry that is wrong."""
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
            hint="" if os.path.isabs(path) else f"a relative path starts at the current directory, {os.getcwd()}",
        ) from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise UsageError("the map of components is not a regular file", where=path)
    return os.fdopen(file, "rb")


class _Claims:
    def __init__(self, context: Context, path: str) -> None:
        self.context = context
        self.path = path
        self.source = f"file {path}"
        self.owners = no_owners(context)
        self.absent: dict[bytes, int] = {}
        self.absent_count = 0
        self.first_absent = b""
        self.numbers: dict[tuple[str, Any], int] = {}
        self.encoding = "utf-8"

    def fail(self, place: str, what: str, hint: str = "") -> NoReturn:
        between = ":" if place.isdigit() else ": " if place else ""
        raise UsageError(what, where=f"{self.path}{between}{place}", hint=hint)

    def read(self, file: BinaryIO) -> Owners:
        tree = self.context.tree
        try:
            size = os.fstat(file.fileno()).st_size
            head = file.read(MOST_LINE)
            file.seek(0)
            is_json = _OBJECT.match(head.removeprefix(b"\xef\xbb\xbf")) or not head.strip()
            limit = MOST_JSON if is_json else MOST_LINES_FORM
            if size > limit:
                self.fail("", f"the map of components has {counted(size, 'byte')}; at most {limit:,} are read")
            for number, claim in enumerate(self.json(file.read(limit)) if is_json else self.lines(file)):
                if number % 4096 == 0:
                    tree.check()
                self.claim(claim)
        except OSError as error:
            self.fail("", f"the map of components cannot be read: {error.strerror}")
        if self.absent_count:
            count, first = self.absent_count, shown_name(self.first_absent)
            what = f"names {counted(count, 'path')} that the tree lacks: `{first}`{', …' if count > 1 else ''}"
            self.context.registry.warn(f"{self.path}: {what}")
        return self.owners

    def claim(self, claim: _Claim) -> None:
        number = self.number(claim)
        index = self.context.tree.find(claim.path)
        if index is None:
            self.absent_count += 1
            self.first_absent = self.first_absent or claim.path
            name = claim.path.strip(b"/")
            before = self.absent.get(name, number) if len(self.absent) >= _MOST_ABSENT else self.absent.setdefault(name, number)
        else:
            before = self.owners[index]
            self.owners[index] = number
        if before not in (number, NO_OWNER):
            other = self.context.registry.name(before)
            what = f"`{shown_name(claim.path)}` belongs to `{claim.component}` here, but to `{other}` before"
            self.fail(claim.place, what, "remove one of the two")

    def number(self, claim: _Claim) -> int:
        """The number of the component, checked once for each name and interval that is written."""
        key = (claim.component, claim.interval)
        try:
            known = self.numbers.get(key)
        except TypeError:  # a list or an object is no key, and no interval
            known = None
        if known is not None:
            return known
        if problem := name_problem(claim.component):
            self.fail(claim.place, f"the component `{shown_name(claim.component)}` {problem}")
        try:
            interval = None if claim.interval is None else parse_interval(claim.interval)
        except ValueError as error:
            self.fail(claim.place, f"the interval `{shown_name(str(claim.interval))}` {error}")
        number = self.context.registry.number(claim.component, self.source, interval)
        self.numbers[key] = number
        return number

    # -- the forms

    def lines(self, file: BinaryIO) -> Iterator[_Claim]:
        number = 0
        while line := file.readline(MOST_LINE):
            number += 1
            if len(line) >= MOST_LINE:
                self.fail(str(number), f"the line is longer than {MOST_LINE} bytes", _FORMS)
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            line = line.rstrip(b"\r\n")
            if not line or line.startswith(b"#"):
                continue
            path, *rest = line.split(b"\t")
            if not rest or len(rest) > 2:
                what = "has no tab between path and component" if not rest else "has more than path, component and interval"
                self.fail(str(number), f"`{shown_name(line)}` {what}", f"this map is not understood: {_FORMS}" if number == 1 else "")
            if not path.strip(b"/"):
                self.fail(str(number), "names no path")
            try:
                component, *interval = (part.decode() for part in rest)
            except UnicodeDecodeError:
                self.fail(str(number), f"`{shown_name(line)}`: the component is not UTF-8")
            yield _Claim(str(number), path, component, interval[0] if interval and interval[0] else None)

    def json(self, data: bytes) -> Iterator[_Claim]:
        data = data.removeprefix(b"\xef\xbb\xbf")
        if not data.strip():
            self.fail("", "the map of components is empty", _FORMS)
        if sum(data.count(sign) for sign in (b",", b"{", b"[")) > MOST_VALUES:
            self.fail("", f"the map of components has more than {MOST_VALUES:,} values")
        # One byte a character wherever that is possible, because a single wide one makes Python's string four times as large.
        codec, errors = ("utf-8", "surrogateescape") if b"\\u" in data else ("latin-1", "strict")
        text = data.decode(codec, errors)
        del data
        try:
            document = json.loads(text, object_pairs_hook=_reduced)
        except _Duplicate as error:
            self.fail("", f"the name `{shown_name(str(error))}` stands twice in one object", "a name may stand there once")
        except json.JSONDecodeError as error:
            self.fail(str(error.lineno), f"not valid JSON: {error.msg}", "is the file cut?" if error.pos >= len(text.rstrip()) else "")
        except RecursionError:
            self.fail("", "the map of components is nested too deep")
        except ValueError as error:  # a number of thousands of digits
            self.fail("", f"not valid JSON: {error}")
        del text
        self.encoding = codec
        if not isinstance(document, dict):
            self.fail("", "the map of components is of no form that is known", _FORMS)
        if "schema" in document and not isinstance(document["schema"], _Files):
            return self.entries(document)
        return self.components(document)

    def entries(self, document: dict[str, Any]) -> Iterator[_Claim]:
        if type(document["schema"]) is not int or document["schema"] != 3:
            self.fail("", f"the schema `{shown_name(str(document['schema']))}` is not known", "this version reads schema 3")
        entries = document.get("entries")
        if not isinstance(entries, list):
            self.fail("entries", "must be a list of objects")
        for number, entry in enumerate(entries):
            place = f"entries[{number}]"
            if not isinstance(entry, _Entry):
                self.fail(place, "must be an object with `path` and `component`")
            if not isinstance(entry.component, str):
                self.fail(place, "`component` must be a string")
            yield _Claim(place, self.raw(place, entry.path), self.name(place, entry.component), self.interval(place, entry.interval))

    def components(self, document: dict[str, Any]) -> Iterator[_Claim]:
        for written, files in document.items():
            name = self.name("", written)
            place = shown_name(name)
            if not isinstance(files, _Files) or not isinstance(files.files, list):
                self.fail(place, "must be an object with a list `files`", _FORMS)
            interval = self.interval(place, files.interval)
            # A component without files is checked as well.
            self.number(_Claim(place, b"", name, interval))
            for number, path in enumerate(files.files):
                place = f"{shown_name(name)}: files[{number}]"
                yield _Claim(place, self.raw(place, path), name, interval)

    def interval(self, place: str, value: Any) -> Any:
        if isinstance(value, str | int | float) or value is None:
            return value
        return self.fail(place, "`interval` must be a number of days or a word such as `weekly`")

    def raw(self, place: str, text: Any) -> bytes:
        """The bytes of a path: those of the file, whatever they are; an escaped half surrogate is a byte, as Python writes it."""
        if not isinstance(text, str):
            self.fail(place, "a path must be a string")
        try:
            path = text.encode(self.encoding, "surrogateescape")
        except UnicodeEncodeError:
            self.fail(place, f"the path `{shown_name(text)}` holds half of a surrogate pair")
        if not path.strip(b"/"):
            self.fail(place, "names no path")
        return path

    def name(self, place: str, text: str) -> str:
        try:
            return text.encode(self.encoding, "surrogateescape").decode()
        except UnicodeError:
            self.fail(place, f"the component `{shown_name(text.encode(self.encoding, 'surrogatepass'))}` is not UTF-8")


def _reduced(pairs: list[tuple[str, Any]]) -> Any:
    """An object of the JSON file as the smallest thing that holds all of it that is used."""
    if len(pairs) > 1 and len({name for name, _ in pairs}) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _Duplicate(name)
            seen.add(name)
    found = dict(pairs)
    if "files" in found and not isinstance(found["files"], _Files):
        return _Files(found["files"], found.get("interval"))
    if "path" in found and not isinstance(found["path"], _Files):
        return _Entry(found["path"], found.get("component"), found.get("interval"))
    return found
