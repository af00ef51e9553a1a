"""One image: a list of layers, those of its parent and those packed from a tree, with config,
manifest and a descriptor for the index.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from build_oci.errors import PlanError, counted, size_text
from build_oci.oci import documents as oci
from build_oci.oci.media_types import MEDIA_TYPE_CONFIG, MEDIA_TYPE_MANIFEST, REF_NAME_KEY, ZSTD_KEY
from build_oci.oci.runtime_config import inherit
from build_oci.progress import Listener, Progress, Stage, ignore

if TYPE_CHECKING:
    from build_oci._native.unpack import AnyTree
    from build_oci._native.walk import Tree
    from build_oci.config.load import BuildConfig, Codec, Compression, ImageConfig, StackItem
    from build_oci.layer.blob import Layer
    from build_oci.layer.pack import PlannedLayer
    from build_oci.oci.layout import Layout
    from build_oci.parent.layers import ParentImage, Parents
    from build_oci.previous.image import Difference, PreviousImage
    from build_oci.split.division import Division
    from build_oci.split.plan import Plan
    from build_oci.work.crew import Crew

# Docker loads no image with more layers.
MOST_LAYERS_OF_DOCKER = 127
_LONGEST_COMMENT = 250  # characters of the names of components in the history


class BuiltLayer(NamedTuple):
    """A layer that this build made, or took from the previous image.

    size, uncompressed_size: bytes as stored and as an archive. components: none where nothing is
    split. reused: is it the previous image's? difference: where not, in what it differs from the
    layer there that it is most like; None also where there is none.
    """

    digest: str
    size: int
    uncompressed_size: int
    components: tuple[str, ...]
    reused: bool = False
    difference: Difference | None = None


class OtherCodec(NamedTuple):
    """The same image in another codec. descriptor: of its manifest; layers: digests and sizes, in
    bytes, of those that this build made.
    """

    compression: Compression
    descriptor: oci.Descriptor
    layers: tuple[tuple[str, int], ...]

    @property
    def layers_size(self) -> int:
        return sum(size for _, size in self.layers)


class BuiltImage(NamedTuple):
    """What came of one image.

    descriptor: of its manifest, as the index has it. layers_size, uncompressed_size: bytes of the
    layers that this build made, as stored and as archives. files: regular files written. unchanged,
    whiteouts: entries left to the parent, and names of it hidden. digests_believed: files of the
    tree that were not hashed, because their attribute was believed.
    stages: seconds by stage: `walk`, `hash`, `parent`, `diff`, `split`, `previous`, `pack`, those
    that there were; `parent` runs beside the first two.
    layers: those that this build made, the lowest first. plan, unclaimed_size, unclaimed_files: of
    `split`, and what no source claims. others: the image in the codecs after the first, which all
    the rest is about.
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
    layers: tuple[BuiltLayer, ...] = ()
    plan: Plan | None = None
    unclaimed_size: int = 0
    unclaimed_files: int = 0
    others: tuple[OtherCodec, ...] = ()

    @property
    def digest(self) -> str:
        return self.descriptor.digest


class Context(NamedTuple):
    """What all images of one build share. `created` is the time of the build in seconds, `epoch`
    SOURCE_DATE_EPOCH if it is set.
    """

    config: BuildConfig
    layout: Layout
    workers: Crew
    parents: Parents | None  # None: no image has one
    epoch: int | None
    created: int
    warn: Callable[[str], None]
    listen: Listener = ignore
    explain: Callable[[str], None] = lambda text: None


def build_image(context: Context, image: ImageConfig, number: int = 0) -> BuiltImage:
    """Write the blobs of the image that has this NUMBER in the configuration. Raises ParentError,
    TreeError, OutputError, Cancelled.
    """
    return _ImageBuild(context, image, number).run()


class _Packed(NamedTuple):
    """A layer that this build made, or took from the previous image (`reused`), and what it was
    made of. recipe: where it is known.
    """

    layer: Layer
    planned: PlannedLayer
    recipe: bytes | None = None
    reused: bool = False
    difference: Difference | None = None


class _ImageBuild:
    """One image under way."""

    def __init__(self, context: Context, image: ImageConfig, number: int) -> None:
        self._context = context
        self._image = image
        self._number = number
        self._platform = image.platform
        self._stages: dict[str, float] = {}
        self._unchanged = self._whiteouts = self._believed = 0
        self._division: Division | None = None
        self._previous: PreviousImage | None = None
        self._previous_plan: Plan | None = None
        self._inherited: Any = None  # the config that the image's own is put upon

    def run(self) -> BuiltImage:
        started = time.monotonic()
        content = (
            self._stack(self._image.stack) if self._image.stack is not None else self._content()
        )
        packed = [piece for piece in content if isinstance(piece, _Packed)]
        annotations = self._remember(packed)
        descriptors = self._write_documents(content, annotations)
        self._tell("done", 1, 1)
        return self._built(descriptors, packed, time.monotonic() - started)

    def _tell(self, stage: Stage, done: int, total: int | None) -> None:
        self._context.listen(Progress(self._number, stage, done, total))

    @contextmanager
    def _stage(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self._stages[stage] = self._stages.get(stage, 0.0) + time.monotonic() - started

    def _content(self) -> list[ParentImage | _Packed]:
        """The parent, if there is one, and what is packed upon it."""
        parent: ParentImage | None = None
        packed: list[_Packed] = []
        if not self._image.has_tree:
            parent = self._read_parent() if self._image.parent else None
        else:
            self._open_previous()
            parent, tree, path = self._read_all()
            packed = self._make(self._plan(tree, path), path)
            self._learn(tree)
        if parent is None:
            return [*packed]
        if self._image.parent and self._image.parent.inherit:
            self._inherited = inherit(parent.config, self._inherited)
        return [parent, *packed]

    def _stack(self, items: Sequence[StackItem]) -> list[ParentImage | _Packed]:
        """All images that it is made of are read at once, and beside that all directories; then it
        is put together from below.
        """
        from build_oci.stack import Addition, Below, OwnArchive, nothing_to_add, warn_of_claims

        workers = self._context.workers
        with workers.beside(self._read_images) as reading:
            additions: dict[int, Addition] = {}
            for number, item in enumerate(items):
                if item.image is None:
                    path = item.add or "/"
                    tree = nothing_to_add() if item.add is None else self._read_tree(path)
                    self._hash(tree, path)
                    additions[number] = Addition(path, tree)
            read = reading.result()
        content: list[ParentImage | _Packed] = []
        below, last = Below(workers.check), max(additions, default=-1)
        if self._image.parent:
            content.append(parent := read.pop(0))
            self._inherited = parent.config if self._image.parent.inherit else None
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
            with self._stage("diff"):
                links = self._context.config.preserve_hardlinks
                marked = below.mark(
                    item, addition, epoch=self._context.epoch, preserve_hardlinks=links
                )
            self._unchanged += marked.unchanged
            self._whiteouts += marked.whiteouts
            archive = OwnArchive() if number < last else None
            content += self._pack(
                self._plan(addition.tree, addition.path),
                addition.path,
                archive.begin if archive else None,
            )
            if archive:
                below.put_layer(archive)
        return content

    # ---- what there is: the previous image, the parent and the tree

    def _open_previous(self) -> None:
        """The documents of what an earlier build made, as far as it is there."""
        previous = self._image.previous
        if previous is None:
            return
        from build_oci.previous.image import PreviousImage, read_plan_file

        context = self._context
        if previous.image is not None and os.path.lexists(
            os.path.join(previous.image, "index.json")
        ):
            self._previous = PreviousImage(
                previous,
                self._platform,
                context.config,
                context.layout,
                context.workers,
                epoch=context.epoch,
                explain=context.explain,
            )
        if self._image.split is None:
            return
        self._previous_plan = read_plan_file(previous)
        if self._previous_plan is None and self._previous is not None:
            try:
                self._previous_plan = self._previous.plan()
            except PlanError as error:
                context.warn(f"{error}; the layers are planned anew")

    def _read_images(self) -> list[ParentImage]:
        """Every image that this one is made of, in their order."""
        parents, images = self._context.parents, self._image.images
        assert parents is not None or not images
        gauge = _Shares(partial(self._tell, "parent"), len(images))

        def read(number: int) -> ParentImage:
            assert parents is not None
            return parents.image(images[number], self._platform, partial(gauge.reach, number))

        with self._stage("parent"):
            return self._context.workers.each(
                read, list(range(len(images))), at_once=self._context.workers.count
            )

    def _read_root(self) -> tuple[AnyTree, str]:
        """What is to be packed, and where it is from: a directory, or what an image unpacks to."""
        image = self._image
        if image.layer is not None:
            return self._read_tree(image.layer), image.layer
        from build_oci.parent.image_tree import read_image_tree

        assert image.layer_image is not None
        assert self._context.parents is not None
        with self._stage("walk"):
            tree, config = read_image_tree(
                self._context.parents,
                image.layer_image,
                self._platform,
                partial(self._tell, "walk"),
                owner=image.owner,
            )
        self._inherited = config if image.layer_image.inherit else None
        _import_the_rest(self._context.config.codecs)
        return tree, image.layer_image.image

    def _read_all(self) -> tuple[ParentImage | None, AnyTree, str]:
        """The parent, and the tree and where it is from, read side by side; what the parent has
        already is marked in the tree.
        """
        if self._image.parent is None:
            tree, path = self._read_root()
            if self._previous is not None or self._previous_plan is not None:
                self._hash(tree, path)
            return None, tree, path
        from build_oci._native.diff import mark_unchanged

        with self._context.workers.beside(self._read_parent) as reading:
            tree, path = self._read_root()
            self._hash(tree, path)
            parent = reading.result()
        assert parent.lower is not None  # there is one where any image of the build has a layer
        with self._stage("diff"):
            self._unchanged, self._whiteouts = mark_unchanged(
                tree,
                parent.lower,
                epoch=self._context.epoch,
                preserve_hardlinks=self._context.config.preserve_hardlinks,
            )
        # The table may be large, and packing takes its time.
        return parent._replace(lower=None, scans=None), tree, path

    def _hash(self, tree: AnyTree, path: str) -> None:
        """Let every file of TREE, the directory PATH, have its digest."""
        from build_oci.layer.digest import digest_files

        with self._stage("hash"):
            digest_files(tree, path, self._context.workers, partial(self._tell, "hash"))

    def _read_parent(self) -> ParentImage:
        assert self._image.parent is not None
        assert self._context.parents is not None
        with self._stage("parent"):
            return self._context.parents.image(
                self._image.parent, self._platform, partial(self._tell, "parent")
            )

    def _read_tree(self, path: str) -> Tree:
        from build_oci.layer.walk import read_tree

        config, image = self._context.config, self._image
        self._tell("walk", 0, None)
        with self._stage("walk"):
            tree = read_tree(
                path,
                self._context.workers,
                skip_xattrs=config.skip_xattrs,
                trust_checksum_xattrs=config.trust_checksum_xattrs,
                warn=self._context.warn,
                meanwhile=partial(_import_the_rest, config.codecs),
                exclude=image.exclude,
                exclude_where=image.exclude_where,
                owner=image.owner,
                take_instructions=image.split is not None
                and any(source.kind == "xattr" for source in image.split.components),
            )
        self._believed += tree.digests_believed
        self._tell("walk", len(tree), len(tree))
        return tree

    # ---- what becomes of it: layers

    def _plan(self, tree: AnyTree, path: str) -> list[PlannedLayer]:
        """The layers that TREE, the directory PATH, becomes, the lowest first; at least one."""
        from build_oci._native.tar import Partition
        from build_oci.layer.pack import plan_layers

        split, epoch, links = (
            self._image.split,
            self._context.epoch,
            self._context.config.preserve_hardlinks,
        )
        if split is None:
            return plan_layers(Partition(tree, preserve_hardlinks=links), epoch=epoch)
        from build_oci.split.division import divide

        # Without an epoch one of the layers is that of the directories.
        directories_last = epoch is None and split.max_layers > 1
        with self._stage("split"):
            self._division = division = divide(
                tree,
                path,
                split,
                most=split.max_layers - directories_last,
                previous=self._previous_plan,
                digested="hash" in self._stages,
                warn=self._context.warn,
                check=self._context.workers.check,
            )
            count = max(1, len(division.plan.layers))
            partition = Partition(
                tree,
                division.layers,
                count,
                directories_last=directories_last,
                preserve_hardlinks=links,
            )
            self._context.explain(
                f"{path}: {counted(len(division.names), 'component')}: {division.reason}"
            )
            names = [layer.components for layer in division.plan.layers]
            return plan_layers(
                partition,
                epoch=epoch,
                components=lambda number: names[number] if number < len(names) else (),
            )

    def _make(self, planned: list[PlannedLayer], path: str) -> list[_Packed]:
        """Each of PLANNED as a blob: taken from the previous image if it is there, else packed.

        With a previous image every digest is known by now, and so is every header, and with it a
        layer's recipe.
        """
        if self._previous is None:
            return self._pack(planned, path)
        with self._stage("previous"):
            recipes = self._recipes(planned)
            wanted = {recipe: layer.plan for recipe, layer in zip(recipes, planned, strict=True)}
            taken = self._previous.take(wanted, partial(self._tell, "previous"))
        rest = [
            layer for recipe, layer in zip(recipes, planned, strict=True) if recipe not in taken
        ]
        reused = {layer.descriptors[0].digest for layer in taken.values()}
        with self._context.workers.beside(
            partial(self._differences, self._previous, rest, reused)
        ) as comparing:
            made = iter(self._pack(rest, path))
            differences = iter(comparing.result())
        return [
            (
                _Packed(taken[recipe], layer, recipe, reused=True)
                if recipe in taken
                else next(made)._replace(recipe=recipe, difference=next(differences))
            )
            for recipe, layer in zip(recipes, planned, strict=True)
        ]

    def _recipes(self, planned: list[PlannedLayer]) -> list[bytes]:
        """The recipe of each of PLANNED, all of whose digests are known."""
        workers = self._context.workers
        found = [
            task.result() for task in [workers.pool.submit(layer.plan.recipe) for layer in planned]
        ]
        workers.check()
        recipes = []
        for recipe in found:
            assert recipe is not None  # every file was hashed or packed
            recipes.append(recipe)
        return recipes

    def _differences(
        self, previous: PreviousImage, planned: list[PlannedLayer], reused: set[str]
    ) -> list[Difference | None]:
        """Why each of PLANNED is no layer of PREVIOUS."""
        workers = self._context.workers
        return workers.each(
            lambda layer: previous.difference(layer.plan, layer.components, reused),
            planned,
            at_once=max(1, workers.count // 2),
        )

    def _pack(
        self,
        planned: list[PlannedLayer],
        path: str,
        reader: Callable[[], Callable[[memoryview], None]] | None = None,
    ) -> list[_Packed]:
        """Each of PLANNED as a blob, several at once, the largest first so that none is left over.
        READER: of the one there is.
        """
        if not planned:
            return []
        from build_oci.layer.blob import write_layer
        from build_oci.layer.pack import Packer

        config, workers = self._context.config, self._context.workers
        at_once = min(workers.layers_at_once, len(planned))
        gauge = _Gauge(
            sum(layer.plan.archive_size for layer in planned), partial(self._tell, "pack")
        )

        def pack(number: int) -> Layer:
            plan = planned[number].plan
            return write_layer(
                Packer(plan, path, workers),
                self._context.layout,
                workers,
                codecs=config.codecs,
                epoch=self._context.epoch,
                at_once=at_once,
                written=partial(gauge.reach, number),
                warn=self._context.warn,
                reader=reader,
            )

        with self._stage("pack"):
            order = sorted(
                range(len(planned)), key=lambda number: -planned[number].plan.archive_size
            )
            layers = dict(zip(order, workers.each(pack, order, at_once=at_once), strict=True))
        return [_Packed(layers[number], layer) for number, layer in enumerate(planned)]

    def _learn(self, tree: AnyTree) -> None:
        """Put the digests of the components, all known after the packing, into the plan."""
        if self._division:
            from build_oci.split.division import with_digests

            self._division = with_digests(self._division, tree)

    def _remember(self, packed: list[_Packed]) -> list[dict[str, str]]:
        """What the descriptors of PACKED say, so that the next build can keep to the plan and use
        layers again: components and recipes.

        An image that uses neither `split` nor `previous` has the descriptors that the original's
        would have.
        """
        if self._division is None and self._image.previous is None:
            return [{} for _ in packed]
        from build_oci.previous.image import RECIPE

        unknown = iter(self._recipes([layer.planned for layer in packed if layer.recipe is None]))
        recipes = [layer.recipe or next(unknown) for layer in packed]
        return [
            components | {RECIPE: f"sha256:{recipe.hex()}"}
            for components, recipe in zip(self._components(packed), recipes, strict=True)
        ]

    def _components(self, packed: list[_Packed]) -> list[dict[str, str]]:
        if self._division is None:
            return [{} for _ in packed]
        from build_oci.split.plan_file import ANNOTATION, layer_annotations

        texts = layer_annotations(self._division.plan)
        if texts is None:
            self._context.warn(
                f"{self._image.where}: there are too many components for the annotations of the"
                " layers; `split.plan` writes them to a file"
            )
            texts = []
        return [
            {ANNOTATION: texts[made.planned.number]} if made.planned.number < len(texts) else {}
            for made in packed
        ]

    # ---- what is said of it: documents

    def _write_documents(
        self, content: Sequence[ParentImage | _Packed], notes_of: list[dict[str, str]]
    ) -> list[oci.Descriptor]:
        """Config, and a manifest for each codec, whose descriptors it returns. NOTES_OF:
        annotations of the layers that were packed.
        """
        context, image = self._context, self._image
        layers: list[tuple[oci.Descriptor, ...]] = []
        diff_ids: list[str] = []
        history: list[Any] = []
        notes = iter(notes_of)
        for piece in content:
            if isinstance(piece, _Packed):
                note = next(notes)
                layers.append(
                    tuple(
                        one._replace(annotations={**one.annotations, **note})
                        for one in piece.layer.descriptors
                    )
                )
                diff_ids.append(piece.layer.diff_id)
                history.append(
                    self._history_entry(has_layer=True, comment=self._comment(piece.planned))
                )
            else:
                layers += [below.descriptors for below in piece.layers]
                diff_ids += [below.diff_id for below in piece.layers]
                history += piece.history
        if not notes_of:
            history.append(self._history_entry(has_layer=False, comment=image.comment))
        if len(layers) > MOST_LAYERS_OF_DOCKER:
            count = counted(len(layers), "layer")
            context.warn(
                f"{image.where}: the image has {count}, and Docker loads none with more than"
                f" {MOST_LAYERS_OF_DOCKER}"
            )
        inherits = any(source and source.inherit for source in (image.parent, image.layer_image))
        merged = inherit(self._inherited, image.config) if inherits else image.config
        config = context.layout.add_document(
            MEDIA_TYPE_CONFIG,
            oci.image_config(
                self._platform,
                created=context.created,
                author=image.author,
                config=merged,
                has_config=merged is not None if inherits else image.has_config,
                diff_ids=diff_ids,
                history=history,
            ),
        )
        manifests = [
            context.layout.add_document(
                MEDIA_TYPE_MANIFEST,
                oci.manifest(config, [layer[number] for layer in layers], image.annotations),
            )
            for number in range(len(context.config.codecs))
        ]
        descriptors = [
            manifests[0]._replace(platform=self._platform, annotations=image.index_annotations)
        ]
        for manifest in manifests[1:]:
            # It is the same without layers, or where those of the parent are carried as they are.
            if manifest.digest != manifests[0].digest:
                annotations = {
                    key: value
                    for key, value in image.index_annotations.items()
                    if key != REF_NAME_KEY
                }
                descriptors.append(
                    manifest._replace(
                        platform=self._platform, annotations=annotations | {ZSTD_KEY: "true"}
                    )
                )
        return descriptors

    def _history_entry(self, *, has_layer: bool, comment: str | None) -> dict[str, Any]:
        return oci.history_entry(
            created=self._context.created,
            has_layer=has_layer,
            author=self._image.author,
            comment=comment,
        )

    def _comment(self, planned: PlannedLayer) -> str | None:
        """What the history says of a layer: the comment of the configuration, and which components
        it holds.
        """
        if self._division is None:
            return self._image.comment
        names = listed(planned.components, _LONGEST_COMMENT) or "directories"
        return f"{self._image.comment}: {names}" if self._image.comment else names

    def _built(
        self, descriptors: list[oci.Descriptor], packed: list[_Packed], seconds: float
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
        unclaimed = self._division.unclaimed if self._division else None
        return BuiltImage(
            descriptors[0],
            layers_size=sum(layer.size for layer in layers),
            uncompressed_size=sum(layer.uncompressed_size for layer in layers),
            files=sum(made.planned.plan.files for made in packed),
            unchanged=self._unchanged,
            whiteouts=self._whiteouts,
            seconds=seconds,
            stages=self._stages,
            digests_believed=self._believed,
            layers=layers,
            plan=self._division.plan if self._division else None,
            unclaimed_size=unclaimed.size if unclaimed else 0,
            unclaimed_files=unclaimed.files if unclaimed else 0,
            others=others,
        )

    def _explain_layer(self, number: int, layer: BuiltLayer) -> None:
        if self._division is None and self._previous is None:
            return
        text = f"layer {number}: {layer.digest} {size_text(layer.size)}"
        if self._division:
            text += f": {listed(layer.components, 500) or 'directories'}"
        if self._previous:
            new = f"not in the previous image: {layer.difference or 'no layer there is like it'}"
            text += f": {'that of the previous image' if layer.reused else new}"
        self._context.explain(text)


def _blob_of(layer: Layer, number: int) -> tuple[str, int]:
    return layer.descriptors[number].digest, layer.descriptors[number].size


class _Gauge:
    """How many bytes of several archives are made; several threads may tell."""

    def __init__(self, total: int, tell: Callable[[int, int | None], None]) -> None:
        self._total = total
        self._tell = tell
        self._done: dict[int, int] = {}
        self._sum = 0
        self._lock = threading.Lock()

    def reach(self, number: int, size: int) -> None:
        """SIZE bytes of the archive NUMBER are made by now."""
        with self._lock:
            self._sum += size - self._done.get(number, 0)
            self._done[number] = size
            self._tell(self._sum, self._total)


class _Shares:
    """How far several readers are together; several threads may tell."""

    def __init__(self, tell: Callable[[int, int | None], None], count: int) -> None:
        self._tell = tell
        self._done, self._totals = [0] * count, [0] * count
        self._lock = threading.Lock()

    def reach(self, number: int, done: int, total: int) -> None:
        """The reader NUMBER has read DONE bytes of TOTAL."""
        with self._lock:
            self._done[number], self._totals[number] = done, total
            self._tell(sum(self._done), sum(self._totals))


def listed(names: Sequence[str], most: int) -> str:
    """NAMES with commas, as many as fit into about MOST characters, and how many more there are."""
    size = shown = 0
    for name in names:
        size += len(name) + 2
        if shown and size > most:
            break
        shown += 1
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more:,} more" if more else "")


def _import_the_rest(codecs: Sequence[Codec]) -> None:
    """What comes after the walk, which leaves this thread nothing else to do."""
    import_module("build_oci.layer.blob")
    for codec in codecs:
        import_module("build_oci.codec.table").load(codec.compression)
