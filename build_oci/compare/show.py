"""`build-oci show`: what a layout holds.

From its documents alone; with the archives read, also ratios, directories and files.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from typing import Any

from build_oci.compare.documents import components_of
from build_oci.compare.model import Entry, components_label
from build_oci.compare.read import MEMBERS_LIMIT, Image, Layer, Layers, images_of, parse_reference
from build_oci.compare.text import Style, fitted, padded
from build_oci.errors import ParentError, counted, printable, size_text
from build_oci.oci.media_types import CODECS
from build_oci.records import NamedTuple
from build_oci.version import __version__

SCHEMA_VERSION = 1
_MOST_DIRECTORIES = 1000
_DEPTH = 3
_NEW = 1


class Contents(NamedTuple):
    """What an image unpacks to. directories: bytes and entries of the largest ones. files: sorted,
    where they were asked for.
    """

    layers: list[Layer | None]
    size: int
    entries: int
    directories: list[tuple[bytes, int, int]]
    files: list[tuple[bytes, Entry]]


def look(
    reference: str, *, workers: int, deep: bool, files: bool
) -> list[tuple[Image, Contents | None]]:
    """The images that REFERENCE names; with what is in them if DEEP or FILES.

    Raises UsageError, ParentError, Cancelled.
    """
    with Layers(workers) as layers:
        images = images_of(parse_reference(reference), layers.check)
        return [
            (image, _contents(image, layers, files=files) if deep or files else None)
            for image in images
        ]


def _contents(image: Image, layers: Layers, *, files: bool) -> Contents:
    from build_oci._native.compare import Comparison

    readable = [layer if layers.can_read(layer) else None for layer in image.read.layers]
    layers.start(image.source, filter(None, readable))
    table = Comparison(
        memory_limit=MEMBERS_LIMIT, old_complete=True, new_complete=None not in readable
    )
    found: list[Layer | None] = []
    for number, descriptor in enumerate(readable):
        layer = layers.get(descriptor) if descriptor else None
        found.append(layer)
        if layer is not None:
            try:
                table.add(_NEW, number, layer.reader, layers.check)
            except ValueError as error:
                raise ParentError(str(error), where=str(image.source.path)) from None
    size = count = 0
    listed: list[tuple[bytes, Entry]] = []
    directories: dict[bytes, list[int]] = {}
    for path, _, _, _, new in table.differences(everything=True, check=layers.check):
        if new is None:
            continue
        entry = Entry(*new)
        size += entry.size
        count += 1
        if files:
            listed.append((path, entry))
        parts = path.split(b"/")[:-1][:_DEPTH]
        for depth in range(1, len(parts) + 1):
            tally = directories.setdefault(b"/".join(parts[:depth]), [0, 0])
            tally[0] += entry.size
            tally[1] += 1
    listed.sort(key=lambda item: item[0])
    largest = [(name, tally[0], tally[1]) for name, tally in directories.items()]
    largest.sort(key=lambda item: (-item[1], item[0]))
    return Contents(found, size, count, largest[:_MOST_DIRECTORIES], listed)


# ---- for people


def show_lines(
    name: str, images: list[tuple[Image, Contents | None]], style: Style, *, files: bool
) -> Iterator[str]:
    """What `show` prints of the layout NAME."""
    blobs = {layer.digest: layer.size for image, _ in images for layer in image.read.layers}
    yield (
        f"{style.paint(printable(name), 'bold')}  {counted(len(images), 'image')},"
        f" {size_text(sum(blobs.values()))} in layers"
    )
    for image, contents in images:
        yield ""
        yield from _image(image, contents, style)
        if files and contents is not None:
            yield ""
            for path, entry in contents.files:
                yield file_line(path, entry)


def _image(image: Image, contents: Contents | None, style: Style) -> Iterator[str]:
    name = f" ({image.ref_name})" if image.ref_name else ""
    yield style.paint(printable(f"@{image.number}  {image.platform}{name}")[:200], "bold")
    facts = [image.descriptor.digest]
    yield f"  {' '.join(facts)}"
    line = f"  {counted(len(image.read.layers), 'layer')}, {size_text(image.size)}"
    if contents is not None:
        line += f"; unpacked {counted(contents.entries, 'entry')}, {size_text(contents.size)}"
    created = image.read.config.get("created")
    yield line + (f"; created {printable(created)[:40]}" if isinstance(created, str) else "")
    components, _ = components_of(image.read.layers)
    if image.read.layers:
        yield ""
        heading = f"  {'#':>4} {'size':>12} {'ratio':>7} {'entries':>9}  {'codec':<10} components"
        yield style.paint(heading[: style.width], "dim")
    for number, layer in enumerate(image.read.layers):
        read = contents.layers[number] if contents else None
        ratio = f"{layer.size / read.size:.1%}" if read and read.size else "-"
        entries = f"{len(read.reader):,}" if read else "-"
        codec = CODECS.get(layer.media_type, "?")
        names = components[number]
        label = printable(
            ", ".join(names) if style.most is None or style.width > 150 else components_label(names)
        )
        row = (
            f"  {number:>4} {size_text(layer.size):>12} {ratio:>7} {entries:>9} "
            f" {'none' if codec == 'disabled' else codec:<10} "
        )
        yield (row + fitted(label, style.width - len(row))).rstrip()
    if contents is None:
        return
    tops = contents.directories[: style.most]
    if tops:
        yield ""
        yield style.paint("  Largest directories", "bold") + "  (not compressed)"
    for directory, size, count in tops:
        width = min(100, style.width - 32)
        yield (
            f"  {size_text(size):>12}  {padded(fitted(printable(directory) + '/', width), width)} "
            f" {counted(count, 'entry')}"
        )


def file_line(path: bytes, entry: Entry) -> str:
    """A line as `tar tv` has it, with what is not printable escaped."""
    size = (
        f"{os.major(entry.rdev)},{os.minor(entry.rdev)}"
        if stat.S_IFMT(entry.mode) in (stat.S_IFCHR, stat.S_IFBLK)
        else str(entry.size)
    )
    mode = ("h" if entry.hard_link else stat.filemode(entry.mode)[0]) + stat.filemode(entry.mode)[
        1:
    ]
    target = ""
    if entry.target is not None:
        target = (
            f" link to {printable(entry.target)}"
            if entry.hard_link
            else f" -> {printable(entry.target)}"
        )
    return (
        f"{mode} {entry.uid}/{entry.gid:<5} {size:>10} {_time(entry.mtime_ns)}"
        f" {printable(path) or '.'}{target}"
    )


def _time(mtime_ns: int) -> str:
    seconds = mtime_ns // 10**9
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s"


# ---- for programs


def show_document(
    name: str, images: list[tuple[Image, Contents | None]], *, files: bool
) -> dict[str, Any]:
    """What `show --json` prints; docs/compare.md describes it."""
    return {
        "schemaVersion": SCHEMA_VERSION,
        "version": __version__,
        "name": printable(name),
        "images": [_image_document(image, contents, files=files) for image, contents in images],
    }


def _image_document(image: Image, contents: Contents | None, *, files: bool) -> dict[str, Any]:
    components, _ = components_of(image.read.layers)
    found: dict[str, Any] = {
        "number": image.number,
        "digest": image.descriptor.digest,
        "platform": printable(image.platform),
        "refName": printable(image.ref_name),
        "size": image.size,
        "annotations": {
            printable(key): printable(value) for key, value in sorted(image.annotations.items())
        },
        "layers": [
            {
                "number": number,
                "digest": layer.digest,
                "diffId": diff_id,
                "mediaType": printable(layer.media_type),
                "size": layer.size,
                "archiveSize": read.size if read else None,
                "entries": len(read.reader) if read else None,
                "components": [printable(one) for one in components[number]],
            }
            for number, (layer, diff_id) in enumerate(
                zip(image.read.layers, image.read.diff_ids, strict=True)
            )
            for read in [contents.layers[number] if contents else None]
        ],
    }
    if contents is not None:
        found["unpackedSize"], found["entries"] = contents.size, contents.entries
        found["directories"] = [
            {"path": printable(path), "size": size, "entries": count}
            for path, size, count in contents.directories
        ]
    if files and contents is not None:
        found["files"] = [_file_document(path, entry) for path, entry in contents.files]
    return found


def _file_document(path: bytes, entry: Entry) -> dict[str, Any]:
    return {
        "path": printable(path),
        "mode": entry.mode,
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "mtime": entry.mtime_ns,
        "target": None if entry.target is None else printable(entry.target),
        "hardLink": entry.hard_link,
        "layer": entry.layer,
    }
