"""A report for people: lines of a terminal, from 60 columns up.

Foreign text is escaped; colour only where it is asked for.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from shutil import get_terminal_size
from typing import Any, TextIO
from unicodedata import combining, east_asian_width

from build_oci.compare.model import (
    Comparison,
    Difference,
    Field,
    LayerView,
    Report,
    Side,
    Tally,
    What,
)
from build_oci.compare.why import grouped, phrase, words_of
from build_oci.errors import counted, printable, size_text

_NARROWEST, _WIDEST = 60, 200
_SIGNS = {
    What.ADDED: "+",
    What.REMOVED: "-",
    What.CHANGED: "~",
    What.MOVED_IN: ">",
    What.MOVED_OUT: "<",
    What.SAME: " ",
}
_COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_SIGN_COLOURS = {
    What.ADDED: "green",
    What.REMOVED: "red",
    What.CHANGED: "yellow",
    What.MOVED_IN: "cyan",
    What.MOVED_OUT: "cyan",
}


class Style:
    """How wide lines may be, and whether in colour.

    `most`: lines of one list, None for all of them.
    """

    def __init__(self, width: int, *, colour: bool, most: int | None = 10) -> None:
        self.width = max(_NARROWEST, min(width, _WIDEST))
        self._colour = colour
        self.most = most

    def paint(self, text: str, colour: str) -> str:
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self._colour and text else text


def style_for(
    stream: TextIO | None, environment: Mapping[str, str] = os.environ, *, most: int | None = 10
) -> Style:
    """Colour on a terminal alone, and never with NO_COLOR set; as wide as the terminal, or COLUMNS,
    or 80 columns.
    """
    terminal = stream is not None and stream.isatty()
    colour = terminal and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
    width = get_terminal_size((80, 24)).columns if terminal or environment.get("COLUMNS") else 80
    return Style(width, colour=colour, most=most)


def cells(text: str) -> int:
    """Columns that TEXT, which is printable, takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(one) else 2 if east_asian_width(one) in "WF" else 1 for one in text)


def fitted(text: str, width: int) -> str:
    """TEXT in at most WIDTH columns: what is too long loses its middle."""
    if cells(text) <= width:
        return text
    left = max(1, (width - 1) // 3)
    start, end = "", ""
    for character in text:
        if cells(start + character) > left:
            break
        start += character
    for character in reversed(text):
        if cells(start + character + end) > width - 1:
            break
        end = character + end
    return f"{start}…{end}"


def cut(text: str, width: int) -> str:
    """TEXT in at most WIDTH columns: what is too long loses its end."""
    if cells(text) <= width:
        return text
    while cells(text) > width - 1:
        text = text[: max(1, min(len(text) - 1, width))]
    return text + "…"


def padded(text: str, width: int) -> str:
    return text + " " * (width - cells(text))


def report_lines(report: Report, style: Style) -> Iterator[str]:
    """REPORT, line by line."""
    for number, comparison in enumerate(report.comparisons):
        if number:
            yield ""
        yield from _comparison(comparison, style)
    for sides, word in (
        (report.only_old, "only in the old layout"),
        (report.only_new, "only in the new layout"),
    ):
        for side in sides:
            yield ""
            yield (
                f"{style.paint(_platform(side), 'bold')}  {word}:"
                f" {counted(len(side.layers), 'layer')}, {size_text(side.size)}"
            )


def _comparison(one: Comparison, style: Style) -> Iterator[str]:
    platform = _platform(one.new)
    if one.equal:
        yield f"{style.paint(platform, 'bold')}  {style.paint('equal', 'green')}: {one.new.digest}"
        return
    yield style.paint(platform, "bold")
    for word, side in (("old", one.old), ("new", one.new)):
        facts = f"{counted(len(side.layers), 'layer')}, {size_text(side.size)}"
        name = fitted(printable(side.name), style.width - 32 - len(facts))
        yield f"  {word}  {side.digest[:19]}  {facts}  {name}"
    yield ""
    yield from _totals(one, style)
    yield from _causes(one, style)
    yield from _layers(one, style)
    if one.changed_components:
        yield from _changed_components(one.changed_components, style)
    yield from _tallies(
        "By component",
        [(printable(name) or "(no component)", tally) for name, tally in one.components],
        style,
    )
    yield from _tallies(
        "By directory",
        [(printable(name) + "/", tally) for name, tally in _shown_directories(one, style)],
        style,
    )
    yield from _entries(one, style)
    yield from _fields("Config", one.config, style)
    yield from _fields("Annotations", one.annotations, style)


def _platform(side: Side) -> str:
    return printable(f"{side.platform} ({side.ref_name})" if side.ref_name else side.platform)[:200]


def _totals(one: Comparison, style: Style) -> Iterator[str]:
    download, size = one.download, one.new.size
    share = f" ({download.size / size:.1%} of the image)" if size else ""
    yield f"  Download  {style.paint(size_text(download.size), 'bold')}{share}"
    yield (
        f"            layers {size_text(download.layers)}, config {size_text(download.config)},"
        f" manifest {size_text(download.manifest)}"
    )
    if download.partial_size is not None:
        yield (
            f"            {style.paint(size_text(download.partial_size), 'bold')} by partial pulls"
            " (zstd:chunked)"
        )
    shared = sum(layer.shared for layer in one.new.layers)
    gone = sum(not layer.shared for layer in one.old.layers)
    yield f"  Layers    {shared} shared, {len(one.new.layers) - shared} new, {gone} gone"
    unchanged = sum(layer.unchanged or 0 for layer in one.new.layers)
    if unchanged:
        yield f"            about {size_text(unchanged)} in the new ones is as before"
    unclaimed = sum(layer.size for layer in one.new.layers if layer.unclaimed)
    if unclaimed:
        yield f"  Unclaimed {size_text(unclaimed)} in layers of files that no component owns"
    tally = one.tally
    line = [
        style.paint(f"{tally.counts[what]:,} {word}", _SIGN_COLOURS[what])
        for what, word in (
            (What.ADDED, "added"),
            (What.REMOVED, "removed"),
            (What.CHANGED, "changed"),
        )
        if tally.counts[what]
    ]
    metadata = f" ({tally.metadata_only:,} in metadata only)" if tally.metadata_only else ""
    yield f"  Entries   {', '.join(line) or 'none differs'}{metadata}"
    if not one.complete and tally.total:
        yield style.paint(
            "            as the layers tell that are not shared; --deep reads the shared ones, too",
            "dim",
        )


def _heading(text: str, style: Style, note: str = "") -> Iterator[str]:
    yield ""
    yield style.paint(text, "bold") + (f"  {note}" if note else "")


def _more(hidden: int, style: Style) -> Iterator[str]:
    if hidden > 0:
        yield style.paint(f"  … and {hidden:,} more; --all lists them", "dim")


def _causes(one: Comparison, style: Style) -> Iterator[str]:
    # One that stands for a group of layers by itself is told there.
    alone = {
        layer.why.paths
        for layer in one.new.layers
        if layer.why and layer.why.metadata_only and len(layer.why.paths) == 1
    }
    causes = [cause for cause in one.causes if ((cause.path, cause.differs),) not in alone]
    if not causes:
        return
    yield from _heading("New for metadata alone", style, "(bytes of the layers)")
    shown = causes[: style.most]
    for cause in shown:
        what = f"{words_of(cause.differs)}, {counted(cause.layers, 'layer')}"
        yield _row(size_text(cause.size), printable(cause.path) or "/", what, style, "yellow")
    yield from _more(len(causes) - len(shown), style)


def _row(size: str, name: str, remark: str, style: Style, colour: str, indent: int = 2) -> str:
    """`   31.2 MB  usr/lib/libc.so.6   content`: the name in what the others leave."""
    remark = fitted(remark, style.width // 2 - 6)
    width = min(style.width - indent - 12 - 2 - 2 - max(cells(remark), 8), 100)
    return (
        f"{' ' * indent}{size:>12}  {padded(fitted(name, width), width)} "
        f" {style.paint(remark, colour)}".rstrip()
    )


def _layers(one: Comparison, style: Style) -> Iterator[str]:
    groups = grouped(one.new.layers)
    if not groups:
        return
    yield from _heading("Why layers are new", style, "(bytes to download)")
    old = {layer.number: layer for layer in one.old.layers}
    for group in groups[: style.most]:
        first = group[0]
        assert first.why is not None
        counterpart = old.get(first.why.counterpart) if first.why.counterpart is not None else None
        yield (
            f"  {size_text(sum(layer.size for layer in group)):>12} "
            f" {style.paint(cut(_names(group), style.width - 16), 'bold')}"
        )
        text = phrase(first.why, (_codec(counterpart), _codec(first)))
        unchanged = first.unchanged or 0
        if len(group) == 1 and not first.why.metadata_only and unchanged * 10 >= first.size:
            text += f"; {size_text(unchanged)} of it as before"
        yield from (f"{'':16}{line}" for line in _wrapped(text, style.width - 16))
        entries = (
            first.why.entries if first.why.kind == "entries" and len(first.why.paths) != 1 else ()
        )
        most = (3 if style.width < 120 else 5) if style.most is not None else len(entries)
        for entry in entries[:most]:
            yield _entry(entry, style, 6)
        total = sum(first.why.counts.values()) if entries else 0
        if total > most:
            yield style.paint(f"{'':16}… and {total - most:,} more", "dim")
    yield from _more(len(groups) - len(groups[: style.most]), style)


def _names(group: list[LayerView]) -> str:
    """`#3 glibc`, or `23 layers: #0 kernel, #1 coreutils, #25`."""
    names = [
        f"#{layer.number}" + (f" {printable(layer.label)}" if layer.label else "")
        for layer in group[:100]
    ]
    return names[0] if len(group) == 1 else f"{counted(len(group), 'layer')}: {', '.join(names)}"


def _codec(layer: LayerView | None) -> str:
    if layer is None:
        return ""
    from build_oci.oci.media_types import CODECS

    return {"disabled": "not compressed"}.get(
        codec := layer.codec or CODECS.get(layer.media_type, ""), codec
    )


def _wrapped(text: str, width: int) -> list[str]:
    from textwrap import wrap

    return wrap(text, width, break_on_hyphens=False) or [""]


def _entry(entry: Difference, style: Style, indent: int = 2) -> str:
    what = (
        ", ".join(entry.words)
        if entry.what == What.CHANGED
        else entry.what.name.lower().replace("_", " ")
    )
    name = f"{_SIGNS[entry.what]} {printable(entry.path) or '/'}"
    return _row(
        size_text(entry.cost) if entry.cost else "",
        name,
        what,
        style,
        _SIGN_COLOURS.get(entry.what, "dim"),
        indent,
    )


def _changed_components(
    names: tuple[list[str], list[str], list[str]], style: Style
) -> Iterator[str]:
    if not any(names):
        return
    yield from _heading("Components", style)
    for word, what, of in (
        ("added", What.ADDED, names[0]),
        ("removed", What.REMOVED, names[1]),
        ("changed", What.CHANGED, names[2]),
    ):
        if of:
            most = len(of) if style.most is None else 2 * style.most
            shown = [fitted(printable(name), style.width - 20) for name in of[:most]]
            text = ", ".join(shown) + (f", … {len(of) - most} more" if len(of) > most else "")
            lines = _wrapped(text, style.width - 18)
            yield f"  {style.paint(f'{len(of):>5} {word:<8}', _SIGN_COLOURS[what])}  {lines[0]}"
            yield from (f"                  {line}" for line in lines[1:])


def _shown_directories(one: Comparison, style: Style) -> list[tuple[bytes, Tally]]:
    """Those that say more than the directories in them: a directory with a single child that has
    all of it is left out.
    """
    if style.most is None:
        return one.directories
    tallies = dict(one.directories)
    covered = {
        name.rpartition(b"/")[0]
        for name, tally in tallies.items()
        if b"/" in name
        and (parent := tallies.get(name.rpartition(b"/")[0]))
        and parent.total == tally.total
    }
    return [(name, tally) for name, tally in one.directories if name not in covered]


def _tallies(heading: str, tallies: list[tuple[str, Tally]], style: Style) -> Iterator[str]:
    if not tallies:
        return
    yield from _heading(heading, style, "(bytes of contents, not compressed)")
    shown = tallies[: style.most]
    for name, tally in shown:
        counts = "  ".join(
            f"{_SIGNS[what]}{tally.counts[what]:,}"
            for what in (What.ADDED, What.REMOVED, What.CHANGED)
            if tally.counts[what]
        )
        yield _row(size_text(tally.size), name, counts, style, "dim")
    yield from _more(len(tallies) - len(shown), style)


def _entries(one: Comparison, style: Style) -> Iterator[str]:
    if not one.entries:
        return
    yield from _heading("Entries that differ", style, "(about the bytes to download)")
    shown = one.entries[: style.most]
    for entry in shown:
        yield _entry(entry, style)
    yield from _more(one.tally.total - len(shown), style)


def _fields(heading: str, fields: list[Field], style: Style) -> Iterator[str]:
    if not fields:
        return
    yield from _heading(heading, style)
    history = [field for field in fields if field.key.startswith("history[")]
    if style.most is not None and len(history) > 1:
        # Each names the components of a layer, which stand above.
        fields = [field for field in fields if field not in history]
    else:
        history = []
    keys = [printable(field.key) for field in fields] + (["history"] if history else [])
    width = min(style.width // 3, max(map(cells, keys)))
    value_width = (style.width - width - 8) // 2
    shown = fields[: style.most if style.most is None else 2 * style.most]
    for field in shown:
        old, new = (fitted(_value(value), value_width) for value in (field.old, field.new))
        values = f"{style.paint(old, 'red')} -> {style.paint(new, 'green')}"
        yield f"  {padded(fitted(printable(field.key), width), width)}  {values}"
    if history:
        yield f"  {padded('history', width)}  {counted(len(history), 'entry')} differ"
    yield from _more(len(fields) - len(shown), style)


def _value(value: Any) -> str:
    if value is None:
        return "(none)"
    return printable(
        value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))[:2000]
    )


def write_lines(lines: Iterable[str], stream: TextIO | None = None) -> None:
    """LINES to standard output.

    Who stops reading is no error; what else goes wrong is an OSError.
    """
    stream = stream or sys.stdout
    if stream is None:
        return
    try:
        for line in lines:
            stream.write(
                line.encode(stream.encoding or "utf-8", "backslashreplace").decode(
                    stream.encoding or "utf-8"
                )
                + "\n"
            )
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), stream.fileno())
