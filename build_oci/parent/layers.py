"""The image that an image builds upon: opened, verified, its layers carried or recompressed, and
read for the diff on the way.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from build_oci.codec import zstd
from build_oci.codec.chunked.container import chunked_annotations, without_annotations
from build_oci.codec.table import (
    CHUNKED,
    SNIFFED,
    is_archive,
    least_memory,
    sniff_codec,
    stream_codec,
)
from build_oci.config.keys import Compression
from build_oci.errors import ParentError
from build_oci.oci.archive_source import open_source
from build_oci.oci.documents import Descriptor, Platform
from build_oci.oci.headers import PIECE, header_list
from build_oci.oci.manifest import ReadManifest, read_manifest
from build_oci.oci.media_types import CODECS, LAYER_MEDIA_TYPES
from build_oci.oci.recorded import without_claims, without_headers
from build_oci.oci.untrusted import (
    FilePart,
    ReadDescriptor,
    Source,
    VerifiedBlob,
    named,
    side_by_side,
    unreadable,
    verify_blobs,
)
from build_oci.parent.archive import Archive, ReadGauge, read_archive
from build_oci.parent.lower import TarReaders
from build_oci.parent.recompress import recompressed
from build_oci.parent.use import compared, identity, most_in_use, needed, shared_key
from build_oci.records import NamedTuple

if TYPE_CHECKING:
    from build_oci._native.lower import Lower
    from build_oci.config.model import BuildConfig, ParentConfig
    from build_oci.oci.layout import Layout
    from build_oci.work.crew import Crew


_CONTENT = {
    "zstd": "compressed with zstd",
    "gzip": "compressed with gzip",
    "disabled": "a plain archive",
}


class ParentLayer(NamedTuple):
    """A layer of the parent as the new image has it, for each codec of the build."""

    descriptors: tuple[Descriptor, ...]
    diff_id: str


class ParentImage(NamedTuple):
    """What an image takes over from its parent. `lower`, what its layers hold when they are merged,
    is there where a tree or another image is compared with it alone.

    config: the part of its image config that says how a container runs, as untrusted as it was;
    None where there is none.
    wheres, readers: the blobs of its layers, and what they hold, for a stack; `readers` is there
    where names of it are needed.
    records: did its layers tell recipes, whether or not these are believed?
    """

    layers: tuple[ParentLayer, ...]
    history: tuple[Any, ...]
    lower: Lower | None
    config: dict[str, Any] | None
    wheres: list[Path]
    readers: TarReaders | None
    records: bool


class Parents:
    """The parents of one build. One that several images share is read once; safe to call from
    several threads.
    """

    def __init__(
        self,
        config: BuildConfig,
        layout: Layout,
        workers: Crew,
        *,
        epoch: int | None,
        warn: Callable[[str], None],
        explain: Callable[[str], None] = lambda text: None,
    ) -> None:
        """WARN and EXPLAIN are called, from any thread: with each warning, and with a line on what
        becomes of each layer.
        """
        self._warn = warn
        self._explain = explain
        self._config = config
        self._codecs = [compression for compression, _ in config.codecs]
        self._layout = layout
        self._workers = workers
        self._epoch = epoch
        self._compared = {identity(source) for image in config.images for source in compared(image)}
        self._needed = {identity(source) for image in config.images for source in needed(image)}
        self._lock = threading.Lock()
        self._images: dict[Any, tuple[threading.Lock, list[ParentImage]]] = {}
        sources = [
            [source for source in image.images if source is not image.layer_image]
            for image in config.images
        ]
        keys = [
            [shared_key(source, image.platform) for source in of_image]
            for of_image, image in zip(sources, config.images, strict=True)
        ]
        # How many still wait for each.
        self._users = Counter(key for of_image in keys for key in of_image)
        # Each is read by itself.
        trees = [[object()] if image.layer_image is not None else [] for image in config.images]
        self.in_use = most_in_use(
            [[*a, *b] for a, b in zip(keys, trees, strict=True)], workers.images_at_once
        )

    def image(
        self, parent: ParentConfig, platform: Platform, read: Callable[[int, int], None]
    ) -> ParentImage:
        """Open PARENT for an image of PLATFORM and bring its layers into the layout; READ is told
        how many bytes of how many are done.

        To be called as often as the configuration names the parent: the last one gets what is held
        of it.
        Raises ParentError, OutputError, Cancelled.
        """
        key = shared_key(parent, platform)
        with self._lock:
            lock, done = self._images.setdefault(key, (threading.Lock(), []))
        with lock:
            if not done:
                done.append(self._read(parent, platform, read))
            with self._lock:
                self._users[key] -= 1
                if self._users[key] <= 0:
                    self._images.pop(key, None)
            return done[0]

    def _read(
        self, parent: ParentConfig, platform: Platform, read: Callable[[int, int], None]
    ) -> ParentImage:
        source = open_source(
            parent.image,
            self._workers.check,
            trust_checksums=self._config.trust_checksum_xattrs if parent.trust else False,
        )
        manifest = read_manifest(source, parent.number, platform)
        records = manifest.records
        if not parent.trust:
            # In the new image it would count as what this build found of the archives.
            manifest = manifest._replace(
                layers=[
                    layer._replace(annotations=without_claims(layer.annotations))
                    for layer in manifest.layers
                ]
            )
        self._compare_platforms(manifest, platform, parent)
        # Only for a layer that is compared with it: checksums are computed on the way.
        readers = (
            TarReaders(manifest.diff_ids, trust=parent.trust, share=self.in_use)
            if identity(parent) in self._needed
            else None
        )
        gauge = ReadGauge(sum(layer.size for layer in manifest.layers), read, self._workers.check)

        # Each may be recompressed, by an encoder of its own.
        there = self._workers.codec_memory // sum(
            least_memory(*codec) for codec in self._config.codecs
        )
        at_once = max(1, min(self._workers.count, len(manifest.layers), there))
        memory = self._workers.codec_memory // at_once

        def take(numbers: list[int]) -> list[tuple[int, ParentLayer]]:
            with ExitStack() as opened:
                blobs = [
                    opened.enter_context(source.blob(manifest.layers[number])) for number in numbers
                ]
                if numbers[0] in together:
                    self._verify(blobs, gauge)
                return [
                    (
                        number,
                        self._take_layer(
                            source,
                            manifest,
                            number,
                            blob,
                            readers,
                            gauge,
                            recompress=parent.recompress,
                            memory=memory,
                        ),
                    )
                    for number, blob in zip(numbers, blobs, strict=True)
                ]

        together = {
            number
            for number in range(len(manifest.layers))
            if self._is_hashed_first(manifest, number, readers, recompress=parent.recompress)
        }
        runs = list(
            side_by_side(together, lambda number: manifest.layers[number].size, self._workers.count)
        )
        runs += [[number] for number in range(len(manifest.layers)) if number not in together]
        found = self._workers.each(
            take,
            runs,
            at_once=at_once,
            size=lambda run: sum(manifest.layers[number].size for number in run),
        )
        taken = dict(chain.from_iterable(found))
        layers = [taken[number] for number in range(len(manifest.layers))]
        wheres = [source.blob_path(layer.digest) for layer in manifest.layers]
        lower = (
            readers.merge(wheres, self._workers.check)
            if readers is not None and identity(parent) in self._compared
            else None
        )
        return ParentImage(
            tuple(layers),
            tuple(manifest.history),
            lower,
            manifest.runtime_config,
            wheres,
            readers,
            records,
        )

    def _compare_platforms(
        self, manifest: ReadManifest, platform: Platform, parent: ParentConfig
    ) -> None:
        """A parent made for another platform is taken: data and scripts run anywhere. But mostly it
        is a mistake.
        """
        for key, wanted in (("architecture", platform.architecture), ("os", platform.os)):
            found = manifest.config.get(key)
            if isinstance(found, str) and found and found != wanted:
                self._warn(
                    f"{parent.where}: this parent has the {key} “{found[:100]}”,"
                    f" and the image “{wanted}”"
                )

    def _codec(self, part: FilePart, descriptor: ReadDescriptor, where: str) -> str:
        """The codec of the blob PART. Clients go by its first bytes, and some tools write another
        media type than they should.
        """
        codec = CODECS.get(descriptor.media_type)
        if codec is None:
            raise ParentError(
                f"is a layer of the type “{descriptor.media_type[:200]}”,"
                " which build-oci cannot read",
                where=where,
                hint=(
                    "layers are tar archives, plain or compressed with gzip or zstd; `skopeo copy"
                    " --decryption-key` decrypts those that are encrypted"
                ),
            )
        try:
            start = part.read(SNIFFED)
        except OSError as error:
            raise unreadable(error.errno or 0, where) from None
        found = sniff_codec(start)
        if found == codec or (found == "disabled" and not is_archive(start)):
            return codec
        self._warn(
            f"{where}: its media type is {descriptor.media_type}, but it is {_CONTENT[found]}:"
            " read as what it is"
        )
        return found

    def check(self) -> None:
        """Raise Cancelled once the build is being stopped."""
        self._workers.check()

    def read_archives(
        self,
        source: Source,
        manifest: ReadManifest,
        readers: TarReaders,
        read: Callable[[int, int], None],
    ) -> list[Archive]:
        """Verify and read all layers of MANIFEST, several at once, and have their archives open:
        spools, but where a blob is the archive. Raises ParentError, OutputError, Cancelled.
        """
        gauge = ReadGauge(sum(layer.size for layer in manifest.layers), read, self._workers.check)

        def take(number: int) -> Archive:
            descriptor, diff_id = manifest.layers[number], manifest.diff_ids[number]
            path = source.blob_path(descriptor.digest)
            with source.blob(descriptor) as blob:
                codec = self._codec(blob.part, descriptor, str(path))
                stored = codec == Compression.DISABLED
                archive = (
                    Archive(
                        open(os.dup(blob.part.fd), "rb"),  # noqa: SIM115
                        self._layout.path,
                        start=blob.part.start,
                        is_ours=False,
                    )
                    if stored
                    else Archive(self._layout.nameless_file(), self._layout.path, is_ours=True)
                )
                read_archive(
                    codec,
                    blob,
                    path,
                    diff_id,
                    self._workers,
                    readers.sink(number),
                    spool=None if stored else archive,
                    gauge=gauge,
                )
                archive.flush()
                with named(path):
                    readers.finish(number)
            return archive

        return self._workers.each(
            take,
            list(range(len(manifest.layers))),
            at_once=min(self._workers.count, len(manifest.layers)),
            size=lambda number: manifest.layers[number].size,
        )

    def _is_hashed_first(
        self, manifest: ReadManifest, number: int, readers: TarReaders | None, *, recompress: bool
    ) -> bool:
        """Need the blob of layer NUMBER not be decoded, as far as documents tell? Then it is
        hashed beside others, before anything else. It may be read once more all the same.
        """
        descriptor = manifest.layers[number]
        codec = CODECS.get(descriptor.media_type, "")
        stays = not recompress or all(codec == stream_codec(target) for target in self._codecs)
        return (
            stays
            and descriptor.digest.startswith("sha256:")
            and (readers is None or readers.can_spare(descriptor, codec, manifest.diff_ids[number]))
        )

    def _take_layer(
        self,
        source: Source,
        manifest: ReadManifest,
        number: int,
        blob: VerifiedBlob,
        readers: TarReaders | None,
        gauge: ReadGauge,
        *,
        recompress: bool,
        memory: int,
    ) -> ParentLayer:
        """Bring layer NUMBER, which is BLOB, into the layout, as it is or recompressed within
        MEMORY bytes, and read its archive on the way.
        """
        descriptor, diff_id = manifest.layers[number], manifest.diff_ids[number]
        path = source.blob_path(descriptor.digest)
        with header_list(source, descriptor.annotations) as listed:
            codec = self._codec(blob.part, descriptor, str(path))
            may_stay = not recompress or codec in map(stream_codec, self._codecs)
            part = blob.part
            annotations = self._annotations(descriptor, part, path, diff_id) if may_stay else {}
            kind = CHUNKED if codec == "zstd" and chunked_annotations(annotations) else codec
            targets = [compression if recompress else kind for compression in self._codecs]
            # A layer that is zstd:chunked is one that is zstd.
            new = [
                (target, level)
                for target, (_, level) in zip(targets, self._config.codecs, strict=True)
                if target not in (kind, codec)
            ]
            sink = readers.sink(number) if readers else None
            read = partial(read_archive, codec, path=path, diff_id=diff_id, workers=self._workers)
            made: dict[str, Descriptor] = {}
            if new:
                made = recompressed(
                    path,
                    codec,
                    new,
                    lambda write: read(blob, sink=sink, write=write, gauge=gauge),
                    lambda write: read(blob, sink=None, write=write),
                    self._layout,
                    self._workers,
                    memory=memory,
                    epoch=self._epoch,
                    explain=self._explain,
                    warn=self._warn,
                )
            elif readers and listed and readers.can_list(blob, codec, diff_id):
                self._verify([blob], gauge)
                listed.read(
                    zstd.decode(listed.blob, self._workers.windows, PIECE),
                    readers.headers_reader(number),
                    self._workers.check,
                )
            elif readers and readers.can_seek(blob, codec, diff_id):
                with named(path):
                    readers.seek_through(number, blob, gauge.add)
            elif readers:
                if readers.can_list(blob, codec, diff_id):
                    self._explain(f"{path}: decoded, because no header list of it is here")
                read(blob, sink=sink, gauge=gauge)
            else:
                self._verify([blob], gauge)
            # What zstd:chunked cannot express is plain zstd.
            targets = [stream_codec(target) if target not in made else target for target in targets]
            if codec in targets:
                self._explain(
                    f"{path}: carried as it is:"
                    f" {kind}{'' if recompress else ', and parent.recompress is false'}"
                )
                self._layout.carry(blob.part, path, descriptor.digest, self._workers.check)
                if listed:
                    listed.carry(self._layout, self._workers.check)
                else:
                    annotations = without_headers(annotations)
                made[codec] = Descriptor(
                    LAYER_MEDIA_TYPES[codec],
                    descriptor.digest,
                    descriptor.size,
                    annotations=annotations,
                )
        if readers:
            with named(path):
                readers.finish(number)
        return ParentLayer(tuple(made[target] for target in targets), diff_id)

    def _verify(self, blobs: list[VerifiedBlob], gauge: ReadGauge) -> None:
        """Let all of BLOBS be known. Several at once are hashed side by side."""
        unknown = [blob for blob in blobs if not blob.is_known]
        if len(unknown) == 1:
            for _ in gauge.watch(unknown[0]):
                pass
        elif unknown:
            verify_blobs(unknown, self._workers.stoppable)
            gauge.add(sum(blob.descriptor.size for blob in unknown))
        for blob in unknown:
            blob.is_known = True

    def _annotations(
        self, layer: ReadDescriptor, part: FilePart, path: Path, diff_id: str
    ) -> dict[str, str]:
        """Those of a layer that is carried. Clients pull by the metadata of zstd:chunked, so these
        hold or go.
        """
        if not chunked_annotations(layer.annotations):
            return layer.annotations
        from build_oci.codec.chunked.check import ANY_SIZE, chunked_problems

        archive = (diff_id, ANY_SIZE)
        for problem in chunked_problems(
            part, layer.annotations, archive, self._workers.check, self._workers.windows
        ):
            self._warn(
                f"{path}: its annotations of zstd:chunked are left out,"
                f" because they do not hold: {problem}"
            )
            return without_annotations(layer.annotations)
        return layer.annotations
