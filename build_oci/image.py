"""One image: parent and layer become config, manifest and a descriptor for the index."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from build_oci import oci

if TYPE_CHECKING:
    from build_oci.config import BuildConfig, ImageConfig
    from build_oci.layer.write import Layer
    from build_oci.layout import Layout
    from build_oci.workers import Workers


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """What came of one image: its manifest's descriptor, bytes of its layers as stored and as archives, files written, seconds taken."""

    descriptor: oci.Descriptor
    layers_size: int
    uncompressed_size: int
    files: int
    seconds: float

    @property
    def digest(self) -> str:
        return self.descriptor.digest


@dataclass(frozen=True, slots=True)
class Context:
    """What all images of one build share. `created` is the time of the build in seconds, `epoch` SOURCE_DATE_EPOCH if it is set."""

    config: BuildConfig
    layout: Layout
    workers: Workers
    epoch: int | None
    created: int
    warn: Callable[[str], None]


def build_image(context: Context, image: ImageConfig) -> BuiltImage:
    """Write the blobs of one image. Raises TreeError, OutputError, Cancelled."""
    started = time.monotonic()
    layers: list[Layer] = []
    files = 0
    if image.layer is not None:
        layer, files = _build_layer(context, image.layer)
        layers.append(layer)
    platform = oci.Platform(
        image.architecture, image.os, os_version=image.os_version, os_features=image.os_features, variant=image.variant
    )
    config = context.layout.add_document(
        oci.MEDIA_TYPE_CONFIG,
        oci.image_config(
            platform,
            created=context.created,
            author=image.author,
            config=image.config,
            has_config=image.has_config,
            diff_ids=[layer.diff_id for layer in layers],
            history=[oci.history_entry(has_layer=image.layer is not None, author=image.author, comment=image.comment)],
        ),
    )
    manifest = context.layout.add_document(
        oci.MEDIA_TYPE_MANIFEST, oci.manifest(config, [layer.descriptor for layer in layers], image.annotations)
    )
    return BuiltImage(
        oci.Descriptor(manifest.media_type, manifest.digest, manifest.size, platform, image.index_annotations),
        layers_size=sum(layer.descriptor.size for layer in layers),
        uncompressed_size=sum(layer.archive_size for layer in layers),
        files=files,
        seconds=time.monotonic() - started,
    )


def _build_layer(context: Context, path: str) -> tuple[Layer, int]:
    from build_oci.layer.pack import Packer, plan_layer
    from build_oci.layer.tree import read_tree
    from build_oci.layer.write import write_layer

    config = context.config
    tree = read_tree(
        path,
        context.workers,
        skip_xattrs=config.skip_xattrs,
        trust_checksum_xattrs=config.trust_checksum_xattrs,
        warn=context.warn,
    )
    plan = plan_layer(tree, epoch=context.epoch, preserve_hardlinks=config.preserve_hardlinks)
    layer = write_layer(
        Packer(plan, path, context.workers).segments(),
        context.layout,
        context.workers,
        compression=config.compression,
        level=config.level,
        epoch=context.epoch,
    )
    return layer, plan.files
