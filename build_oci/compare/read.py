"""Images opened by the names that users give them, and their layers read: everything as
untrusted as a parent image.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from build_oci.codec.table import decode, sniff_codec
from build_oci.errors import Cancelled, ParentError, UsageError
from build_oci.oci.archive_source import layout_path, open_source
from build_oci.oci.manifest import NESTING, ReadManifest, is_index, read_image
from build_oci.oci.media_types import CODECS, CONFIGS, INDEXES, MANIFESTS, REF_NAME_KEY
from build_oci.oci.untrusted import ReadDescriptor, Source, named, parse_descriptors
from build_oci.records import NamedTuple
from build_oci.work.crew import Crew

if TYPE_CHECKING:
    from build_oci._native.lower import TarReader
    from build_oci.work.pool import Task

# For the members of all layers that are held at once: some 5 million.
MEMBERS_LIMIT = 1 << 30
MOST_IMAGES = 1000  # of one layout
_MOST_READERS = 8  # threads: beyond that, the file system is the limit, and memory grows


class Reference(NamedTuple):
    """LAYOUT, LAYOUT@N or LAYOUT:REFNAME as a user gives it."""

    path: str
    number: int | None = None
    name: str | None = None


class Image(NamedTuple):
    """An image of a layout, and what its documents say. `annotations`: of the manifest."""

    source: Source
    number: int
    descriptor: ReadDescriptor
    ref_name: str
    annotations: dict[str, str]
    config_size: int
    config_digest: str
    read: ReadManifest

    @property
    def platform(self) -> str:
        config = self.read.config
        parts = [config.get(key) for key in ("os", "architecture", "variant")]
        return "/".join(str(part) for part in parts if isinstance(part, str) and part) or "unknown"

    @property
    def size(self) -> int:
        """Bytes of the layers' blobs."""
        return sum(layer.size for layer in self.read.layers)


def parse_reference(text: str) -> Reference:
    """What TEXT names.

    What exists under the whole name counts first. UsageError where nothing exists.
    """
    if not os.path.lexists(text):
        text = layout_path(text)
    if os.path.exists(text):
        return Reference(text)
    path, at, number = text.rpartition("@")
    if at and number.isascii() and number.isdecimal() and len(number) < 10 and os.path.exists(path):
        return Reference(path, number=int(number))
    for place, character in enumerate(text):
        if character == ":" and place and os.path.exists(text[:place]):
            return Reference(text[:place], name=text[place + 1 :])
    raise UsageError(
        "there is no such layout",
        where=text,
        hint=(
            "name a layout's directory or an oci-archive; LAYOUT@N or LAYOUT:REFNAME is one image"
            " of it"
        ),
    )


def images_of(reference: Reference, check: Callable[[], None]) -> list[Image]:
    """The images that REFERENCE names, in the order of the documents; artifacts and attestations
    are passed over. Never empty.

    Raises UsageError, ParentError, and what CHECK raises.
    """
    source = open_source(reference.path, check)
    where = str(source.path / "index.json")
    found = []
    for number, descriptor, name, document in _manifests(source, check):
        if reference.name is not None and reference.name != name:
            continue
        if reference.number is not None and reference.number != number:
            continue
        found.append(_image(source, number, descriptor, name, document))
    if found:
        return found
    if reference.name is not None:
        raise UsageError(
            f"has no image with the ref.name “{reference.name}”",
            where=where,
            hint="`build-oci show` lists the images",
        )
    if reference.number is not None:
        raise UsageError(
            f"has no image number {reference.number}",
            where=where,
            hint="`build-oci show` lists the images",
        )
    raise ParentError(
        "leads to no image",
        where=where,
        hint="its index names nothing, or artifacts alone; build or copy an image into this layout",
    )


def _manifests(
    source: Source, check: Callable[[], None]
) -> Iterator[tuple[int, ReadDescriptor, str, dict[str, Any]]]:
    """Every image, with its number, its ref.name (of an index around it, where it has none) and its
    manifest.
    """
    number = 0
    index = parse_descriptors(source.index(), "manifests", str(source.path / "index.json"))
    waiting = [(descriptor, "", 0) for descriptor in reversed(index)]
    seen = set()
    while waiting:
        check()
        descriptor, outer, depth = waiting.pop()
        name = descriptor.annotations.get(REF_NAME_KEY, outer)
        if depth > NESTING or (descriptor.digest, name) in seen:
            continue
        seen.add((descriptor.digest, name))
        if descriptor.media_type and descriptor.media_type not in (*INDEXES, *MANIFESTS):
            continue
        document = source.document(descriptor)
        if is_index(descriptor, document):
            nested = parse_descriptors(
                document, "manifests", str(source.blob_path(descriptor.digest))
            )
            waiting += [(inner, name, depth + 1) for inner in reversed(nested)]
        elif _is_image(descriptor, document):
            if number == MOST_IMAGES:
                raise ParentError(
                    f"leads to more images than {MOST_IMAGES}",
                    where=str(source.path / "index.json"),
                    hint="copy the image that is meant into a layout of its own, and name that",
                )
            yield number, descriptor, name, document
            number += 1


def _is_image(descriptor: ReadDescriptor, document: dict[str, Any]) -> bool:
    config = document.get("config")
    if descriptor.annotations.get(
        "vnd.docker.reference.type"
    ) == "attestation-manifest" or document.get("artifactType"):
        return False
    return not isinstance(config, dict) or config.get("mediaType") in CONFIGS


def _image(
    source: Source, number: int, descriptor: ReadDescriptor, name: str, document: dict[str, Any]
) -> Image:
    read = read_image(source, document, str(source.blob_path(descriptor.digest)))
    annotations = document.get("annotations")
    texts = (
        {key: value for key, value in annotations.items() if isinstance(value, str)}
        if isinstance(annotations, dict)
        else {}
    )
    return Image(
        source,
        number,
        descriptor,
        name,
        texts,
        document["config"]["size"],
        document["config"]["digest"],
        read,
    )


# ---- layers


class Layer(NamedTuple):
    """What comes of reading a layer. `size`: of the archive, in bytes."""

    reader: TarReader
    codec: str
    size: int


class Layers:
    """Reads layers, several at once, each once however many images have it."""

    def __init__(self, workers: int) -> None:
        """WORKERS: layers to read at once."""
        self._crew = Crew(min(workers, _MOST_READERS), 1 << 20)
        self._tasks: dict[str, Task[Layer]] = {}
        self._readers: list[TarReader] = []
        self._error: BaseException | None = None

    def __enter__(self) -> Layers:
        return self

    def __exit__(self, *error: Any) -> None:
        self._crew.__exit__(*error)

    def check(self) -> None:
        """Raise what stopped the reading, once something has."""
        try:
            self._crew.check()
        except Cancelled:
            if self._error is not None:
                raise self._error from None
            raise

    @staticmethod
    def can_read(layer: ReadDescriptor) -> bool:
        """Is this the archive of a layer?"""
        return layer.media_type in CODECS

    def start(self, source: Source, layers: Iterable[ReadDescriptor]) -> None:
        """Read LAYERS of SOURCE, the largest first."""
        for layer in sorted(layers, key=lambda one: -one.size):
            if layer.digest not in self._tasks:
                self._tasks[layer.digest] = self._crew.pool.submit(self._read, source, layer)

    def get(self, layer: ReadDescriptor) -> Layer:
        """A layer that has been started, once it is read.

        Raises the first error that any of them ran into: ParentError.
        """
        task = self._tasks[layer.digest]
        task.wait()
        self.check()
        return task.result()

    def _read(self, source: Source, layer: ReadDescriptor) -> Layer:
        try:
            return self._layer(source, layer)
        except BaseException as error:
            if not isinstance(error, Cancelled) and self._error is None:
                self._error = error
            self._crew.cancel()
            raise

    def _layer(self, source: Source, layer: ReadDescriptor) -> Layer:
        from build_oci._native.lower import TarReader

        # A record that an archive has of a file's digest is believed: `verify` holds it against the
        # file.
        reader = TarReader(memory_limit=MEMBERS_LIMIT, trust=True)
        self._readers.append(reader)
        size = 0
        with source.blob(layer) as blob, named(blob.path):
            pieces = iter(blob)
            start = next(pieces, b"")
            codec = sniff_codec(start)
            for piece in decode(
                codec, chain((start,), pieces) if start else (), self._crew.windows
            ):
                self._crew.check()
                reader.feed(piece)
                size += len(piece)
                if sum(other.held for other in self._readers) > MEMBERS_LIMIT:
                    raise ValueError(
                        "the members of the layers that are read need more than"
                        f" {MEMBERS_LIMIT >> 20} MiB of memory"
                    )
            reader.finish()
        return Layer(reader, codec, size)
