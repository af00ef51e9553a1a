"""The sub-commands `compare` and `show`: their exit status, and where what they find is printed."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from build_oci.cli.streams import say
from build_oci.errors import size_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from build_oci.compare.treemap import Maps

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def parse_size(text: str) -> int:
    """Bytes: a whole number with one of the units k, M, G (powers of 1000), KiB, MiB, GiB, or none.
    ValueError.
    """
    digits = len(text) - len(text.lstrip("0123456789"))
    unit = (
        text[digits:].removesuffix("B")
        if text[digits:] in ("B", "kB", "MB", "GB")
        else text[digits:]
    )
    if not text.isascii() or not 0 < digits < 16 or unit not in _UNITS:
        raise ValueError(text)
    return int(text[:digits]) * _UNITS[unit]


def compare(options: argparse.Namespace, check: Callable[[], None]) -> int:
    """0: equal, or with --max-download within the limit; 1: different, or above it.

    Raises BuildOciError, OSError, what CHECK raises.
    """
    from build_oci.compare.report import compare_layouts
    from build_oci.compare.text import report_lines, style_for, write_lines
    from build_oci.work.cpus import usable_cpus

    limit = options.max_download
    maps: Callable[[], Maps] | None = None
    if options.html:
        from build_oci.compare.treemap import Maps
        from build_oci.oci.output_files import check_writable, write_file

        check_writable(options.html, "--html")
        maps = Maps
    read = bool(options.html or options.json or not options.quiet)  # else the documents tell it all
    workers = options.workers or usable_cpus()
    report = compare_layouts(
        options.old, options.new, workers=workers, read=read, deep=read and options.deep, maps=maps
    )
    if options.html:
        from build_oci.compare.html import page

        write_file(options.html, page(report), "--html", check)
    if options.json:
        from build_oci.compare.document import report_document

        write_lines([json.dumps(report_document(report), indent=1)])
    elif not options.quiet:
        write_lines(report_lines(report, style_for(sys.stdout, most=None if options.all else 10)))
    if limit is None:
        return 0 if report.equal else 1
    if report.download > limit:
        say(
            f"build-oci: {size_text(report.download)} to download, more than the {size_text(limit)}"
            " of --max-download"
        )
        return 1
    return 0


def show(options: argparse.Namespace) -> int:
    """0. Raises BuildOciError, OSError."""
    from build_oci.compare.show import look, show_document, show_lines
    from build_oci.compare.text import style_for, write_lines
    from build_oci.work.cpus import usable_cpus

    images = look(
        options.layout,
        workers=options.workers or usable_cpus(),
        deep=options.deep,
        files=options.files,
    )
    if options.json:
        write_lines(
            [json.dumps(show_document(options.layout, images, files=options.files), indent=1)]
        )
    else:
        style = style_for(sys.stdout, most=None if options.all else 10)
        write_lines(show_lines(options.layout, images, style, files=options.files))
    return 0


def schema(name: str) -> dict[str, object]:
    """The JSON Schema that `--schema NAME` prints: NAME is `config`, `plan` or `compare`."""
    match name:
        case "compare":
            from build_oci.compare.document import report_schema

            return report_schema()
        case "plan":
            from build_oci.split.plan_file import plan_schema

            return plan_schema()
    from build_oci.config.schema import schema as config_schema

    return config_schema()
