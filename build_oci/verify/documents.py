"""Everything that an image layout says of itself, recomputed: for the layouts of any builder."""

from __future__ import annotations

import base64
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from build_oci.codec.table import decode, sniff_codec
from build_oci.errors import ParentError, UsageError, counted, printable
from build_oci.oci.media_types import CODECS, CONFIGS, INDEXES, MANIFESTS, MEDIA_TYPE_INDEX
from build_oci.oci.untrusted import ReadDescriptor, Source, opened, parse_descriptor, parse_document
from build_oci.parent.manifest import NESTING
from build_oci.verify.names import Archive, Tree
from build_oci.work.crew import Crew

# For the members of all archives that are held at once, which hostile ones may have without end: some 2.5 million.
_SCANS_LIMIT = 512 << 20
_SCANS_KEPT = 128 << 20  # of those that have been looked at, for other images that have the same layers
_MOST_READERS = 8  # threads: beyond that, the file system is the limit, and memory grows
_REMEMBERED = 1 << 17  # lines, so that what several images share is told once


class _Image(NamedTuple):
    """What its documents say of an image. A layer is None where its descriptor is none."""

    where: str
    layers: list[ReadDescriptor | None]
    diff_ids: list[str | None]


class Verifier:
    """Looks through one layout and tells, line by line, what is wrong (`problem`) and what is odd but allowed (`note`); the rest counts."""

    def __init__(self, path: str, *, workers: int, problem: Callable[[str], None], note: Callable[[str], None]) -> None:
        """PATH: the layout's directory. WORKERS: layers that are read at once. PROBLEM and NOTE are called with `WHERE: WHAT`."""
        self.mismatches = self.images = self.layers = self.entries = self.size = 0
        self._source = Source(Path(path))
        self._readers = min(workers, _MOST_READERS)
        self._say_problem = problem
        self._say_note = note
        self._said: set[int] = set()
        self._sizes: dict[str, int | None] = {}  # of the blobs that are referred to; None: there is none that can be read
        self._blobs: dict[str, bool] = {}  # those read to their end that are no layers: are they what their names say?
        self._types: dict[str, Any] = {}  # of the manifests and indexes that have been looked at: their media types
        self._platforms: dict[str, dict[str, Any]] = {}  # and, of images, their platforms
        self._archives: dict[tuple[str, str], Archive] = {}
        self._counted: set[str] = set()

    def run(self) -> None:
        """Look at everything. UsageError where there is no directory."""
        path = self._source.path
        if not path.is_dir():
            raise UsageError("is no directory", where=str(path), hint="name the directory that holds index.json")
        self._layout_file()
        with Crew(self._readers, 1 << 20) as self._workers:
            self._look_at_layers()
        self._unreferenced()

    # ---- documents

    def _layout_file(self) -> None:
        where = self._source.path / "oci-layout"
        with self._caught(), opened(where) as fd:
            document = parse_document(os.read(fd, 1 << 16), str(where))
            if document.get("imageLayoutVersion") != "1.0.0":
                self._problem(where, f"imageLayoutVersion is {_shown(document.get('imageLayoutVersion'))}, not “1.0.0”")

    def _images(self) -> Iterator[_Image]:
        """The images whose layers are to be read, in the order of the documents."""
        index = None
        with self._caught():
            index = self._source.index()
        if index is not None:
            where = str(self._source.path / "index.json")
            if index.get("mediaType", MEDIA_TYPE_INDEX) not in INDEXES:
                self._problem(where, f"mediaType is {_shown(index['mediaType'])}, which is none of an index")
            yield from self._index(index, where, 0)

    def _index(self, document: dict[str, Any], where: str, depth: int) -> Iterator[_Image]:
        self._schema_version(document, where)
        if "layers" in document or "config" in document:
            self._problem(where, "is an index and has “layers” or “config” as if it were a manifest")
        descriptors = self._descriptors(document, "manifests", where)
        document.clear()  # of an index within an index within … only the descriptors are held
        for descriptor in descriptors:
            if descriptor is not None:
                yield from self._manifest_or_index(descriptor, depth)

    def _manifest_or_index(self, descriptor: ReadDescriptor, depth: int) -> Iterator[_Image]:
        where = str(self._source.blob_path(descriptor.digest))
        if descriptor.digest in self._types:
            # As often as hostile indexes refer to it, it is looked at once.
            if self._fitted(descriptor):
                self._media_type(self._types[descriptor.digest], descriptor, where)
                self._platform(descriptor, self._platforms.get(descriptor.digest))
            return
        self._types[descriptor.digest] = descriptor.media_type
        if depth == NESTING:
            self._problem(where, f"is an index within an index, {NESTING} deep")
            return
        known = descriptor.media_type in (*INDEXES, *MANIFESTS)
        document = self._document(descriptor, quietly=not known)
        if document is None:
            return
        media_type = document.get("mediaType", descriptor.media_type)
        self._types[descriptor.digest] = media_type
        self._media_type(media_type, descriptor, where)
        if media_type in INDEXES:
            yield from self._index(document, where, depth + 1)
        elif media_type in MANIFESTS:
            yield from self._manifest(descriptor, document, where)
        elif known or media_type != descriptor.media_type:
            self._problem(where, f"{_shown(media_type)} is neither an image manifest nor an index")
        else:
            self._note(where, f"is no image but of the type {_shown(media_type)}")

    def _manifest(self, descriptor: ReadDescriptor, document: dict[str, Any], where: str) -> Iterator[_Image]:
        self._schema_version(document, where)
        if "manifests" in document:
            self._problem(where, "is a manifest and has “manifests” as if it were an index")
        if document.get("subject") is not None:
            # The manifest that this one is about may be anywhere.
            subject = self._descriptor(document["subject"], f"{where}: subject")
            if subject and os.path.lexists(self._source.blob_path(subject.digest)):
                self._blob(subject)
        config = self._descriptor(document.get("config"), f"{where}: config")
        layers = self._descriptors(document, "layers", where)
        if config is None or config.media_type in CONFIGS:
            content = self._document(config) if config else None
            if not _is_attestation(descriptor, content, layers):
                self.images += 1
                yield self._image(descriptor, content, config, where, layers)
                return
        else:
            self._blob(config)
        artifact = document.get("artifactType") or (config.media_type if config else "")
        self._note(where, f"is no image but an artifact of the type {_shown(artifact)}")
        for layer in filter(None, layers):
            self._blob(layer)

    def _image(
        self,
        descriptor: ReadDescriptor,
        content: dict[str, Any] | None,
        config: ReadDescriptor | None,
        manifest: str,
        layers: list[ReadDescriptor | None],
    ) -> _Image:
        """The image with the config CONTENT, None where there is none that can be read."""
        if content is None or config is None:
            return _Image(manifest, layers, [None] * len(layers))
        where = str(self._source.blob_path(config.digest))
        for key in ("architecture", "os"):
            if not isinstance(content.get(key), str) or not content[key]:
                self._problem(where, f"has no “{key}”")
        platform = {key: content.get(key) for key in ("architecture", "os", "variant", "os.version")} | {"where": where}
        self._platforms[descriptor.digest] = platform
        self._platform(descriptor, platform)
        rootfs = content.get("rootfs")
        if not isinstance(rootfs, dict) or rootfs.get("type") != "layers":
            self._problem(where, "rootfs.type is not “layers”")
        history = content.get("history")
        if isinstance(history, list) and history:
            for number, entry in enumerate(history):
                if not isinstance(entry, dict):
                    self._problem(where, f"history[{number}] is no object")
            made = sum(1 for entry in history if not (isinstance(entry, dict) and entry.get("empty_layer") is True))
            if made != len(layers):
                self._problem(where, f"history tells of {counted(made, 'layer')}, but the manifest has {len(layers)}")
        elif history:
            self._problem(where, "history is no list")
        return _Image(where, layers, self._diff_ids(rootfs, where, len(layers)))

    def _diff_ids(self, rootfs: Any, where: str, layers: int) -> list[str | None]:
        """Those of the layers; None for what is no digest, or if there are not as many as layers."""
        items = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        if items is None and not layers:
            return []
        found: list[str | None] = []
        for number, item in enumerate(items if isinstance(items, list) else ()):
            # A diff_id is a digest with nothing around it.
            digest = self._descriptor({"mediaType": "-", "digest": item, "size": 0}, f"{where}: rootfs.diff_ids[{number}]")
            found.append(digest.digest if digest else None)
        if len(found) == layers:
            return found
        count = counted(len(found), "diff_id") if isinstance(items, list) else "no diff_ids"
        self._problem(where, f"names {count}, but the manifest has {counted(layers, 'layer')}")
        return [None] * layers

    def _media_type(self, media_type: Any, descriptor: ReadDescriptor, where: str) -> None:
        if media_type != descriptor.media_type and descriptor.media_type:
            self._problem(where, f"mediaType is {_shown(media_type)}, but its descriptor says {_shown(descriptor.media_type)}")

    def _platform(self, descriptor: ReadDescriptor, platform: dict[str, Any] | None) -> None:
        """Hold what the descriptor of a manifest says against the PLATFORM of the image's config."""
        for key in ("architecture", "os", "variant", "os.version") if platform else ():
            assert platform is not None
            said, is_there = descriptor.platform.get(key), platform[key]
            # Configs of older builders leave the last two out.
            if said is not None and said != is_there and not (key in ("variant", "os.version") and is_there is None):
                self._problem(platform["where"], f"{key} is {_shown(is_there)}, but the descriptor of its manifest says {_shown(said)}")

    def _schema_version(self, document: dict[str, Any], where: str) -> None:
        version = document.get("schemaVersion")
        if version != 2 or isinstance(version, bool):
            self._problem(where, f"schemaVersion is {_shown(version)}, not 2")

    def _descriptors(self, document: dict[str, Any], key: str, where: str) -> list[ReadDescriptor | None]:
        items = document.get(key)
        if not isinstance(items, list):
            self._problem(where, f"has no list “{key}”")
            return []
        return [self._descriptor(item, f"{where}: {key}[{number}]") for number, item in enumerate(items)]

    def _descriptor(self, item: Any, where: str) -> ReadDescriptor | None:
        """ITEM as a descriptor; None where it is none."""
        with self._caught():
            try:
                found = parse_descriptor(item, where)
            except RecursionError:
                raise ParentError("is no descriptor", where=where) from None
            if not found.media_type:
                self._problem(where, "its descriptor has no mediaType")
            if (data := item.get("data")) is not None:
                self._embedded(data, found, where)
            return found
        return None

    def _embedded(self, data: Any, descriptor: ReadDescriptor, where: str) -> None:
        """A descriptor may carry a copy of its blob."""
        try:
            content = base64.b64decode(data, validate=True)
        except (TypeError, ValueError):
            self._problem(where, "its data is not base64")
            return
        algorithm, _, expected = descriptor.digest.partition(":")
        if len(content) != descriptor.size or hashlib.new(algorithm, content).hexdigest() != expected:
            self._problem(where, "its data is not what its digest and size say")

    # ---- blobs

    def _fitted(self, descriptor: ReadDescriptor) -> ReadDescriptor | None:
        """DESCRIPTOR with the size that the blob has, which is a mismatch where it said another; None if there is no such file."""
        if descriptor.digest not in self._sizes:
            self._sizes[descriptor.digest] = None
            with self._caught(), opened(self._source.blob_path(descriptor.digest)) as fd:
                self._sizes[descriptor.digest] = os.fstat(fd).st_size
        size = self._sizes[descriptor.digest]
        if size is None:
            return None
        if size != descriptor.size:
            self._problem(self._source.blob_path(descriptor.digest), f"has {size} bytes, but its descriptor says {descriptor.size}")
        return descriptor._replace(size=size)

    def _blob(self, descriptor: ReadDescriptor) -> bool:
        """Is the blob what DESCRIPTOR says? Read once."""
        fitted = self._fitted(descriptor)
        if fitted is None:
            return False
        if fitted.digest not in self._blobs:
            self._blobs[fitted.digest] = False
            with self._caught(), self._source.blob(fitted) as blob:
                for piece in blob:
                    self._workers.check()
                    self.size += len(piece)
                self._blobs[fitted.digest] = True
        return self._blobs[fitted.digest]

    def _document(self, descriptor: ReadDescriptor, *, quietly: bool = False) -> dict[str, Any] | None:
        """The JSON object in a blob. None where it is damaged or none; QUIETLY, the latter is no mismatch but an empty object."""
        fitted = self._fitted(descriptor)
        if fitted is None:
            return None
        if quietly and not self._blob(fitted):
            return None
        try:
            return self._source.document(fitted)
        except ParentError as error:
            if quietly:
                return {}
            self._tell(str(error))
            return None

    def _unreferenced(self) -> None:
        for algorithm in ("sha256", "sha512"):
            folder = self._source.path / "blobs" / algorithm
            with suppress(OSError):
                for name in sorted(os.listdir(folder)):
                    if f"{algorithm}:{name}" not in self._sizes:
                        self._note(folder / name, "is referred to by nothing")

    # ---- layers

    def _look_at_layers(self) -> None:
        tree = Tree()
        for image, number, archive in self._read_ahead():
            if number == 0:
                tree = Tree()
            layer = image.layers[number]
            if layer is None or archive is None:
                tree.incomplete = True
                continue
            path = self._source.blob_path(layer.digest)
            archive.done.result()
            archive.users -= 1
            if layer.digest not in self._counted:
                self._counted.add(layer.digest)
                self.layers += 1
                self.size += archive.size
                self.entries += len(archive.scan) if archive.scan else 0
            self._archive(layer, archive, path)
            if (diff_id := image.diff_ids[number]) and archive.diff_id and archive.diff_id != diff_id:
                where = f"{image.where}: rootfs.diff_ids[{number}]"
                self._problem(path, f"its archive has the digest {archive.diff_id}, but {where} says {diff_id}")
            if archive.scan is None:
                tree.incomplete = True
            else:
                for is_problem, what in tree.apply(archive.scan, self._workers.check):
                    (self._problem if is_problem else self._note)(path, what)
            self._forget()

    def _archive(self, layer: ReadDescriptor, archive: Archive, path: Path) -> None:
        """What is wrong with the blob of LAYER and its archive alone."""
        codec = CODECS[layer.media_type]
        if archive.codec and archive.codec != codec:
            content = "is not compressed" if archive.codec == "disabled" else f"is compressed with {archive.codec}"
            self._problem(path, f"{content}, but its media type is {layer.media_type}")
        for problem in archive.problems:
            if not (archive.codec == "disabled" != codec and problem.startswith("at byte 0:")):  # said in the line above
                self._problem(path, problem)
        if archive.scan is not None and not archive.ended:
            self._note(path, "has no end-of-archive blocks")

    def _read_ahead(self) -> Iterator[tuple[_Image, int, Archive | None]]:
        """The layers of all images, each with what comes of reading it; the readers are kept busy with the next ones."""
        waiting: deque[tuple[_Image, int, Archive | None]] = deque()
        for image in self._images():
            for number, layer in enumerate(image.layers):
                waiting.append((image, number, self._reading(layer, image.diff_ids[number]) if layer else None))
                if len(waiting) > self._readers:
                    yield waiting.popleft()
        yield from waiting

    def _reading(self, layer: ReadDescriptor, diff_id: str | None) -> Archive | None:
        """LAYER as it is being read by a thread; None where there is nothing that can be read as an archive."""
        path = self._source.blob_path(layer.digest)
        if layer.media_type not in CODECS:
            if layer.media_type.endswith("+encrypted"):
                self._note(path, "is encrypted")
            else:
                self._problem(path, f"{_shown(layer.media_type)} is no media type of a layer")
            self._blob(layer)
            return None
        if not os.path.lexists(path) and ("nondistributable" in layer.media_type or "foreign" in layer.media_type):
            self._sizes.setdefault(layer.digest, None)
            self._note(path, "is missing, as layers that may not be distributed are")
            return None
        fitted = self._fitted(layer)
        if fitted is None:
            return None
        algorithm = diff_id.partition(":")[0] if diff_id else "sha256"
        key = (layer.digest, algorithm)
        archive = self._archives.get(key)
        if archive is None:
            archive = self._archives[key] = Archive(algorithm, _SCANS_LIMIT)
            archive.done = self._workers.pool.submit(self._read, fitted, archive)
        archive.users += 1
        return archive

    def _read(self, layer: ReadDescriptor, archive: Archive) -> None:
        """In a thread of the pool: fill ARCHIVE."""
        pieces = self._pieces(layer)
        try:
            start = next(pieces, b"")
            archive.codec = sniff_codec(start)
            try:
                for piece in decode(archive.codec, chain((start,), pieces) if start else (), self._workers.windows):
                    archive.feed(piece)
                    if archive.scan is not None and sum(other.held for other in self._archives.copy().values()) > _SCANS_LIMIT:
                        archive.refuse(f"the members of the layers that are read need more than {_SCANS_LIMIT >> 20} MiB of memory")
                archive.finish()
            except ValueError as error:
                archive.refuse(str(error))
                for _ in pieces:  # is the blob at least what its name says?
                    pass
        except ParentError as error:
            archive.damaged(error.what)

    def _pieces(self, layer: ReadDescriptor) -> Iterator[bytes]:
        with self._source.blob(layer) as blob:
            for piece in blob:
                self._workers.check()
                yield piece

    def _forget(self) -> None:
        """Let go of the oldest archives that nobody waits for, so that those to come find room."""
        held = sum(archive.held for archive in self._archives.values())
        for key, archive in list(self._archives.items()):
            if held <= _SCANS_KEPT:
                break
            if not archive.users:
                held -= archive.held
                del self._archives[key]

    # ---- what is said

    @contextmanager
    def _caught(self) -> Iterator[None]:
        """What is refused here is a problem, and the rest is looked at all the same."""
        try:
            yield
        except ParentError as error:
            self._tell(str(error))

    def _problem(self, where: str | Path, what: str) -> None:
        self._tell(printable(f"{where}: {what}"))

    def _tell(self, line: str) -> None:
        if self._is_new(line):
            self.mismatches += 1
            self._say_problem(line)

    def _note(self, where: str | Path, what: str) -> None:
        line = printable(f"{where}: {what}")
        if self._is_new(line):
            self._say_note(line)

    def _is_new(self, line: str) -> bool:
        """What several images share, or refer to, is told once."""
        if hash(line) in self._said:
            return False
        if len(self._said) < _REMEMBERED:
            self._said.add(hash(line))
        return True


def _is_attestation(descriptor: ReadDescriptor, config: dict[str, Any] | None, layers: list[ReadDescriptor | None]) -> bool:
    """Is it a statement or a signature in the clothes of an image? BuildKit and cosign put those beside the images that they are about."""
    if descriptor.annotations.get("vnd.docker.reference.type") == "attestation-manifest":
        return True
    unnamed = config is not None and all(config.get(key) in (None, "", "unknown") for key in ("architecture", "os"))
    return unnamed and bool(layers) and not any(layer is None or layer.media_type in CODECS for layer in layers)


def _shown(value: object) -> str:
    if isinstance(value, str):
        return f"“{value[:100]}”"
    if isinstance(value, dict | list):
        return "no string"
    return "absent" if value is None else str(value)[:100]
