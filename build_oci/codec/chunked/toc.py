"""The table of contents of a zstd:chunked layer, as its readers take it: JSON whose keys are of any
case and whose values are of one type.
"""

from __future__ import annotations

import base64
import codecs
import json
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

NUMBERS = ("mode", "size", "uid", "gid", "devMajor", "devMinor")
TIMES = ("modtime", "accesstime", "changetime")
_KINDS: dict[str, type] = {
    **dict.fromkeys(("type", "name", "linkName", *TIMES), str),
    **dict.fromkeys(("digest", "chunkDigest", "chunkType"), str),
    **dict.fromkeys((*NUMBERS, "offset", "endOffset", "chunkSize", "chunkOffset"), int),
    "xattrs": dict,
}
_NAMES = {int: "number", str: "string", dict: "object"}
_LONGEST_ENTRY = 1 << 20  # characters
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1
_SHOWN = 200
_SURROGATE = re.compile("[\ud800-\udfff]")


def toc_objects(pieces: Iterable[bytes]) -> Iterator[tuple[str, Any]]:
    """The document that comes in PIECES: pairs of "entry" and one entry, "tarSplitDigest" and it.

    ValueError where readers do not take it, at the latest behind the last pair.
    """
    reader = _Json(pieces)
    for key in reader.read_keys():
        # As readers do, which take no notice of upper and lower case.
        folded = key.lower()
        if folded == "entries":
            for value in reader.read_values():
                if not isinstance(value, dict):
                    raise ValueError("an entry of its table of contents is no object")
                yield "entry", _entry(value)
            continue
        value = reader.value()
        if folded == "version" and (type(value) is not int or value != 1):
            raise ValueError(
                f"its table of contents has the version {shown(value)}; only 1 is known"
            )
        if folded == "tarsplitdigest":
            if not isinstance(value, str):
                raise ValueError("its table of contents has a tarSplitDigest that is no string")
            yield "tarSplitDigest", value
    reader.end()


def _entry(entry: dict[str, Any]) -> dict[str, Any]:
    found = as_reader(entry, _KINDS, "its table of contents has")
    xattrs: dict[str, object] | None = found.get("xattrs")
    if not xattrs:
        return found
    if not all(key and isinstance(value, str) for key, value in xattrs.items()):
        raise ValueError(
            f"its table of contents has xattrs of {_name(entry)} without a name, or that are"
            " no strings"
        )
    return {**found, "xattrs": {_text(key): value for key, value in xattrs.items()}}


def as_reader(document: dict[str, Any], kinds: dict[str, type], where: str) -> dict[str, Any]:
    """Of DOCUMENT what a program in Go finds that knows the keys KINDS, each with its type; without
    the strings and objects that are null.

    ValueError, which begins with WHERE, for a value of another type.
    """
    found = document
    if not kinds.keys() >= document.keys():
        spelled = {key.lower(): key for key in kinds}
        known = [key for key in document if key.lower() in spelled]
        found = {spelled[key.lower()]: document[key] for key in known}
        if len(found) < len(known):
            raise ValueError(f"{where} a key of {_name(document)} twice")
    if None in found.values():
        found = {
            key: value for key, value in found.items() if value is not None or kinds[key] is int
        }
    for key, value in found.items():
        kind = kinds[key]
        its_kind: type = type(value)  # where True is no int
        if its_kind is not kind or (kind is int and not _LEAST <= value <= _MOST):
            raise ValueError(f"{where} a {key} of {_name(document)} that is no {_NAMES[kind]}")
        if kind is str and not value.isascii():
            found = {**found, key: _text(value)}
    return found


def _text(value: str) -> str:
    """VALUE as Go has it: it knows no half of a pair of surrogates."""
    return _SURROGATE.sub("\ufffd", value)


def _name(document: dict[str, Any]) -> str:
    return shown(document.get("name"))


def shown(value: object) -> str:
    """VALUE, which may be long, in a message."""
    text = os.fsdecode(value[:_SHOWN]) if isinstance(value, bytes) else str(value)[:_SHOWN]
    return f"“{text}”"


def decoded(text: str | bytes, what: str) -> bytes:
    """The bytes that TEXT stands for in base64. ValueError naming WHAT it should be."""
    try:
        if len(text) % 4 == 0:
            return base64.b64decode(text, validate=True)
    except ValueError:
        pass
    raise ValueError(f"its metadata have a {what} that is not base64")


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"its table of contents is no JSON document: {text}")


class _Json:
    """A JSON document whose values are read one by one, each of them short."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._text = ""
        self._at = 0
        self._decoder = json.JSONDecoder(parse_constant=_no_constant)
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._ended = False

    def _more(self) -> bool:
        if self._ended:
            return False
        piece = next(self._pieces, None)
        self._ended = piece is None
        try:
            text = self._utf8.decode(piece or b"", self._ended)
        except UnicodeDecodeError:
            raise ValueError("its table of contents is not UTF-8") from None
        self._text = self._text[self._at :] + text
        self._at = 0
        return not self._ended

    def _skip_space(self) -> None:
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text) or not self._more():
                return

    def _accept(self, character: str) -> bool:
        """Is it what comes next? Then it is read."""
        self._skip_space()
        found = self._text.startswith(character, self._at)
        self._at += found
        return found

    def _expect(self, character: str) -> None:
        if not self._accept(character):
            raise ValueError("its table of contents is no JSON document")

    def read_keys(self) -> Iterator[str]:
        """The keys of the object that comes next; behind each its value is to be read."""
        for key in self._members("{", "}"):
            if not isinstance(key, str):
                raise ValueError("its table of contents is no JSON document")
            self._expect(":")
            yield key

    def read_values(self) -> Iterator[Any]:
        """The values of the array that comes next."""
        return self._members("[", "]")

    def _members(self, start: str, end: str) -> Iterator[Any]:
        self._expect(start)
        if self._accept(end):
            return
        while True:
            yield self.value()
            if self._accept(end):
                return
            self._expect(",")

    def value(self) -> Any:
        """The next value."""
        self._skip_space()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except ValueError:
                if len(self._text) - self._at > _LONGEST_ENTRY or not self._more():
                    raise ValueError(
                        "its table of contents is no JSON document, or has an entry without end"
                    ) from None
                continue
            # A number at the end of what is there may go on.
            if end < len(self._text) or not self._more():
                self._at = min(end, len(self._text))
                return value

    def end(self) -> None:
        self._skip_space()
        if self._at < len(self._text) or self._more():
            raise ValueError("something follows its table of contents")
