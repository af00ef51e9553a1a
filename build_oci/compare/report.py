"""`build-oci compare`: the images of two layouts paired, read as far as it takes, and held against
each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from build_oci._native.compare import Comparison as Table
from build_oci.compare.documents import (
    annotation_fields,
    changed_components,
    components_of,
    config_fields,
)
from build_oci.compare.model import (
    MOST_COMPONENTS,
    MOST_DIRECTORIES,
    MOST_ENTRIES,
    Comparison,
    Costliest,
    Difference,
    Download,
    LayerView,
    Report,
    Side,
    Tally,
    What,
    Why,
    components_label,
)
from build_oci.compare.partial import partial_bytes
from build_oci.compare.read import MEMBERS_LIMIT, Image, Layer, Layers, images_of, parse_reference
from build_oci.compare.why import causes, explain, made
from build_oci.errors import ParentError

if TYPE_CHECKING:
    from build_oci.compare.treemap import Maps
    from build_oci.oci.untrusted import ReadDescriptor

_OLD, _NEW = range(2)
_DEPTH = 3  # of the directories that are told
_MOST_TALLIES = 50_000  # directories that are held while they are counted


def compare_layouts(
    old: str,
    new: str,
    *,
    workers: int,
    read: bool = True,
    deep: bool = False,
    maps: Callable[[], Maps] | None = None,
) -> Report:
    """Compare the images that OLD and NEW name (LAYOUT, LAYOUT@N, LAYOUT:REFNAME), those of one
    platform with each other.

    workers: layers to read at once.
    read: read the new layers; else only documents are, and nothing is known of entries.
    deep: read the layers that both have, too.
    maps: makes what collects the sizes for a treemap.

    Raises UsageError, ParentError, Cancelled.
    """
    with Layers(workers) as layers:
        old_images = images_of(parse_reference(old), layers.check)
        new_images = images_of(parse_reference(new), layers.check)
        pairs = _pairs(old_images, new_images)
        paired_old, paired_new = {id(one) for one, _ in pairs}, {id(one) for _, one in pairs}
        comparisons = [
            _Pair(old, new, *pair, layers, read=read, deep=deep).compare(maps() if maps else None)
            for pair in pairs
        ]
        return Report(
            comparisons,
            [_side(old, image, set()) for image in old_images if id(image) not in paired_old],
            [_side(new, image, set()) for image in new_images if id(image) not in paired_new],
        )


def _pairs(old: list[Image], new: list[Image]) -> list[tuple[Image, Image]]:
    """One image of each are a pair whatever they are; else those of one platform and ref.name, then
    those of one platform.
    """
    if len(old) == len(new) == 1:
        return [(old[0], new[0])]
    pairs = []
    left = list(old)
    rest = []
    for image in new:
        same = [
            other
            for other in left
            if (other.platform, other.ref_name) == (image.platform, image.ref_name)
        ]
        if same:
            left.remove(same[0])
            pairs.append((same[0], image))
        else:
            rest.append(image)
    for image in rest:
        same = [other for other in left if other.platform == image.platform]
        if same:
            left.remove(same[0])
            pairs.append((same[0], image))
    order = {id(image): number for number, image in enumerate(new)}
    return sorted(pairs, key=lambda pair: order[id(pair[1])])


def _side(name: str, image: Image, shared: set[str]) -> Side:
    components, _ = components_of(image.read.layers)
    views = [
        LayerView(
            number,
            layer.digest,
            diff_id,
            layer.media_type,
            layer.size,
            components[number],
            layer.digest in shared,
        )
        for number, (layer, diff_id) in enumerate(
            zip(image.read.layers, image.read.diff_ids, strict=True)
        )
    ]
    return Side(name, image.descriptor.digest, image.platform, image.ref_name, views, image.size)


class _Pair:
    """Two images that are being compared."""

    def __init__(
        self,
        old_name: str,
        new_name: str,
        old: Image,
        new: Image,
        layers: Layers,
        *,
        read: bool,
        deep: bool,
    ) -> None:
        self._images = (old, new)
        self._layers = layers
        self._check = layers.check
        digests = [{layer.digest for layer in image.read.layers} for image in self._images]
        self._shared = digests[_OLD] & digests[_NEW]
        self._sides = (_side(old_name, old, self._shared), _side(new_name, new, self._shared))
        self._recompressed = self._same_archives()
        self._looks = read
        # By side and number: the layers that are not read.
        skipped = [set() if deep else self._skipped(side) for side in (_OLD, _NEW)]
        self._unread: list[set[int]] = [
            {
                number
                for number, layer in enumerate(image.read.layers)
                if not read or number in gone or not layers.can_read(layer)
            }
            for image, gone in zip(self._images, skipped, strict=True)
        ]
        self._read: list[dict[int, Layer]] = [{}, {}]

    def _same_archives(self) -> dict[int, int]:
        """By number of a new layer that the old image lacks: the old layer that holds the same
        archive.
        """
        old = {
            layer.diff_id: layer.number for layer in self._sides[_OLD].layers if not layer.shared
        }
        return {
            layer.number: old[layer.diff_id]
            for layer in self._sides[_NEW].layers
            if not layer.shared and layer.diff_id in old
        }

    def _skipped(self, side: int) -> set[int]:
        of_both = set(self._recompressed) if side == _NEW else set(self._recompressed.values())
        return {
            layer.number
            for layer in self._sides[side].layers
            if layer.shared or layer.number in of_both
        }

    def compare(self, maps: Maps | None) -> Comparison:
        table = self._table()
        old, new = (self._seen(side) for side in self._sides)
        for number, layer in enumerate(new.layers):
            if not layer.shared:
                new.layers[number] = layer._replace(why=self._why(table, layer))
        tally, entries, components, directories = self._differences(table, maps)
        config = config_fields(self._images[_OLD].read.config, self._images[_NEW].read.config)
        digests = [components_of(image.read.layers)[1] for image in self._images]
        return Comparison(
            old,
            new,
            equal=old.digest == new.digest,
            complete=not any(self._unread),
            download=self._download(),
            tally=tally,
            entries=entries,
            components=components,
            changed_components=changed_components(*digests),
            directories=directories,
            causes=causes(new.layers),
            config=config,
            annotations=annotation_fields(*self._images),
            map=maps.finish(old, new) if maps else None,
        )

    # ---- layers

    def _table(self) -> Table:
        """Both images, as far as they are read, in one table of names."""
        wanted: list[list[ReadDescriptor]] = [
            [layer for number, layer in enumerate(image.read.layers) if number not in unread]
            for image, unread in zip(self._images, self._unread, strict=True)
        ]
        for image, layers in zip(self._images, wanted, strict=True):
            self._layers.start(image.source, layers)
        table = Table(
            memory_limit=MEMBERS_LIMIT,
            old_complete=not self._unread[_OLD],
            new_complete=not self._unread[_NEW],
        )
        for side, image in enumerate(self._images):
            for number, descriptor in enumerate(image.read.layers):
                if number in self._unread[side]:
                    continue
                layer = self._read[side][number] = self._layers.get(descriptor)
                try:
                    table.add(side, number, layer.reader, self._check)
                except ValueError as error:
                    raise ParentError(str(error), where=str(image.source.path)) from None
        return table

    def _seen(self, side: Side) -> Side:
        """SIDE with what was read of its layers."""
        read = self._read[_OLD if side is self._sides[_OLD] else _NEW]
        views = [
            view._replace(
                archive_size=read[view.number].size,
                codec=read[view.number].codec,
                entries=len(read[view.number].reader),
            )
            if view.number in read
            else view
            for view in side.layers
        ]
        return side._replace(layers=views)

    def _ratio(self, side: int, number: int) -> float:
        """Bytes of a blob for one byte of its archive."""
        layer = self._read[side].get(number)
        return self._sides[side].layers[number].size / layer.size if layer and layer.size else 1.0

    def _why(self, table: Table, layer: LayerView) -> Why:
        if layer.number not in self._read[_NEW] and layer.number not in self._recompressed:
            return Why("unread")
        return explain(
            table,
            layer.number,
            ratio=self._ratio(_NEW, layer.number),
            recompressed=self._recompressed,
            check=self._check,
        )

    def _download(self) -> Download:
        old, new = self._images
        there = {layer.digest for layer in old.read.layers} | {
            old.config_digest,
            old.descriptor.digest,
        }
        lacking = {
            layer.digest: layer.size for layer in new.read.layers if layer.digest not in there
        }
        return Download(
            layers=sum(lacking.values()),
            config=0 if new.config_digest in there else new.config_size,
            manifest=0 if new.descriptor.digest in there else new.descriptor.size,
            partial=partial_bytes(old, new, self._check) if self._looks else None,
        )

    # ---- entries

    def _differences(
        self, table: Table, maps: Maps | None
    ) -> tuple[Tally, list[Difference], list[tuple[str, Tally]], list[tuple[bytes, Tally]]]:
        ratios = [
            [self._ratio(side, number) for number in range(len(self._sides[side].layers))]
            for side in (_OLD, _NEW)
        ]
        labels = [
            [components_label(layer.components) for layer in side.layers] for side in self._sides
        ]
        whole = Tally()
        by_component: dict[str, Tally] = {}
        by_directory = _Directories()
        largest = Costliest(MOST_ENTRIES)
        for path, what, bits, old, new in table.differences(
            everything=maps is not None, check=self._check
        ):
            ratio = ratios[_NEW][new[0]] if new else 1.0
            difference = made(path, what, bits, old, new, ratio)
            if maps is not None and new is not None:
                maps.add(difference, ratio)
            if what == What.SAME:
                continue
            whole.add(difference)
            entry = difference.new or difference.old
            label = labels[_NEW if difference.new else _OLD][entry.layer] if entry else ""
            if label not in by_component and len(by_component) >= MOST_COMPONENTS:
                label = ""
            by_component.setdefault(label, Tally()).add(difference)
            by_directory.add(difference)
            largest.add(difference)
        components = sorted(
            by_component.items(), key=lambda item: (-item[1].size, -item[1].total, item[0])
        )
        return (
            whole,
            largest.sorted(),
            components if any(map(any, labels)) else [],
            by_directory.largest(),
        )


class _Directories:
    """Tallies of the directories up to some depth."""

    def __init__(self) -> None:
        self._tallies: dict[bytes, Tally] = {}
        self._depth = _DEPTH

    def add(self, difference: Difference) -> None:
        """Count DIFFERENCE in every directory above it."""
        parts = difference.path.split(b"/")[:-1][: self._depth]
        for depth in range(1, len(parts) + 1):
            name = b"/".join(parts[:depth])
            if name not in self._tallies:
                self._make_room()
                if depth > self._depth:
                    return
                self._tallies[name] = Tally()
            self._tallies[name].add(difference)

    def _make_room(self) -> None:
        """Hostile images have directories without end: then only those further up are counted."""
        if len(self._tallies) < _MOST_TALLIES:
            return
        if self._depth > 1:
            self._depth -= 1
            self._tallies = {
                name: tally
                for name, tally in self._tallies.items()
                if name.count(b"/") < self._depth
            }
        else:
            smallest = sorted(self._tallies, key=lambda name: self._tallies[name].size)[
                : _MOST_TALLIES // 2
            ]
            for name in smallest:
                del self._tallies[name]

    def largest(self) -> list[tuple[bytes, Tally]]:
        """Those with the most bytes, then the most entries, first."""
        order = Counter({name: tally.size for name, tally in self._tallies.items()})
        ranked = sorted(
            self._tallies.items(), key=lambda item: (-order[item[0]], -item[1].total, item[0])
        )
        return ranked[:MOST_DIRECTORIES]
