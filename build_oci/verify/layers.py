"""The layers of the images: their blobs, their archives, and what their names mean on top of each
other.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from build_oci.codec import zstd
from build_oci.codec.chunked.container import chunked_annotations
from build_oci.codec.table import decode, sniff_codec
from build_oci.errors import ParentError
from build_oci.oci.headers import PIECE, header_list
from build_oci.oci.media_types import CODECS
from build_oci.oci.recorded import HEADERS, RECIPE, recorded_headers, recorded_recipe
from build_oci.oci.untrusted import ENTRY_COST, LAYER_COST, ReadDescriptor, Source
from build_oci.verify.blobs import Blobs
from build_oci.verify.bootc import BootImage
from build_oci.verify.documents import CheckedImage
from build_oci.verify.findings import Findings, shown
from build_oci.verify.names import Tree, members
from build_oci.work.crew import Crew

if TYPE_CHECKING:
    from build_oci._native.lower import TarReader
    from build_oci.work.pool import Task

# For the members of all archives that are held at once, beside 400 bytes for each: hostile ones may
# have attributes and long names.
_MEMBERS_SLACK = 64 << 20
_ARCHIVE_LIMIT = 1 << 30  # of one archive: 2.5 million members
# Of those that have been looked at, for other images that have the same layers.
_MEMBERS_KEPT = 128 << 20


class Archive:
    """What comes of reading one layer; `reader` is None where the archive was refused, which is one
    of `problems`.
    """

    def __init__(self, algorithm: str, *, recipe: bool = False) -> None:
        """ALGORITHM: of the diff_id. RECIPE: is that of the archive wanted, too?"""
        from build_oci._native.lower import TarReader

        self.done: Task[None]
        self.users = 0  # that still wait for it
        self.reader: TarReader | None = TarReader(memory_limit=_ARCHIVE_LIMIT, recipe=recipe)
        self.codec = ""
        self.diff_id = ""  # empty where the stream does not come to its end
        self.ended = False  # by end-of-archive blocks
        self.size = 0
        self.problems: list[str] = []
        self.headers_problem = ""  # of the header list
        # Bytes of memory and members, as they are in the sums over all archives.
        self.counted = (0, 0)
        self._algorithm = algorithm
        self._content = hashlib.new(algorithm)
        self._tail = b""

    def feed(self, piece: bytes | memoryview) -> None:
        """The next bytes of the archive."""
        self._content.update(piece)
        self.size += len(piece)
        self._tail = (self._tail + bytes(piece[-1024:]))[-1024:]
        if self.reader is not None:
            try:
                self.reader.feed(piece)
            except ValueError as error:
                self.refuse(str(error))

    def finish(self) -> None:
        """There are no more bytes. ValueError where there should be."""
        self.diff_id = f"{self._algorithm}:{self._content.hexdigest()}"
        self.ended = len(self._tail) == 1024 and not self._tail.strip(b"\0")
        if self.reader is not None:
            self.reader.finish()

    def refuse(self, what: str) -> None:
        """Nothing is said of the names in it; its digest may still be right."""
        self.reader = None
        self.problems.append(what)

    def damaged(self, what: str) -> None:
        """The blob is not what its digest says: what it holds is nobody's word."""
        self.reader, self.codec, self.diff_id, self.problems = None, "", "", [what]


class Layers:
    """Reads the layers of images, several at once.

    `count`, `entries` and `size` (bytes of archives) are those of different layers.
    """

    def __init__(
        self, source: Source, blobs: Blobs, findings: Findings, crew: Crew, *, bootc: bool
    ) -> None:
        """BOOTC: look at what keeps an image from booting, too."""
        self.count = self.entries = self.size = 0
        self._source = source
        self._blobs = blobs
        self._findings = findings
        self._crew = crew
        self._bootc = bootc
        self._archives: dict[tuple[str, ...], Archive] = {}
        self._counted: set[str] = set()
        self._lock = threading.Lock()
        self._held = self._members = (
            0  # of all archives: summing up thousands of them for each piece would take minutes
        )

    def look_at(self, images: Iterable[CheckedImage]) -> None:
        """Look at the layers of IMAGES, each on top of those below."""
        tree = Tree()
        boot = BootImage(tree, self._crew.check)
        for image, number, archive in self._read_ahead(images):
            if number == 0:
                tree = Tree()
                boot = BootImage(tree, self._crew.check)
            layer = image.layers[number]
            if layer is None or archive is None:
                tree.incomplete = True
            else:
                self._layer(image, number, layer, archive, tree, boot)
            if self._bootc and number == len(image.layers) - 1:
                for finding in boot.image(image.labels, image.diff_ids):
                    self._findings.tell_boot(image.where, finding)
            self._forget()

    def _layer(
        self,
        image: CheckedImage,
        number: int,
        layer: ReadDescriptor,
        archive: Archive,
        tree: Tree,
        boot: BootImage,
    ) -> None:
        """Look at the layer NUMBER of IMAGE, and put it on top of TREE."""
        path = self._source.blob_path(layer.digest)
        archive.done.result()
        archive.users -= 1
        if layer.digest not in self._counted:
            self._counted.add(layer.digest)
            self.count += 1
            self.size += archive.size
            self.entries += len(archive.reader) if archive.reader else 0
        self._archive(layer, archive, path)
        if archive.headers_problem and (headers := recorded_headers(layer.annotations)):
            self._findings.problem(self._source.blob_path(headers), archive.headers_problem)
        if (diff_id := image.diff_ids[number]) and archive.diff_id and archive.diff_id != diff_id:
            where = f"{image.where}: rootfs.diff_ids[{number}]"
            self._findings.problem(
                path, f"its archive has the digest {archive.diff_id}, but {where} says {diff_id}"
            )
        if archive.reader is None:
            tree.incomplete = True
        else:
            if self._bootc:
                chunked = bool(chunked_annotations(layer.annotations))
                for finding in boot.layer(members(archive.reader), chunked=chunked):
                    self._findings.tell_boot(path, finding)
            for finding in tree.apply(archive.reader, self._crew.check):
                self._findings.tell(path, finding)

    def _archive(self, layer: ReadDescriptor, archive: Archive, path: Path) -> None:
        """What is wrong with the blob of LAYER and its archive alone."""
        codec = CODECS[layer.media_type]
        if archive.codec and archive.codec != codec:
            content = (
                "is not compressed"
                if archive.codec == "disabled"
                else f"is compressed with {archive.codec}"
            )
            self._findings.problem(path, f"{content}, but its media type is {layer.media_type}")
        for problem in archive.problems:
            # A codec that differs is said above already.
            if not (archive.codec == "disabled" != codec and problem.startswith("at byte 0:")):
                self._findings.problem(path, problem)
        if archive.reader is not None and not archive.ended:
            self._findings.note(path, "has no end-of-archive blocks")

    def _read_ahead(
        self, images: Iterable[CheckedImage]
    ) -> Iterator[tuple[CheckedImage, int, Archive | None]]:
        """The layers of all images, each with what comes of reading it; the readers are kept busy
        with the next ones.
        """
        waiting: deque[tuple[CheckedImage, int, Archive | None]] = deque()
        for image in images:
            for number, layer in enumerate(image.layers):
                waiting.append(
                    (image, number, self._reading(layer, image.diff_ids[number]) if layer else None)
                )
                if len(waiting) > self._crew.count:
                    yield waiting.popleft()
        yield from waiting

    def _reading(self, layer: ReadDescriptor, diff_id: str | None) -> Archive | None:
        """LAYER as it is being read by a thread; None where there is nothing that can be read as an
        archive.
        """
        path = self._source.blob_path(layer.digest)
        if headers := recorded_headers(layer.annotations):
            self._blobs.refer_to(headers)
        if layer.media_type not in CODECS:
            if layer.media_type.endswith("+encrypted"):
                self._findings.note(path, "is encrypted")
            else:
                self._findings.problem(
                    path, f"{shown(layer.media_type)} is no media type of a layer"
                )
            self._blobs.is_right(layer)
            return None
        if (
            "nondistributable" in layer.media_type or "foreign" in layer.media_type
        ) and self._blobs.is_missing(layer.digest):
            self._findings.note(path, "is missing, as layers that may not be distributed are")
            return None
        fitted = self._blobs.fitted(layer)
        if fitted is None:
            return None
        algorithm = diff_id.partition(":")[0] if diff_id else "sha256"
        key = (
            layer.digest,
            algorithm,
            *sorted(
                f"{name}={value}" for name, value in chunked_annotations(layer.annotations).items()
            ),
            layer.annotations.get(RECIPE, ""),
            layer.annotations.get(HEADERS, ""),
        )
        archive = self._archives.get(key)
        if archive is None:
            recipe = recorded_recipe(layer.annotations) is not None
            archive = self._archives[key] = Archive(algorithm, recipe=recipe)
            archive.done = self._crew.pool.submit(self._read, fitted, archive)
        archive.users += 1
        return archive

    def _read(self, layer: ReadDescriptor, archive: Archive) -> None:
        """In a thread of the pool: fill ARCHIVE."""
        pieces = self._pieces(layer)
        try:
            start = next(pieces, b"")
            archive.codec = sniff_codec(start)
            try:
                for piece in decode(
                    archive.codec, chain((start,), pieces) if start else (), self._crew.windows
                ):
                    # A piece of the blob may be a hundred times larger as an archive.
                    self._crew.check()
                    archive.feed(piece)
                    self._count(archive, limited=True)
                archive.finish()
                archive.problems += self._recipe(layer, archive)
                if chunked_annotations(layer.annotations):
                    archive.problems += self._chunked(layer, archive)
            except ValueError as error:
                archive.refuse(str(error))
                for _ in pieces:  # is the blob at least what its name says?
                    pass
        except ParentError as error:
            archive.damaged(error.what)
        finally:
            self._count(archive)
        self._read_headers(layer, archive)

    def _recipe(self, layer: ReadDescriptor, archive: Archive) -> list[str]:
        """What is wrong with the recipe that the descriptor of LAYER tells."""
        told = recorded_recipe(layer.annotations)
        if told is None or archive.reader is None or archive.reader.recipe == told:
            return []
        return [f"its descriptor tells another recipe ({RECIPE}) than its archive has"]

    def _read_headers(self, layer: ReadDescriptor, archive: Archive) -> None:
        """Hold the header list of LAYER, where there is one, against its recipe."""
        try:
            with header_list(self._source, layer.annotations) as listed:
                if listed:
                    pieces = zstd.decode(listed.blob, self._crew.windows, PIECE)
                    listed.read(pieces, lambda _: None, self._crew.check)
        except ParentError as error:
            archive.headers_problem = error.what

    def _count(self, archive: Archive, *, gone: bool = False, limited: bool = False) -> None:
        """Bring the sums up to date with ARCHIVE.

        LIMITED: refuse it where they are too high, before another one may be.
        """
        reader = None if gone else archive.reader
        with self._lock:
            self._add(archive, (reader.held, len(reader)) if reader is not None else (0, 0))
            limit = _MEMBERS_SLACK + ENTRY_COST * self._members + LAYER_COST * len(self._archives)
            if limited and reader is not None and self._held > limit:
                archive.refuse(
                    "the members of the layers that are read need more memory than so many may have"
                )
                self._add(archive, (0, 0))

    def _add(self, archive: Archive, now: tuple[int, int]) -> None:
        self._held += now[0] - archive.counted[0]
        self._members += now[1] - archive.counted[1]
        archive.counted = now

    def _chunked(self, layer: ReadDescriptor, archive: Archive) -> list[str]:
        """What is wrong with a layer that claims to be zstd:chunked."""
        from build_oci.codec.chunked.check import chunked_problems

        if archive.codec != "zstd":
            return ["has annotations of zstd:chunked, but is not compressed with zstd"]
        with self._source.blob(layer) as blob:
            content = (archive.diff_id, archive.size)
            return chunked_problems(
                blob.part, layer.annotations, content, self._crew.check, self._crew.windows
            )

    def _pieces(self, layer: ReadDescriptor) -> Iterator[bytes]:
        with self._source.blob(layer) as blob:
            for piece in blob:
                self._crew.check()
                yield piece

    def _forget(self) -> None:
        """Let go of the oldest archives that nobody waits for, so that those to come find room."""
        if self._held <= _MEMBERS_KEPT:
            return
        for key, archive in list(self._archives.items()):
            if not archive.users:
                del self._archives[key]
                self._count(archive, gone=True)
            if self._held <= _MEMBERS_KEPT:
                break
