"""`build-oci merge`: one index over the images of several layouts, each built on a machine of its
own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from build_oci.errors import ParentError, UsageError, printable
from build_oci.oci.archive import open_output
from build_oci.oci.archive_source import layout_path, open_source
from build_oci.oci.documents import to_json
from build_oci.oci.media_types import (
    INDEXES,
    MANIFESTS,
    MEDIA_TYPE_INDEX,
    MEDIA_TYPE_MANIFEST,
    REF_NAME_KEY,
    ZSTD_KEY,
)
from build_oci.oci.recorded import recorded_headers
from build_oci.oci.untrusted import (
    ANEW,
    ReadDescriptor,
    Source,
    parse_descriptor,
    parse_descriptors,
)
from build_oci.records import NamedTuple
from build_oci.work.cpus import usable_cpus
from build_oci.work.crew import Crew

if TYPE_CHECKING:
    from build_oci.oci.layout import Layout

_MOST_READERS = 8  # threads: beyond that, the file system is the limit
_PLATFORM = ("os", "architecture", "variant", "os.version", "os.features")
# Layers that their distributor keeps to himself may be missing.
_ELSEWHERE = ("nondistributable", "foreign")


class MergeResult(NamedTuple):
    """What came of a merge: images in the index, blobs and bytes carried.

    digest: what `index.json` names if that is one thing, else of `index.json` itself.
    """

    images: int
    blobs: int
    size: int
    digest: str


class _Entry(NamedTuple):
    """One descriptor of an index that is being merged."""

    source: Source
    where: str
    descriptor: ReadDescriptor
    kept: dict[str, Any]  # the descriptor as it goes into the new index


class _Blob(NamedTuple):
    source: Source
    descriptor: ReadDescriptor


def merge(
    layouts: Sequence[str],
    output: str | os.PathLike[str],
    *,
    workers: int | None = None,
    sync: bool = True,
    warn: Callable[[str], None] = lambda _: None,
    started: Callable[[Callable[[], None]], None] = lambda _: None,
) -> MergeResult:
    """Write one layout to OUTPUT that holds the images of all LAYOUTS, with every blob verified and
    carried as it is.

    Indexes that have the same `org.opencontainers.image.ref.name` become one. Two images of one
    platform under one name, or both without a name, are an error. STARTED is given the function
    that cancels, as `build` does.

    Raises UsageError, ParentError, OutputError, Cancelled; then OUTPUT is as it was before.
    """
    paths = [layout_path(text) for text in layouts]
    if os.path.realpath(layout_path(os.fspath(output))) in map(os.path.realpath, paths):
        raise UsageError(
            f"the output {printable(os.fspath(output))} is one of the layouts",
            where="merge",
            hint="write elsewhere with -o",
        )
    crew = Crew(usable_cpus() if workers is None else workers, 64 << 20)
    started(crew.cancel)
    with open_output(output, sync=sync) as layout, crew:
        merging = _Merging(layout, crew, warn)
        index = merging.index([open_source(path, crew.check) for path in paths])
        merging.carry()
        layout.commit(index, check=crew.check)
    return merging.result()


class _Merging:
    """The state of one merge."""

    def __init__(self, layout: Layout, crew: Crew, warn: Callable[[str], None]) -> None:
        self._layout = layout
        self._crew = crew
        self._warn = warn
        self._blobs: dict[str, _Blob] = {}
        self._images: dict[tuple[str, str], str] = {}  # (platform, name) -> where it was found
        self._count = 0
        self._digest = ""

    def index(self, sources: list[Source]) -> bytes:
        """The new index over the images of SOURCES."""
        annotations: dict[str, str] = {}
        entries: list[_Entry] = []
        for source in sources:
            where = str(source.path / "index.json")
            document = source.index()
            self._add_annotations(annotations, document, where)
            entries += self._entries(source, document, where)
        nested: dict[str, list[_Entry]] = {}
        manifests: list[dict[str, Any]] = []
        for entry in entries:
            name = entry.descriptor.annotations.get(REF_NAME_KEY, "")
            if not self._is_index(entry):
                self._take_image(entry, name)
                manifests.append(entry.kept)
            elif name in nested:
                nested[name].append(entry)
            elif name:
                nested[name] = [entry]
                # Its digest and size are put in when all of its name are known.
                manifests.append(entry.kept)
            else:
                self._take_index(entry, name)
                manifests.append(entry.kept)
        for name, parts in nested.items():
            self._join(name, parts)
        index = _index(manifests, annotations)
        self._digest = (
            manifests[0]["digest"]
            if len(manifests) == 1
            else f"sha256:{hashlib.sha256(index).hexdigest()}"
        )
        return index

    def carry(self) -> None:
        """Verify all blobs and let the layout have them."""
        self._crew.each(
            self._carry_blob,
            list(self._blobs.values()),
            at_once=min(self._crew.count, _MOST_READERS),
        )

    def result(self) -> MergeResult:
        size = sum(blob.descriptor.size for blob in self._blobs.values())
        return MergeResult(self._count, len(self._blobs), size, self._digest)

    def _carry_blob(self, blob: _Blob) -> None:
        with blob.source.blob(blob.descriptor) as verified:
            for _ in verified:
                self._crew.check()
            self._layout.carry(
                verified.part, verified.path, blob.descriptor.digest, self._crew.check
            )

    def _entries(self, source: Source, document: dict[str, Any], where: str) -> Iterator[_Entry]:
        descriptors = parse_descriptors(document, "manifests", where)
        for number, (descriptor, item) in enumerate(
            zip(descriptors, document["manifests"], strict=True)
        ):
            kept = {
                key: item[key]
                for key in (
                    "mediaType",
                    "artifactType",
                    "digest",
                    "size",
                    "platform",
                    "annotations",
                )
                if item.get(key)
            }
            yield _Entry(source, f"{where}: manifests[{number}]", descriptor, kept)

    def _is_index(self, entry: _Entry) -> bool:
        return entry.descriptor.media_type in INDEXES

    def _join(self, name: str, parts: list[_Entry]) -> None:
        """Make the indexes PARTS, all of this NAME, one, and let the first one's descriptor lead to
        it.
        """
        first = parts[0]
        if all(part.descriptor.digest == first.descriptor.digest for part in parts):
            self._take_index(first, name)
            return
        annotations: dict[str, str] = {}
        manifests: list[dict[str, Any]] = []
        for part in parts:
            document = part.source.document(part.descriptor)
            where = str(part.source.blob_path(part.descriptor.digest))
            self._add_annotations(annotations, document, where)
            for entry in self._entries(part.source, document, where):
                if self._is_index(entry):
                    raise ParentError(
                        "is an index within an index, and cannot be merged",
                        where=entry.where,
                        hint="leave this layout out",
                    )
                self._take_image(entry, name)
                manifests.append(entry.kept)
        written = self._layout.add_document(MEDIA_TYPE_INDEX, _index(manifests, annotations))
        first.kept.update(
            {"mediaType": MEDIA_TYPE_INDEX, "digest": written.digest, "size": written.size}
        )

    def _take_index(self, entry: _Entry, name: str) -> None:
        """Take an index with all that it leads to as it is."""
        waiting = [entry]
        while waiting:
            self._crew.check()
            entry = waiting.pop()
            known = entry.descriptor.digest in self._blobs
            self._add_blob(entry.source, entry.descriptor)
            if known:
                continue
            document = entry.source.document(entry.descriptor)
            for inner in self._entries(
                entry.source, document, str(entry.source.blob_path(entry.descriptor.digest))
            ):
                if self._is_index(inner):
                    waiting.append(inner)
                else:
                    self._take_image(inner, name)

    def _take_image(self, entry: _Entry, name: str) -> None:
        """Take the manifest ENTRY with its config and layers, and refuse it if its platform is
        there already.
        """
        self._crew.check()
        source = entry.source
        document = source.document(entry.descriptor)
        where = str(source.blob_path(entry.descriptor.digest))
        if (
            document.get("mediaType") or entry.descriptor.media_type or MEDIA_TYPE_MANIFEST
        ) not in MANIFESTS:
            raise ParentError(
                "is no manifest of an image", where=where, hint="leave this layout out"
            )
        config = parse_descriptor(document.get("config"), f"{where}: config")
        layers = parse_descriptors(document, "layers", where)
        platform = entry.descriptor.platform
        if not platform:
            said = source.document(config)
            platform = {key: said[key] for key in _PLATFORM if said.get(key)}
            if platform:
                entry.kept["platform"] = platform
        self._refuse_second(platform, name, entry)
        self._add_blob(source, entry.descriptor)
        self._add_blob(source, config)
        for layer in layers:
            if not (
                any(word in layer.media_type for word in _ELSEWHERE)
                and not source.has_blob(layer.digest)
            ):
                self._add_blob(source, layer)
            headers = recorded_headers(layer.annotations)
            if headers and source.has_blob(headers):
                size = source.blob_size(headers)
                self._add_blob(source, ReadDescriptor("", headers, size, {}, {}))
        self._count += 1

    def _refuse_second(self, platform: dict[str, Any], name: str, entry: _Entry) -> None:
        system, architecture = platform.get("os"), platform.get("architecture")
        if system in (None, "unknown") and architecture in (None, "unknown"):
            return  # an attestation or signature stored as an image manifest
        # The same image may be there with gzip and with zstd.
        zstd = entry.descriptor.annotations.get(ZSTD_KEY) == "true"
        key = (to_json([zstd, *(platform.get(part) for part in _PLATFORM)]).decode(), name)
        if key in self._images:
            text = f"{system}/{architecture}" + (
                f"/{platform['variant']}" if platform.get("variant") else ""
            )
            called = f" called “{name[:200]}”" if name else ""
            raise ParentError(
                f"is a second image for {text[:200]}{called}; the first one is {self._images[key]}",
                where=entry.where,
                hint=(
                    "leave one out, or give them different names: `ref-name` in their"
                    " configurations"
                ),
            )
        self._images[key] = entry.where

    def _add_blob(self, source: Source, descriptor: ReadDescriptor) -> None:
        former = self._blobs.setdefault(descriptor.digest, _Blob(source, descriptor))
        if former.descriptor.size != descriptor.size:
            where = str(source.blob_path(descriptor.digest))
            raise ParentError(
                f"has {descriptor.size} bytes here, {former.descriptor.size} elsewhere",
                where=where,
                hint="leave this layout out",
            )

    def _add_annotations(
        self, annotations: dict[str, str], document: dict[str, Any], where: str
    ) -> None:
        """Add the annotations of the index DOCUMENT; of two values the first one stays, with a
        warning.
        """
        more = document.get("annotations") or {}
        if not isinstance(more, dict) or not all(isinstance(value, str) for value in more.values()):
            raise ParentError("its annotations are no strings", where=where, hint=ANEW)
        for key, value in more.items():
            if annotations.setdefault(key, value) != value:
                self._warn(
                    f"{where}: the annotation “{key[:200]}” has another value than in the layouts"
                    " before, which stays"
                )


def _index(manifests: list[dict[str, Any]], annotations: dict[str, str]) -> bytes:
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MEDIA_TYPE_INDEX,
        "manifests": manifests,
    }
    return to_json(document | {"annotations": annotations} if annotations else document)
