"""Patterns of `exclude`: what may be written, and what the walk matches (kernel/tree/exclude.h)."""

from __future__ import annotations

LONGEST = 4095  # bytes, as of a path


def compile_pattern(written: str) -> bytes:
    """The components that WRITTEN stands for, joined by slashes.

    ValueError, which says why, where it stands for nothing below the root.
    """
    pattern = written.encode("utf-8", "surrogateescape")
    if len(pattern) > LONGEST:
        raise ValueError(f"is longer than a path can be ({LONGEST} bytes)")
    if b"\0" in pattern:
        raise ValueError("a path cannot hold a NUL character")
    if pattern.startswith(b"!"):
        raise ValueError(
            "`!` does not bring anything back here; write `\\!` for a name that begins with it"
        )
    components: list[bytes] = []
    for component in pattern.split(b"/"):
        if component in (b".", b".."):
            raise ValueError("must not hold `.` or `..`: it starts at the root of the tree")
        _check_component(component)
        if component and not (component == b"**" and components[-1:] == [b"**"]):
            components.append(component)
    if not components:
        raise ValueError("names no path below the root")
    if pattern.endswith(b"/"):
        components.append(b"*")  # what is in the directory, and not the directory
    return b"/".join(components)


def _check_component(component: bytes) -> None:
    at = 0
    while at < len(component):
        if component[at : at + 1] == b"\\":
            if at + 1 == len(component):
                raise ValueError("ends a name with a backslash that takes nothing's meaning away")
            at += 2
        elif component[at : at + 1] == b"[":
            at = _after_bracket(component, at)
        else:
            at += 1


def _after_bracket(component: bytes, start: int) -> int:
    at = start + 1
    at += component[at : at + 1] in (b"!", b"^")
    first = at
    while component[at : at + 1] != b"]" or at == first:
        if at >= len(component):
            raise ValueError("has a `[` without a `]`; write `\\[` for the character itself")
        if component[at : at + 2] == b"[:":
            raise ValueError(
                "has a class such as `[:alpha:]`, which is not understood:"
                " write the characters, as in `[a-z]`"
            )
        if component[at] >= 0x80:
            raise ValueError(
                "has a character that is not ASCII in brackets: write a pattern for each"
            )
        at += 2 if component[at : at + 1] == b"\\" else 1
    return at + 1
