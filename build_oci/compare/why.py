"""Why a layer is new: the smallest explanation, in values and in words."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from build_oci.compare.model import (
    CONTENTS,
    WORDS,
    Cause,
    Costliest,
    Difference,
    Differs,
    Entry,
    LayerView,
    RawEntry,
    What,
    Why,
)
from build_oci.errors import counted, printable

if TYPE_CHECKING:
    from build_oci._native.compare import Comparison

_MOST_NAMED = 100  # entries of one layer
_MOST_CAUSES = 100
HEADER = 512  # bytes: what an entry takes of an archive besides its content


def explain(
    table: Comparison,
    layer: int,
    *,
    ratio: float,
    recompressed: dict[int, int],
    check: Callable[[], None],
) -> Why:
    """Why the new image's layer number LAYER is new, from the TABLE in which both images stand.

    ratio: size of its blob by that of its archive.
    recompressed: by layer, the old layer that is the same archive.
    """
    if layer in recompressed:
        return Why("recompressed", recompressed[layer])
    counterpart = table.counterpart(layer)
    # A directory stands in every layer that has something in it: that it came or went with an entry
    # explains nothing, unless there is nothing else.
    return (
        _explained(table, layer, counterpart, ratio, False, check)
        or _explained(table, layer, counterpart, ratio, True, check)
        or (
            Why("headers" if table.same_order() else "order", counterpart)
            if counterpart is not None
            else Why("added")
        )
    )


def _explained(
    table: Comparison,
    layer: int,
    counterpart: int | None,
    ratio: float,
    moved_directories: bool,
    check: Callable[[], None],
) -> Why | None:
    """Why LAYER is new, by its entries; None if none differs.

    MOVED_DIRECTORIES: name those, too, that came from or went to other layers as they are.
    """
    counts: Counter[tuple[What, Differs]] = Counter()
    largest = Costliest(_MOST_NAMED)
    paths: list[tuple[bytes, Differs]] = []
    cost = 0
    for path, what, bits, old, new in table.layer_differences(layer, counterpart, check=check):
        difference = made(path, what, bits, old, new, ratio)
        if not moved_directories and _moved_directory(difference):
            continue
        counts[difference.what, difference.differs] += 1
        cost += difference.cost
        if len(paths) <= _MOST_NAMED:
            paths.append((path, difference.differs))
        largest.add(difference)
    entries = largest.sorted()
    if not counts:
        return None
    if counterpart is None and all(what == What.ADDED for what, _ in counts):
        return Why("added", None, dict(counts), tuple(entries))
    metadata_only = all(what == What.CHANGED and not differs & CONTENTS for what, differs in counts)
    few = tuple(sorted(paths)) if len(paths) <= _MOST_NAMED else ()
    return Why("entries", counterpart, dict(counts), tuple(entries), metadata_only, few, cost)


def _moved_directory(difference: Difference) -> bool:
    entry = difference.new or difference.old
    return (
        difference.what in (What.MOVED_IN, What.MOVED_OUT)
        and entry is not None
        and stat.S_ISDIR(entry.mode)
    )


def made(
    path: bytes, what: int, bits: int, old: RawEntry | None, new: RawEntry | None, ratio: float
) -> Difference:
    """The value for a line of the native table."""
    old_entry, new_entry = Entry(*old) if old else None, Entry(*new) if new else None
    cost = 0
    if what not in (What.REMOVED, What.MOVED_OUT) and new_entry is not None:
        content = what != What.CHANGED or bits & Differs.CONTENT or bits & Differs.TYPE
        cost = round((HEADER + (new_entry.size if content else 0)) * ratio)
    return Difference(path, What(what), Differs(bits), old_entry, new_entry, cost)


def causes(layers: list[LayerView]) -> list[Cause]:
    """The entries whose metadata alone made layers new, those that cost most first."""
    found: dict[tuple[bytes, Differs], list[int]] = {}
    for layer in layers:
        if layer.why is not None and layer.why.metadata_only:
            for key in layer.why.paths:
                found.setdefault(key, []).append(layer.size)
    all_of_them = [
        Cause(path, differs, len(sizes), sum(sizes)) for (path, differs), sizes in found.items()
    ]
    return sorted(all_of_them, key=lambda cause: (-cause.size, cause.path))[:_MOST_CAUSES]


def grouped(layers: list[LayerView]) -> list[list[LayerView]]:
    """The new ones of LAYERS, those with the same explanation together: what costs most first, and
    in a group the largest.
    """
    groups: dict[object, list[LayerView]] = {}
    for layer in layers:
        if layer.shared or layer.why is None:
            continue
        why = layer.why
        alike = why.metadata_only and why.paths
        key = (
            (why.kind, why.paths)
            if alike
            else why.kind
            if why.kind in ("recompressed", "order", "headers")
            else (layer.number,)
        )
        groups.setdefault(key, []).append(layer)
    for group in groups.values():
        group.sort(key=lambda layer: (-layer.size, layer.number))
    return sorted(
        groups.values(), key=lambda group: (-sum(layer.size for layer in group), group[0].number)
    )


def words_of(differs: Differs) -> str:
    """`mode and time`."""
    return " and ".join(word for flag, word in WORDS.items() if flag in differs)


def phrase(why: Why, codecs: tuple[str, str] = ("", "")) -> str:
    """The explanation in words. CODECS: of the counterpart and of the layer."""
    match why.kind:
        case "recompressed":
            way = f" ({codecs[0]} -> {codecs[1]})" if all(codecs) and codecs[0] != codecs[1] else ""
            return f"the same archive, compressed otherwise{way}"
        case "order":
            return "the same entries, in another order"
        case "headers":
            return "the same entries, written otherwise by the builder"
        case "unread":
            return "a layer of a type that cannot be read"
        case "added":
            count = sum(why.counts.values())
            return f"new: {counted(count, 'entry')}" if count else "new: an empty archive"
    parts = []
    contents = sum(
        count
        for (what, differs), count in why.counts.items()
        if what == What.CHANGED and differs & CONTENTS
    )
    if contents:
        parts.append(counted(contents, "content"))
    for what, word in ((What.ADDED, "added"), (What.REMOVED, "removed")):
        count = sum(count for (one, _), count in why.counts.items() if one == what)
        if count:
            parts.append(f"{count:,} {word}")
    metadata: Counter[str] = Counter()
    for (what, differs), count in why.counts.items():
        if what == What.CHANGED and not differs & CONTENTS:
            metadata[words_of(differs)] += count
    for word, count in sorted(metadata.items(), key=lambda item: (-item[1], item[0])):
        parts.append(f"{word} of {counted(count, 'entry')}")
    text = ", ".join(parts)
    if why.metadata_only:
        (path, differs), *others = why.paths or ((b"", Differs(0)),)
        text = (
            f"only the {text}"
            if others or not differs
            else f"only the {words_of(differs)} of {printable(path) or '/'}"
        )
    moves = []
    for what, word in ((What.MOVED_IN, "came from"), (What.MOVED_OUT, "went to")):
        count = sum(count for (one, _), count in why.counts.items() if one == what)
        if count:
            moves.append(f"{count:,} {word} other layers")
    return ", ".join(filter(None, [text, *moves]))
