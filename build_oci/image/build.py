"""One image: a list of layers, those of its parent and those packed from a tree, with config,
manifest and a descriptor for the index.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from build_oci.errors import size_text
from build_oci.image.documents import Documents, listed
from build_oci.image.layers import PackedLayer, Packing
from build_oci.image.read import Reading
from build_oci.image.result import BuiltImage, BuiltLayer, OtherCodec
from build_oci.image.run import Context, Run
from build_oci.oci.documents import Descriptor

if TYPE_CHECKING:
    from build_oci.config.model import ImageConfig, StackItem
    from build_oci.layer.blob import Layer
    from build_oci.parent.layers import ParentImage


def build_image(context: Context, image: ImageConfig, number: int = 0) -> BuiltImage:
    """Write the blobs of the image that has this NUMBER in the configuration.

    Raises ParentError, TreeError, OutputError, Cancelled.
    """
    return _ImageBuild(context, image, number).run()


class _ImageBuild:
    """The story of one image."""

    def __init__(self, context: Context, image: ImageConfig, number: int) -> None:
        self._run = run = Run(context, image, number)
        self._context = context
        self._image = image
        self._reading = Reading(run)
        self._packing = Packing(run, self._reading)

    def run(self) -> BuiltImage:
        started = time.monotonic()
        content = (
            self._stacked(self._image.stack) if self._image.stack is not None else self._content()
        )
        packed = [piece for piece in content if isinstance(piece, PackedLayer)]
        annotations = self._packing.remember(packed)
        named = self._packing.division is not None
        documents = Documents(self._run, self._reading.inherited, named=named)
        descriptors = documents.write(content, annotations)
        self._run.tell("done", 1, 1)
        return self._built(descriptors, packed, time.monotonic() - started)

    def _content(self) -> list[ParentImage | PackedLayer]:
        """The parent, if there is one, and what is packed upon it."""
        parent: ParentImage | None = None
        packed: list[PackedLayer] = []
        if not self._image.has_tree:
            parent = self._reading.read_parent() if self._image.parent else None
        else:
            self._reading.open_previous()
            parent, tree, path = self._reading.read_all(self._packing.find_owners)
            packed = self._packing.make(self._packing.plan(tree, path), path)
            self._packing.learn(tree)
        if parent is None:
            return [*packed]
        if self._image.parent and self._image.parent.inherit:
            from build_oci.oci.runtime_config import inherit

            self._reading.inherited = inherit(parent.config, self._reading.inherited)
        return [parent, *packed]

    def _stacked(self, items: Sequence[StackItem]) -> list[ParentImage | PackedLayer]:
        """All images that it is made of are read at once, and beside that all directories; then it
        is put together from below.
        """
        from build_oci.image.stack import (
            Addition,
            Below,
            OwnArchive,
            nothing_to_add,
            warn_of_claims,
        )

        workers = self._context.workers
        with workers.concurrently(self._reading.read_images) as reading:
            additions: dict[int, Addition] = {}
            for number, item in enumerate(items):
                if item.image is None:
                    path = item.add or "/"
                    tree = nothing_to_add() if item.add is None else self._reading.read_tree(path)
                    self._reading.hash(tree, path)
                    additions[number] = Addition(path, tree)
            read = reading.result()
        content: list[ParentImage | PackedLayer] = []
        added = sum(len(addition.tree) for addition in additions.values())
        below, last = Below(read, added, workers.check), max(additions, default=-1)
        if self._image.parent:
            content.append(parent := read.pop(0))
            self._reading.inherited = parent.config if self._image.parent.inherit else None
            if additions:
                below.put_image(parent)
        parts = [
            (item.image.image, part)
            for item, part in zip([item for item in items if item.image], read, strict=True)
            if item.image
        ]
        if len(parts) > 1:
            warn_of_claims(parts, self._context.warn, workers.check)
        waiting = iter([part for _, part in parts])
        for number, item in enumerate(items):
            if item.image is not None:
                content.append(part := next(waiting))
                if number < last:
                    below.put_image(part)
                continue
            addition = additions.pop(number)
            with self._run.stage("diff"):
                links = self._context.config.preserve_hardlinks
                marked = below.mark(
                    item, addition, epoch=self._context.epoch, preserve_hardlinks=links
                )
            self._reading.unchanged += marked.unchanged
            self._reading.whiteouts += marked.whiteouts
            archive = OwnArchive() if number < last else None
            content += self._packing.pack(
                self._packing.plan(addition.tree, addition.path),
                addition.path,
                archive.begin if archive else None,
            )
            if archive:
                below.put_layer(archive)
        return content

    def _built(
        self, descriptors: list[Descriptor], packed: list[PackedLayer], seconds: float
    ) -> BuiltImage:
        layers = tuple(
            BuiltLayer(
                made.layer.descriptors[0].digest,
                made.layer.descriptors[0].size,
                made.layer.archive_size,
                made.planned.components,
                made.reused,
                made.difference,
            )
            for made in packed
        )
        others = tuple(
            OtherCodec(
                codec.compression,
                descriptor,
                tuple(_blob_of(made.layer, number) for made in packed),
            )
            for number, (codec, descriptor) in enumerate(
                zip(self._context.config.codecs, descriptors, strict=False)
            )
            if number
        )
        for number, layer in enumerate(layers):
            self._explain_layer(number, layer)
        unclaimed = self._packing.division.unclaimed if self._packing.division else None
        return BuiltImage(
            descriptors[0],
            layers_size=sum(layer.size for layer in layers),
            uncompressed_size=sum(layer.uncompressed_size for layer in layers),
            files=sum(made.planned.plan.files for made in packed),
            unchanged=self._reading.unchanged,
            whiteouts=self._reading.whiteouts,
            seconds=seconds,
            stages=self._run.stages,
            digests_believed=self._reading.believed,
            layers=layers,
            plan=self._packing.division.plan if self._packing.division else None,
            unclaimed_size=unclaimed.size if unclaimed else 0,
            unclaimed_files=unclaimed.files if unclaimed else 0,
            others=others,
        )

    def _explain_layer(self, number: int, layer: BuiltLayer) -> None:
        if self._packing.division is None and self._reading.previous is None:
            return
        text = f"layer {number}: {layer.digest} {size_text(layer.size)}"
        if self._packing.division:
            text += f": {listed(layer.components, 500) or 'directories'}"
        if self._reading.previous:
            new = f"not in the previous image: {layer.difference or 'no layer there is like it'}"
            text += f": {'that of the previous image' if layer.reused else new}"
        self._context.explain(text)


def _blob_of(layer: Layer, number: int) -> tuple[str, int]:
    return layer.descriptors[number].digest, layer.descriptors[number].size
