"""The layers that an image's tree becomes: planned, taken from the previous image or packed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from build_oci.errors import counted
from build_oci.image.read import Reading
from build_oci.image.run import Gauge, Run
from build_oci.records import NamedTuple

if TYPE_CHECKING:
    from build_oci._native.unpack import AnyTree
    from build_oci.layer.blob import Layer
    from build_oci.layer.headers import Recorded
    from build_oci.layer.pack import PlannedLayer
    from build_oci.previous.difference import Difference
    from build_oci.previous.image import PreviousImage
    from build_oci.split.division import Division, Owned

_RECORDED_AT_ONCE = 8  # layers, a MiB of memory each


class PackedLayer(NamedTuple):
    """A layer that this build made, or took from the previous image (`reused`), and what it was
    made of. recorded: where it is known.
    """

    layer: Layer
    planned: PlannedLayer
    recorded: Recorded | None = None
    reused: bool = False
    difference: Difference | None = None


class Packing:
    """Makes the layers of one image. division: what `split` made of the tree, None before and
    without it.
    """

    def __init__(self, run: Run, reading: Reading) -> None:
        self._run = run
        self._context = run.context
        self._image = run.image
        self._reading = reading
        self.division: Division | None = None
        self._owned: Owned | None = None  # where it was found before the plan is made

    def find_owners(self, tree: AnyTree, path: str) -> None:
        """With `split`, find out who owns what in TREE, the directory PATH. It needs no digest, so
        files may be hashed meanwhile.
        """
        split = self._image.split
        if split is None:
            return
        from build_oci.split.division import owned_tree

        with self._run.stage("split"):
            self._owned = owned_tree(tree, path, split, check=self._context.workers.check)

    def plan(self, tree: AnyTree, path: str) -> list[PlannedLayer]:
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
        if self._owned is None:
            self.find_owners(tree, path)
        assert self._owned is not None
        with self._run.stage("split"):
            self.division = division = divide(
                tree,
                self._owned,
                most=split.max_layers - directories_last,
                previous=self._reading.previous_plan,
                digested="hash" in self._run.stages,
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

    def make(self, planned: list[PlannedLayer], path: str) -> list[PackedLayer]:
        """Each of PLANNED as a blob: taken from the previous image if it is there, else packed.

        With a previous image every digest is known by now, and so is every header, and with it a
        layer's recipe.
        """
        if self._reading.previous is None:
            return self.pack(planned, path)
        with self._run.stage("previous"):
            recorded = self._record(planned)
            wanted = {one.recipe: layer.plan for one, layer in zip(recorded, planned, strict=True)}
            taken = self._reading.previous.take(wanted, partial(self._run.tell, "previous"))
        rest = [
            layer for one, layer in zip(recorded, planned, strict=True) if one.recipe not in taken
        ]
        reused = {layer.descriptors[0].digest for layer in taken.values()}
        with self._context.workers.concurrently(
            partial(self._differences, self._reading.previous, rest, reused)
        ) as comparing:
            made = iter(self.pack(rest, path))
            differences = iter(comparing.result())
        return [
            (
                PackedLayer(taken[one.recipe], layer, one, reused=True)
                if one.recipe in taken
                else next(made)._replace(recorded=one, difference=next(differences))
            )
            for one, layer in zip(recorded, planned, strict=True)
        ]

    def _record(self, planned: list[PlannedLayer]) -> list[Recorded]:
        """What is recorded of each of PLANNED, all of whose digests are known."""
        from build_oci.layer.headers import record

        workers, layout = self._context.workers, self._context.layout
        previous = self._reading.previous
        # Where no list can be there, headers are not made twice.
        carry = previous.carry_list if previous is not None and previous.has_lists else None
        return workers.each(
            lambda layer: record(layer.plan, layout, workers.check, carry),
            planned,
            at_once=min(workers.count, _RECORDED_AT_ONCE),
        )

    def _differences(
        self, previous: PreviousImage, planned: list[PlannedLayer], reused: set[str]
    ) -> list[Difference | None]:
        """Why each of PLANNED is no layer of PREVIOUS; nothing where nobody asks."""
        if not self._context.differences:
            return [None] * len(planned)
        workers, find = self._context.workers, previous.differences().find
        return workers.each(
            lambda layer: find(layer.plan, layer.components, reused),
            planned,
            at_once=max(1, workers.count // 2),
        )

    def pack(
        self,
        planned: list[PlannedLayer],
        path: str,
        reader: Callable[[], Callable[[memoryview], None]] | None = None,
    ) -> list[PackedLayer]:
        """Each of PLANNED as a blob, several at once. READER: of the one there is."""
        if not planned:
            return []
        from build_oci.layer.blob import write_layer
        from build_oci.layer.pack import Packer, layer_name

        config, workers = self._context.config, self._context.workers
        at_once = min(workers.layers_at_once, len(planned))
        gauge = Gauge(
            sum(layer.plan.archive_size for layer in planned), partial(self._run.tell, "pack")
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
                name=layer_name(planned, number, path),
            )

        with self._run.stage("pack"):
            layers = workers.each(
                pack,
                list(range(len(planned))),
                at_once=at_once,
                size=lambda number: planned[number].plan.archive_size,
            )
        return [PackedLayer(*made) for made in zip(layers, planned, strict=True)]

    def learn(self, tree: AnyTree) -> None:
        """Put the digests of the components, all known after the packing, into the plan, which has
        them where the files were hashed before.
        """
        if self.division and "hash" not in self._run.stages:
            from build_oci.split.division import with_digests

            self.division = with_digests(self.division, tree)

    def remember(self, packed: list[PackedLayer]) -> list[dict[str, str]]:
        """What the descriptors of PACKED say, so that the next build can keep to the plan and use
        layers again, or read their names: components, recipes and header lists.

        An image that uses neither `split` nor `previous`, and is not made of one that does, has the
        descriptors that the original's would have.
        """
        if not self._reading.records:
            return [{} for _ in packed]
        unknown = iter(self._record([layer.planned for layer in packed if layer.recorded is None]))
        return [
            {**components, **(layer.recorded or next(unknown)).annotations()}
            for components, layer in zip(self._components(packed), packed, strict=True)
        ]

    def _components(self, packed: list[PackedLayer]) -> list[dict[str, str]]:
        if self.division is None:
            return [{} for _ in packed]
        from build_oci.split.plan_file import ANNOTATION, layer_annotations

        texts = layer_annotations(self.division.plan)
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
