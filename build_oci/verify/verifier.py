"""Everything that an image layout says of itself, recomputed: for the layouts of any builder."""

from __future__ import annotations

import os
from collections.abc import Callable

from build_oci.errors import UsageError
from build_oci.oci.archive_source import layout_path, open_source
from build_oci.records import NamedTuple
from build_oci.verify.blobs import Blobs
from build_oci.verify.documents import Documents
from build_oci.verify.findings import Findings
from build_oci.verify.layers import Layers
from build_oci.work.crew import Crew

_MOST_READERS = 8  # threads: beyond that, the file system is the limit, and memory grows


class Verified(NamedTuple):
    """What was looked at, and how many mismatches and warnings there are.

    size: bytes of the blobs that are no layers and of the layers' archives.
    """

    mismatches: int
    images: int
    layers: int
    entries: int
    size: int
    warnings: int = 0


def verify(
    path: str,
    *,
    workers: int,
    problem: Callable[[str], None],
    note: Callable[[str], None],
    warning: Callable[[str], None] | None = None,
    bootc: bool = False,
) -> Verified:
    """Look at everything in the layout PATH, a directory or an archive.

    UsageError where there is none, ParentError where an archive cannot be read.

    workers: layers that are read at once.
    problem, note: called with a line `WHERE: WHAT` for what is wrong, and for what is odd but
    allowed.
    bootc: look for what keeps an image from booting with bootc, too; what it should not have for
    that is a line for `warning`.
    """
    path = layout_path(path)
    if not os.path.exists(path):
        raise UsageError(
            "does not exist", where=path, hint="name the directory that holds index.json"
        )
    findings = Findings(problem, note, warning or note)
    with Crew(min(workers, _MOST_READERS), 1 << 20) as crew:
        source = open_source(path, crew.check)
        if not source.is_there():
            raise UsageError(
                "there is no OCI layout here: index.json is missing",
                where=path,
                hint="name one: build-oci verify LAYOUT",
            )
        blobs = Blobs(source, findings, crew.check)
        documents = Documents(source, blobs, findings)
        documents.layout_file()
        layers = Layers(source, blobs, findings, crew, bootc=bootc)
        layers.look_at(documents.read())
        blobs.unreferenced()
    return Verified(
        findings.mismatches,
        documents.images,
        layers.count,
        layers.entries,
        blobs.size + layers.size,
        findings.warnings,
    )
