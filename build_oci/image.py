"""One image: parent and layer become config, manifest and a descriptor for the index."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from build_oci.oci import documents as oci
from build_oci.oci.media_types import MEDIA_TYPE_CONFIG, MEDIA_TYPE_MANIFEST
from build_oci.progress import Listener, Progress, Stage, ignore

if TYPE_CHECKING:
    from build_oci._native.walk import Tree
    from build_oci.config.load import BuildConfig, Compression, ImageConfig
    from build_oci.layer.blob import Layer
    from build_oci.oci.layout import Layout
    from build_oci.parent.layers import ParentImage, Parents
    from build_oci.work.crew import Crew


class BuiltImage(NamedTuple):
    """What came of one image.

    descriptor: of its manifest, as the index has it. layers_size, uncompressed_size: bytes of the layers that this build made, as stored
    and as archives. files: regular files written. unchanged, whiteouts: entries left to the parent, and names of it hidden.
    digests_believed: files of the tree that were not hashed, because their attribute was believed.
    stages: seconds by stage: `walk`, `hash`, `parent`, `diff`, `pack`, those that there were; `parent` runs beside `walk` and `hash`.
    """

    descriptor: oci.Descriptor
    layers_size: int
    uncompressed_size: int
    files: int
    unchanged: int
    whiteouts: int
    seconds: float
    stages: Mapping[str, float]
    digests_believed: int = 0

    @property
    def digest(self) -> str:
        return self.descriptor.digest


class Context(NamedTuple):
    """What all images of one build share. `created` is the time of the build in seconds, `epoch` SOURCE_DATE_EPOCH if it is set."""

    config: BuildConfig
    layout: Layout
    workers: Crew
    parents: Parents | None  # None: no image has one
    epoch: int | None
    created: int
    warn: Callable[[str], None]
    listen: Listener = ignore

    def tell(self, number: int, stage: Stage, done: int, total: int | None) -> None:
        """Tell the listener how far the image NUMBER is."""
        self.listen(Progress(number, stage, done, total))


@contextmanager
def _timed(stages: dict[str, float], stage: str) -> Iterator[None]:
    started = time.monotonic()
    try:
        yield
    finally:
        stages[stage] = time.monotonic() - started


# Stage, done, total.
_Tell = Callable[[Stage, int, int | None], None]


class _Counts(NamedTuple):
    files: int = 0
    believed: int = 0
    unchanged: int = 0
    whiteouts: int = 0


def build_image(context: Context, image: ImageConfig, number: int = 0) -> BuiltImage:
    """Write the blobs of the image that has this NUMBER in the configuration. Raises ParentError, TreeError, OutputError, Cancelled."""
    started = time.monotonic()
    stages: dict[str, float] = {}
    tell = partial(context.tell, number)
    platform = image.platform
    parent: ParentImage | None = None
    layer: Layer | None = None
    counts = _Counts()
    if image.parent is None or context.parents is None:
        if image.layer is not None:
            layer, counts = _write_layer(context, image.layer, _read_tree(context, image, image.layer, tell, stages), tell, stages)
    elif image.layer is None:
        with _timed(stages, "parent"):
            parent = context.parents.image(image.parent, platform, partial(tell, "parent"))
    else:
        read_parent = partial(context.parents.image, image.parent, platform, partial(tell, "parent"))
        parent, layer, counts = _build_upon(context, read_parent, image, image.layer, tell, stages)
    descriptor = _write_documents(context, image, platform, parent, layer)
    tell("done", 1, 1)
    return BuiltImage(
        descriptor,
        layers_size=layer.descriptor.size if layer else 0,
        uncompressed_size=layer.archive_size if layer else 0,
        files=counts.files,
        unchanged=counts.unchanged,
        whiteouts=counts.whiteouts,
        seconds=time.monotonic() - started,
        stages=stages,
        digests_believed=counts.believed,
    )


def _build_upon(
    context: Context, read_parent: Callable[[], ParentImage], image: ImageConfig, path: str, tell: _Tell, stages: dict[str, float]
) -> tuple[ParentImage, Layer, _Counts]:
    """The parent, and the layer of what the directory PATH changes on top of it; both are read side by side."""
    from build_oci._native.diff import mark_unchanged
    from build_oci.layer.digest import digest_files

    with context.workers.beside(_timed(stages, "parent")(read_parent)) as reading:
        tree = _read_tree(context, image, path, tell, stages)
        with _timed(stages, "hash"):
            digest_files(tree, path, context.workers, partial(tell, "hash"))
        parent = reading.result()
    assert parent.lower is not None  # there is one where any image of the build has a layer
    with _timed(stages, "diff"):
        links = context.config.preserve_hardlinks
        unchanged, whiteouts = mark_unchanged(tree, parent.lower, epoch=context.epoch, preserve_hardlinks=links)
    layer, counts = _write_layer(context, path, tree, tell, stages)
    return parent, layer, counts._replace(unchanged=unchanged, whiteouts=whiteouts)


def _read_tree(context: Context, image: ImageConfig, path: str, tell: _Tell, stages: dict[str, float]) -> Tree:
    from build_oci.layer.walk import read_tree

    config = context.config
    tell("walk", 0, None)
    with _timed(stages, "walk"):
        tree = read_tree(
            path,
            context.workers,
            skip_xattrs=config.skip_xattrs,
            trust_checksum_xattrs=config.trust_checksum_xattrs,
            warn=context.warn,
            meanwhile=partial(_import_the_rest, config.compression),
            exclude=image.exclude,
            exclude_where=image.exclude_where,
            owner=image.owner,
        )
    tell("walk", len(tree), len(tree))
    return tree


def _import_the_rest(compression: Compression) -> None:
    """What comes after the walk, which leaves this thread nothing else to do."""
    import_module("build_oci.layer.blob")
    import_module("build_oci.codec.table").load(compression)


def _write_layer(context: Context, path: str, tree: Tree, tell: _Tell, stages: dict[str, float]) -> tuple[Layer, _Counts]:
    """What TREE, the directory PATH, emits, as a blob."""
    from build_oci.layer.blob import write_layer
    from build_oci.layer.pack import Packer, plan_layer

    config, workers = context.config, context.workers
    with _timed(stages, "pack"):
        plan = plan_layer(tree, epoch=context.epoch, preserve_hardlinks=config.preserve_hardlinks)
        layer = write_layer(
            Packer(plan, path, workers),
            context.layout,
            workers,
            compression=config.compression,
            level=config.level,
            epoch=context.epoch,
            written=lambda size: tell("pack", size, plan.archive_size),
            warn=context.warn,
        )
    return layer, _Counts(files=plan.files, believed=tree.digests_believed)


def _write_documents(
    context: Context, image: ImageConfig, platform: oci.Platform, parent: ParentImage | None, layer: Layer | None
) -> oci.Descriptor:
    """Config and manifest; returns the manifest's descriptor for the index."""
    layers = [below.descriptor for below in parent.layers] if parent else []
    diff_ids = [below.diff_id for below in parent.layers] if parent else []
    history = list(parent.history) if parent else []
    if layer:
        layers.append(layer.descriptor)
        diff_ids.append(layer.diff_id)
    history.append(oci.history_entry(created=context.created, has_layer=layer is not None, author=image.author, comment=image.comment))
    config = context.layout.add_document(
        MEDIA_TYPE_CONFIG,
        oci.image_config(
            platform,
            created=context.created,
            author=image.author,
            config=image.config,
            has_config=image.has_config,
            diff_ids=diff_ids,
            history=history,
        ),
    )
    manifest = context.layout.add_document(MEDIA_TYPE_MANIFEST, oci.manifest(config, layers, image.annotations))
    return oci.Descriptor(manifest.media_type, manifest.digest, manifest.size, platform, image.index_annotations)
