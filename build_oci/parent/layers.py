"""The image that an image builds upon: opened, verified, its layers carried or recompressed, and read for the diff on the way."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from build_oci.codec.decode import decode
from build_oci.codec.encode import encoder, least_memory
from build_oci.errors import ParentError, counted
from build_oci.oci.documents import LAYER_MEDIA_TYPES, MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST, Descriptor, Platform
from build_oci.oci.untrusted import ReadDescriptor, Source, parse_descriptor, parse_descriptors

if TYPE_CHECKING:
    from build_oci._native.lower import Lower
    from build_oci.config.load import BuildConfig, ParentConfig
    from build_oci.oci.layout import Layout
    from build_oci.work.crew import Workers

INDEXES = (MEDIA_TYPE_INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = (MEDIA_TYPE_MANIFEST, "application/vnd.docker.distribution.manifest.v2+json")
_DOCKER_LAYER = "application/vnd.docker.image.rootfs."
_OCI_LAYER = "application/vnd.oci.image.layer."
CODECS = {
    _OCI_LAYER + "v1.tar": "disabled",
    _OCI_LAYER + "v1.tar+gzip": "gzip",
    _OCI_LAYER + "v1.tar+zstd": "zstd",
    _OCI_LAYER + "nondistributable.v1.tar": "disabled",
    _OCI_LAYER + "nondistributable.v1.tar+gzip": "gzip",
    _OCI_LAYER + "nondistributable.v1.tar+zstd": "zstd",
    _DOCKER_LAYER + "diff.tar": "disabled",
    _DOCKER_LAYER + "diff.tar.gzip": "gzip",
    _DOCKER_LAYER + "diff.tar.zstd": "zstd",
    _DOCKER_LAYER + "foreign.diff.tar.gzip": "gzip",
}
NESTING = 8  # of indexes; one inside another is what tools write
# For the table of a parent's names: far beyond any image (5 million entries), far below what a hostile one would take.
_TABLE_LIMIT = 1 << 30


class ParentLayer(NamedTuple):
    """A layer of the parent as the new image has it."""

    descriptor: Descriptor
    diff_id: str


class ParentImage(NamedTuple):
    """What an image takes over from its parent. `lower` is there if any image of the build has a layer."""

    layers: tuple[ParentLayer, ...]
    history: tuple[Any, ...]
    lower: Lower | None


class _Manifest(NamedTuple):
    """The documents of a parent, checked against each other."""

    layers: list[ReadDescriptor]
    diff_ids: list[str]
    history: list[Any]


class _Scans:
    """What the layers of one parent hold; they share one limit of memory with the table that is made of them."""

    def __init__(self, layers: int) -> None:
        from build_oci._native.lower import Scan
        from build_oci.layer.walk import sha256_kernel

        self._scans = [Scan(kernel=sha256_kernel(), memory_limit=_TABLE_LIMIT) for _ in range(layers)]

    def feed(self, number: int, piece: bytes | memoryview) -> None:
        """The next piece of the archive of layer NUMBER; several threads may feed different layers. ValueError when it is refused."""
        self._scans[number].feed(piece)
        self._left()

    def finish(self, number: int) -> None:
        """That archive has ended. ValueError when it should not have."""
        self._scans[number].finish()

    def merge(self, wheres: list[Path], check: Callable[[], None]) -> Lower:
        """The layers on top of each other. ParentError naming one of WHERES."""
        from build_oci._native.lower import Lower

        lower = Lower(memory_limit=self._left())
        for scan, where in zip(self._scans, wheres, strict=True):
            check()
            with _named(where):
                lower.apply(scan)
        return lower

    def _left(self) -> int:
        left = _TABLE_LIMIT - sum(scan.held for scan in self._scans)
        if left <= 0:
            raise ValueError(f"the members of this image's layers need more than {_TABLE_LIMIT >> 20} MiB of memory")
        return left


class _Gauge:
    """How much of a parent's blobs has been read; several threads may read."""

    def __init__(self, total: int, read: Callable[[int, int], None]) -> None:
        self._total = total
        self._read = read
        self._done = 0
        self._lock = threading.Lock()

    def watch(self, blob: Iterable[bytes]) -> Iterator[bytes]:
        for piece in blob:
            yield piece
            with self._lock:
                self._done += len(piece)
                self._read(self._done, self._total)


class Parents:
    """The parents of one build. One that several images share is read once; safe to call from several threads."""

    def __init__(
        self,
        config: BuildConfig,
        layout: Layout,
        workers: Workers,
        *,
        epoch: int | None,
        explain: Callable[[str], None] = lambda text: None,
    ) -> None:
        """EXPLAIN is called, from any thread, with a line on what becomes of each layer."""
        self._explain = explain
        self._config = config
        self._layout = layout
        self._workers = workers
        self._epoch = epoch
        self._scan = any(image.layer is not None for image in config.images)
        self._lock = threading.Lock()
        self._images: dict[Any, tuple[threading.Lock, list[ParentImage]]] = {}

    def image(self, parent: ParentConfig, platform: Platform, read: Callable[[int, int], None]) -> ParentImage:
        """Open PARENT for an image of PLATFORM and bring its layers into the layout; READ is told how many bytes of how many are done.

        Raises ParentError, OutputError, Cancelled.
        """
        key = (os.path.realpath(parent.image), parent.number, parent.recompress, platform.architecture, platform.os, platform.variant)
        with self._lock:
            lock, done = self._images.setdefault(key, (threading.Lock(), []))
        with lock:
            if not done:
                done.append(self._read(parent, platform, read))
            return done[0]

    def _read(self, parent: ParentConfig, platform: Platform, read: Callable[[int, int], None]) -> ParentImage:
        source = Source(Path(parent.image))
        manifest = read_manifest(source, parent.number, platform)
        scans = _Scans(len(manifest.layers)) if self._scan else None
        gauge = _Gauge(sum(layer.size for layer in manifest.layers), read)

        # Each may be recompressed, by an encoder of its own.
        there = self._workers.codec_memory // least_memory(self._config.compression, self._config.level)
        at_once = max(1, min(self._workers.count, len(manifest.layers), there))
        memory = self._workers.codec_memory // at_once

        def take(number: int) -> ParentLayer:
            return self._take_layer(source, manifest, number, scans, gauge, recompress=parent.recompress, memory=memory)

        layers = self._workers.each(take, list(range(len(manifest.layers))), at_once=at_once)
        lower = None
        if scans is not None:
            lower = scans.merge([source.blob_path(layer.digest) for layer in manifest.layers], self._workers.check)
        return ParentImage(tuple(layers), tuple(manifest.history), lower)

    def _take_layer(
        self, source: Source, manifest: _Manifest, number: int, scans: _Scans | None, gauge: _Gauge, *, recompress: bool, memory: int
    ) -> ParentLayer:
        """Bring layer NUMBER into the layout, as it is or recompressed within MEMORY bytes, and scan its archive on the way."""
        descriptor, diff_id = manifest.layers[number], manifest.diff_ids[number]
        path = source.blob_path(descriptor.digest)
        codec = _codec(descriptor, str(path))
        target = str(self._config.compression) if recompress else codec
        feed = partial(scans.feed, number) if scans else None
        with source.blob(descriptor) as blob:
            if target == codec:
                self._explain(f"{path}: carried as it is: {codec}{'' if recompress else ', and parent.recompress is false'}")
                if feed:
                    self._read_archive(codec, gauge.watch(blob), blob.path, diff_id, [feed])
                else:
                    for _ in gauge.watch(blob):
                        self._workers.check()
                _carry(blob.fd, path, self._layout, descriptor.digest)
                taken = Descriptor(LAYER_MEDIA_TYPES[codec], descriptor.digest, descriptor.size, annotations=descriptor.annotations)
            else:
                self._explain(f"{path}: recompressed from {codec} to {target}")
                with self._layout.blob() as output:
                    compressed = encoder(
                        target,
                        self._config.level,
                        output.write,
                        pool=self._workers.pool,
                        workers=self._workers.count,
                        epoch=self._epoch,
                        memory=memory,
                    )
                    self._read_archive(
                        codec, gauge.watch(blob), blob.path, diff_id, [feed, compressed.write] if feed else [compressed.write]
                    )
                    compressed.finish()
                    output.finish()
                taken = Descriptor(LAYER_MEDIA_TYPES[target], output.digest, output.size)
        if scans:
            with _named(path):
                scans.finish(number)
        return ParentLayer(taken, diff_id)

    def _read_archive(
        self, codec: str, blob: Iterable[bytes], path: Path, diff_id: str, readers: list[Callable[[bytes | memoryview], None]]
    ) -> None:
        """Unpack BLOB, which is the file PATH, to its end, let READERS have every piece of the archive, and check its diff_id."""
        algorithm, _, expected = diff_id.partition(":")
        digest = hashlib.new(algorithm)
        hashing: Future[None] | None = None
        with ThreadPoolExecutor(1, thread_name_prefix="digests") as beside, _named(path):
            for piece in decode(codec, _read_ahead(blob, beside)):
                self._workers.check()
                # One piece behind, which is as long as a piece is valid: the two threads meet once a piece.
                if hashing is not None:
                    hashing.result()
                hashing = beside.submit(digest.update, piece)
                for read in readers:
                    read(piece)
        if digest.hexdigest() != expected:
            raise ParentError(
                f"its archive has the digest {algorithm}:{digest.hexdigest()}, but the image's config says {diff_id}", where=str(path)
            )


def _read_ahead(pieces: Iterable[bytes], executor: Executor) -> Iterator[bytes]:
    """PIECES, each of them fetched by a thread of EXECUTOR while the one before is in use."""
    iterator = iter(pieces)
    fetched = executor.submit(next, iterator, None)
    while (piece := fetched.result()) is not None:
        fetched = executor.submit(next, iterator, None)
        yield piece


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What a decoder or a scanner refuses is the fault of the blob PATH."""
    try:
        yield
    except ValueError as error:
        raise ParentError(str(error), where=str(path)) from None


def read_manifest(source: Source, number: int, platform: Platform) -> _Manifest:
    """The documents of image NUMBER of the layout SOURCE; a nested index leads to the manifest for PLATFORM. Raises ParentError."""
    where = str(source.path / "index.json")
    manifests = parse_descriptors(source.index(), "manifests", where)
    if not 0 <= number < len(manifests):
        raise ParentError(
            f"has no manifest number {number}, for it has {len(manifests)} in all", where=where, hint="parent.index counts from 0"
        )
    descriptor = manifests[number]
    document = source.document(descriptor)
    for _ in range(NESTING):
        where = str(source.blob_path(descriptor.digest))
        if not _is_index(descriptor, document):
            break
        descriptor = _for_platform(parse_descriptors(document, "manifests", where), platform, where)
        document = source.document(descriptor)
    else:
        raise ParentError(f"is an index within an index, {NESTING} deep", where=where)
    media_type = document.get("mediaType") or descriptor.media_type
    if media_type not in MANIFESTS:
        raise ParentError(f"is no image manifest but “{str(media_type)[:200]}”", where=where, hint="parent.index chooses another one")
    layers = parse_descriptors(document, "layers", where)
    config_descriptor = parse_descriptor(document.get("config"), f"{where}: config")
    return _checked(layers, source.document(config_descriptor), str(source.blob_path(config_descriptor.digest)))


def _is_index(descriptor: ReadDescriptor, document: dict[str, Any]) -> bool:
    return (
        descriptor.media_type in INDEXES or document.get("mediaType") in INDEXES or ("manifests" in document and "layers" not in document)
    )


def _for_platform(manifests: list[ReadDescriptor], platform: Platform, where: str) -> ReadDescriptor:
    fitting = [
        one
        for one in manifests
        if one.platform.get("os") == platform.os
        and one.platform.get("architecture") == platform.architecture
        and (platform.variant is None or one.platform.get("variant") in (None, platform.variant))
    ]
    if not fitting:
        hint = "architecture and os of the image choose among these; parent.image can be another layout"
        there = ", ".join(sorted({f"{one.platform.get('os', '?')}/{one.platform.get('architecture', '?')}" for one in manifests}))
        raise ParentError(
            f"holds no image for {platform.os}/{platform.architecture}, only for: {there[:500] or 'nothing'}", where=where, hint=hint
        )
    exact = [one for one in fitting if one.platform.get("variant") == platform.variant]
    return (exact or fitting)[0]


def _checked(layers: list[ReadDescriptor], config: dict[str, Any], where: str) -> _Manifest:
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    # Images without layers exist; some builders write null for no diff_ids at all.
    diff_ids = [] if diff_ids is None and isinstance(rootfs, dict) and not layers else diff_ids
    if not isinstance(diff_ids, list):
        raise ParentError("has no list “rootfs.diff_ids”: it is no image config", where=where)
    for diff_id in diff_ids:
        parse_descriptor({"digest": diff_id, "size": 0}, f"{where}: rootfs.diff_ids")
    if len(diff_ids) != len(layers):
        raise ParentError(f"names {counted(len(diff_ids), 'diff_id')}, but the manifest has {counted(len(layers), 'layer')}", where=where)
    history = config.get("history") or []
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        raise ParentError("its history is no list of objects", where=where)
    return _Manifest(layers, diff_ids, history)


def _codec(descriptor: ReadDescriptor, where: str) -> str:
    codec = CODECS.get(descriptor.media_type)
    if codec is None:
        raise ParentError(f"is a layer of the type “{descriptor.media_type[:200]}”, which build-oci cannot read", where=where)
    return codec


def _carry(fd: int, path: Path, layout: Layout, digest: str) -> None:
    """Let the open, verified blob FD be a blob of LAYOUT too: as a hard link, a reflink, or a copy made by the kernel."""
    temporary = layout.temporary()
    with suppress(OSError):
        os.link(path, temporary)
        linked, verified = os.lstat(temporary), os.fstat(fd)
        # Others must be able to read what we write, and a symbolic link is no blob.
        if (linked.st_dev, linked.st_ino) == (verified.st_dev, verified.st_ino) and linked.st_mode & 0o444 == 0o444:
            layout.add(temporary, *digest.split(":"))
            return
        os.unlink(temporary)
    layout.copy(fd, temporary)
    layout.add(temporary, *digest.split(":"))
