"""What may be written of components: their names, and the globs of `paths`."""

from __future__ import annotations

import re

UNCLAIMED = "unclaimed:"
"""Begins the names of the components that are made for files without an owner; no other name may
begin so.
"""
_LONGEST_NAME = 255  # bytes


def name_problem(name: str) -> str:
    """Why NAME cannot be the name of a component, or nothing."""
    if not name:
        return "is empty"
    if not name.isprintable():
        return "holds a character that cannot be printed"
    if len(name.encode()) > _LONGEST_NAME:
        return f"is longer than {_LONGEST_NAME} bytes"
    if name.startswith(UNCLAIMED):
        return f"begins with `{UNCLAIMED}`, which marks files that have no owner"
    return ""


def pattern_problem(pattern: str) -> str:
    """Why PATTERN cannot be used, or nothing."""
    if not pattern.strip("/."):
        return "names nothing below the root; `**` is everything"
    if ".." in pattern.split("/") or "\0" in pattern:
        return "is not a path below the root"
    try:
        re.compile(translate(pattern.encode("utf-8", "surrogateescape")))
    except re.error as error:
        return f"is not a glob: {error.msg}"
    return ""


def translate(pattern: bytes) -> bytes:
    """The regular expression for PATTERN: `*` and `?` stay within a name, `[…]` is a set, `**` as a
    whole name is any number of names.
    """
    parts = pattern.split(b"/")
    expression = b""
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == b"**":
            expression += b".+" if last else b"(?:.*/)?"
        else:
            expression += _translate_name(part) + (b"" if last else b"/")
    return expression


def _translate_name(name: bytes) -> bytes:
    expression = b""
    at = 0
    while at < len(name):
        character = name[at : at + 1]
        at += 1
        if character == b"*":
            if not expression.endswith(b"[^/]*"):
                expression += b"[^/]*"
        elif character == b"?":
            expression += b"[^/]"
        elif (
            character == b"["
            and (end := name.find(b"]", at + 2 if name[at : at + 1] in (b"!", b"^") else at + 1))
            != -1
        ):
            inside = name[at:end]
            negated = inside[:1] in (b"!", b"^")
            inside = inside[1:] if negated else inside
            expression += (
                (b"[^/" if negated else b"(?!/)[")
                + re.sub(rb"([\\\[\]^&~|])", rb"\\\1", inside)
                + b"]"
            )
            at = end + 1
        else:
            expression += re.escape(character)
    return expression
