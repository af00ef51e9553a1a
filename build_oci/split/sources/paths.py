"""The source `paths`: globs that the configuration gives to each component."""

from __future__ import annotations

import re

from build_oci.config.components import translate
from build_oci.split.sources import Context, Owners, no_owners
from build_oci.split.tree import TreeIndex

_WILD = re.compile(rb"[*?\[]")


def claim(context: Context) -> Owners:
    """Each entry goes to the first component, in the order of the configuration, that has a pattern
    for it or for a directory above it.
    """
    tree, registry = context.tree, context.registry
    owners = no_owners(context)
    literals: dict[bytes, int] = {}
    globs: list[tuple[int, bytes]] = []  # rank and regular expression
    patterns: list[tuple[str, str]] = []  # by rank: what is written
    numbers: list[int] = []
    for name, written in context.config.paths.items():
        number = registry.number(name, "paths")
        for text in written:
            pattern = _resolved(tree, text.encode("utf-8", "surrogateescape"))
            rank = len(patterns)
            patterns.append((name, text))
            numbers.append(number)
            if _WILD.search(pattern):
                globs.append((rank, translate(pattern)))
            else:
                literals.setdefault(pattern, rank)
    matcher = (
        re.compile(b"|".join(b"(%s)\\Z" % expression for _, expression in globs), re.DOTALL).match
        if globs
        else None
    )
    none = len(patterns)
    matched = set()
    inherited: dict[bytes, int] = {}
    directories = tree.view.directories
    for index, path in enumerate(tree.paths):
        if index % 4096 == 0:
            tree.check()
        rank = literals.get(path, none)
        if matcher and (found := matcher(path)) and found.lastindex:
            rank = min(rank, globs[found.lastindex - 1][0])
        if rank != none:
            matched.add(rank)
        if path:
            rank = min(rank, inherited.get(path.rpartition(b"/")[0], none))
        if rank != none:
            owners[index] = numbers[rank]
            if directories[index]:
                inherited[path] = rank
    _warn_of_idle(context, patterns, matched, dict(globs), literals)
    return owners


def _warn_of_idle(
    context: Context,
    patterns: list[tuple[str, str]],
    matched: set[int],
    globs: dict[int, bytes],
    literals: dict[bytes, int],
) -> None:
    """A pattern that matches nothing is a mistake most of the time; one that never came first is
    not.
    """
    for rank, (name, text) in enumerate(patterns):
        if rank in matched:
            continue
        if rank in globs:
            matches = re.compile(globs[rank] + rb"\Z", re.DOTALL).match
            if any(matches(path) for path in context.tree.paths):
                continue
        elif rank not in literals.values():  # the same path is written twice
            continue
        context.registry.warn(
            f"{context.config.where}: `{text}` of the component `{name}` matches nothing in the"
            " tree"
        )


def _resolved(tree: TreeIndex, pattern: bytes) -> bytes:
    """PATTERN below the root, the directories at its beginning resolved as they are in the tree
    (`lib/x` to `usr/lib/x`).
    """
    parts = [part for part in pattern.split(b"/") if part not in (b"", b".")]
    plain = next(
        (number for number, part in enumerate(parts) if _WILD.search(part)), max(len(parts) - 1, 0)
    )
    real = tree.real_directory(b"/".join(parts[:plain]))
    return (
        b"/".join(([real] if real else []) + parts[plain:])
        if real is not None
        else b"/".join(parts)
    )
