"""The image that an earlier build made: which of its layers come out again, verified before
anything of them is used, then carried.

kernel/pack/layer_recipe.h says why a layer with the recipe of a planned one is that layer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from build_oci._native.lower import TarReader
from build_oci.codec.table import least_memory
from build_oci.errors import ParentError, PlanError
from build_oci.layer.blob import Layer
from build_oci.oci.archive_source import open_source
from build_oci.oci.documents import Descriptor, Platform
from build_oci.oci.headers import header_list
from build_oci.oci.manifest import read_manifest
from build_oci.oci.recorded import RECIPE, recorded_headers, recorded_recipe
from build_oci.oci.untrusted import (
    ReadDescriptor,
    VerifiedBlob,
    named,
    side_by_side,
    verify_blobs,
)
from build_oci.parent.archive import ReadGauge, read_archive
from build_oci.parent.lower import ArchiveSink
from build_oci.previous.ahead import HashedAhead
from build_oci.previous.check import (
    Told,
    are_many,
    can_check,
    check_archive,
    check_side_by_side,
)
from build_oci.previous.codecs import OldBlob, OldLayer, Remaker, holds, old_blob, siblings
from build_oci.previous.difference import Differences
from build_oci.records import NamedTuple
from build_oci.split.plan_file import ANNOTATION, MOST_BYTES, load_plan, plan_from_annotations
from build_oci.work.cpus import sha256_kernel

if TYPE_CHECKING:
    from build_oci._native.tar import Plan as TarPlan
    from build_oci.config.model import BuildConfig, PreviousConfig
    from build_oci.oci.layout import Layout
    from build_oci.split.plan import Plan
    from build_oci.work.crew import Crew


def read_plan_file(previous: PreviousConfig) -> Plan | None:
    """The plan in the file that PREVIOUS names; None where it is missing, and may be.

    Raises PlanError.
    """
    if previous.plan is None:
        return None
    try:
        with open(previous.plan, "rb") as file:
            return load_plan(file.read(MOST_BYTES + 1), previous.plan)
    except FileNotFoundError:
        if previous.optional:
            return None
        raise PlanError(
            "does not exist",
            where=previous.plan,
            hint="`optional: true` builds without it until there is one",
        ) from None
    except OSError as error:
        raise PlanError(
            f"cannot be read: {error.strerror}",
            where=previous.plan,
            hint="it is the plan of an earlier build",
        ) from None


class _Taking(NamedTuple):
    """What layers are taken for. wanted: plans by their recipes; gauge: is told what was read;
    at_once: how many layers are under way, at the most.
    """

    wanted: Mapping[bytes, TarPlan]
    gauge: ReadGauge
    at_once: int


class PreviousImage:
    """The layers of one image of an earlier build.

    Opening it raises ParentError; only documents are read then.
    """

    def __init__(
        self,
        previous: PreviousConfig,
        platform: Platform,
        config: BuildConfig,
        layout: Layout,
        workers: Crew,
        *,
        epoch: int | None,
        explain: Callable[[str], None] = lambda text: None,
    ) -> None:
        assert previous.image is not None
        self._source = open_source(
            previous.image,
            workers.check,
            trust_checksums=config.trust_checksum_xattrs if previous.trust else False,
        )
        self._trust = previous.trust
        self._codecs = config.codecs
        self._layout = layout
        self._workers = workers
        self._epoch = epoch
        self._explain = explain
        manifest = read_manifest(self._source, previous.number, platform, "previous")
        self._notes = [layer.annotations.get(ANNOTATION) for layer in manifest.layers]
        # Of a layer that cannot be one of ours there is no codec to read it with.
        self._layers = [
            OldLayer(old_blob(layer, diff_id), recorded_recipe(layer.annotations))
            for layer, diff_id in zip(manifest.layers, manifest.diff_ids, strict=True)
        ]
        # The annotations that tell them, by recipe.
        self._lists = {
            recipe: layer.annotations
            for layer in manifest.layers
            if previous.trust
            and recorded_headers(layer.annotations)
            and (recipe := recorded_recipe(layer.annotations))
        }
        targets = {codec.compression for codec in self._codecs}
        is_all_there = all({old.blob.kind} == targets for old in self._layers)
        self._siblings = {} if is_all_there else siblings(self._source, previous.number, platform)
        self._ahead = HashedAhead(self._source, workers)

    def plan(self) -> Plan | None:
        """The plan that its layers remember. Raises PlanError."""
        return plan_from_annotations(self._notes, str(self._source.path))

    def hash_ahead(self) -> None:
        """To be called while the threads wait for what is wanted of this image: with `trust` they
        hash what may be carried.
        """
        # One thread alone waits for nothing.
        if self._workers.count > 1:
            told, _ = self._told([old for old in self._layers if self._may_be_ours(old)])
            self._ahead.begin(self._blobs(told))

    def take(
        self, wanted: Mapping[bytes, TarPlan], read: Callable[[int, int], None]
    ) -> dict[bytes, Layer]:
        """Bring those of its layers into the layout that have one of the recipes WANTED, each that
        of a plan.

        READ is told how many bytes of how many are done. A layer whose recipe the image does not
        tell is read to know it. Raises ParentError for a layer that is not what the image says,
        OutputError, Cancelled.
        """
        possible = [old for old in self._layers if self._may_be_ours(old)]
        known = self._with_recipe(possible, wanted)
        taken = self._take_all(known, wanted, read)
        if left := {recipe: plan for recipe, plan in wanted.items() if recipe not in taken}:
            sizes = {plan.archive_size for plan in left.values()}
            unknown = [
                old for old in possible if old.recipe is None and self._may_have_size(old, sizes)
            ]
            taken |= self._take_all(unknown, left, read)
        return taken

    @property
    def has_lists(self) -> bool:
        """Are there header lists that are believed?"""
        return bool(self._lists)

    def carry_list(self, recipe: bytes, most: int) -> str:
        """Bring the header list of a layer that has this RECIPE into the layout, where it is
        believed; its digest, empty where there is none of at most MOST bytes: no manifest tells
        its size. Only the digest of the blob is compared: who reads the list holds it against the
        recipe.

        Raises ParentError, OutputError, Cancelled.
        """
        with header_list(self._source, self._lists.get(recipe, {})) as listed:
            if listed is None or listed.blob.descriptor.size > most:
                return ""
            listed.carry(self._layout, self._workers.check)
            return listed.blob.descriptor.digest

    def differences(self) -> Differences:
        """What finds out why a layer is not one of this image."""
        owned: list[frozenset[str]] = [frozenset()] * len(self._layers)
        with suppress(PlanError):
            plan = self.plan()
            noted = [number for number, note in enumerate(self._notes) if note is not None]
            for number, layer in zip(
                noted[-len(plan.layers) :] if plan else (),
                plan.layers if plan else (),
                strict=False,
            ):
                owned[number] = frozenset(layer.components)
        return Differences(self._source, self._layers, owned, self._workers, trust=self._trust)

    # ---- which layers

    def _may_be_ours(self, old: OldLayer) -> bool:
        return (
            bool(old.codec)
            and old.descriptor.digest.startswith("sha256:")
            and old.diff_id.startswith("sha256:")
        )

    def _may_have_size(self, old: OldLayer, sizes: Collection[int]) -> bool:
        return old.codec != "disabled" or old.descriptor.size in sizes

    def _with_recipe(self, layers: Sequence[OldLayer], wanted: Collection[bytes]) -> list[OldLayer]:
        """One of LAYERS for each recipe that is WANTED, as the image tells them, with the first
        codec that is wanted if there is one.
        """
        target = self._codecs[0].compression
        found: dict[bytes, OldLayer] = {}
        for old in layers:
            if old.recipe is None or old.recipe not in wanted:
                continue
            if old.recipe not in found or old.blob.kind == target != found[old.recipe].blob.kind:
                found[old.recipe] = old
        return list(found.values())

    def _take_all(
        self,
        layers: list[OldLayer],
        wanted: Mapping[bytes, TarPlan],
        read: Callable[[int, int], None],
    ) -> dict[bytes, Layer]:
        gauge = ReadGauge(sum(old.descriptor.size for old in layers), read, self._workers.check)
        told, layers = self._told(layers)
        self._ahead.keep([blob.digest for blob in self._blobs(told)])
        room = self._workers.codec_memory // sum(least_memory(*codec) for codec in self._codecs)
        at_once = max(1, min(self._workers.count, len(layers), room))
        taking = _Taking(wanted, gauge, at_once)
        batches = list(side_by_side(told, lambda old: old.descriptor.size, self._workers.count))
        taken = self._workers.each(
            lambda batch: self._carry_told(batch, taking), batches, at_once=self._workers.count
        )
        checked = [old for old in layers if self._can_check(old, wanted)]
        if are_many(checked, at_once):
            queue = deque(sorted(checked, key=lambda old: -old.descriptor.size))
            layers = [old for old in layers if old not in checked]
            taken += self._workers.each(
                lambda _: self._take_side_by_side(queue, taking),
                list(range(at_once)),
                at_once=at_once,
            )
        found = self._workers.each(
            lambda old: self._take_opened(old, taking, check=old in checked),
            layers,
            at_once=at_once,
            size=lambda old: old.descriptor.size,
        )
        found += [pair for batch in taken for pair in batch]
        return {recipe: layer for recipe, layer in reversed(found) if layer is not None}

    def _told(self, layers: Sequence[OldLayer]) -> tuple[list[OldLayer], list[OldLayer]]:
        """Those of LAYERS that are carried for what the image tells of them, and the rest."""
        told = [old for old in layers if self._trust and self._may_be_carried(old)]
        return told, [old for old in layers if old not in told]

    def _blobs(self, layers: Sequence[OldLayer]) -> Iterator[ReadDescriptor]:
        """The blobs of LAYERS in every codec that is wanted."""
        for old in layers:
            for one in self._in_codecs(old).values():
                yield one.descriptor

    def _carry_told(
        self, layers: list[OldLayer], taking: _Taking
    ) -> list[tuple[bytes, Layer | None]]:
        """Bring LAYERS into the layout, of which only the digests of the blobs are compared."""
        with ExitStack() as stack:
            opened = [
                (old, kind, one, stack.enter_context(self._source.blob(one.descriptor)))
                for old in layers
                for kind, one in self._in_codecs(old).items()
            ]
            for _, _, one, blob in opened:
                if one.kind == "disabled" and one.descriptor.digest != one.diff_id:
                    raise ParentError(
                        "is stored as it is,"
                        f" but the image's config says that its archive is {one.diff_id}",
                        where=str(blob.path),
                        hint="somebody changed this image: build once without it",
                    )
            verify_blobs(
                [blob for _, _, _, blob in opened], self._workers.stoppable, self._ahead.find
            )
            made: dict[str, dict[str, Descriptor]] = {}
            for old, kind, one, blob in opened:
                made.setdefault(old.descriptor.digest, {})[kind] = self._carry(one, blob)
            carried = []
            for old in layers:
                assert old.recipe is not None
                layer = self._layer(old, made[old.descriptor.digest], taking.wanted[old.recipe])
                carried.append((old.recipe, layer))
                taking.gauge.add(old.descriptor.size)
            return [*carried]

    # ---- one layer

    def _carry(self, one: OldBlob, blob: VerifiedBlob) -> Descriptor:
        """ONE, whose BLOB is verified, in the layout."""
        self._layout.carry(blob.part, blob.path, one.descriptor.digest, self._workers.check)
        return one.taken()

    def _in_codecs(self, old: OldLayer) -> dict[str, OldBlob]:
        """The blobs of the previous image that are OLD in one of the codecs wanted, by codec."""
        found: dict[str, OldBlob] = {}
        for target, _ in self._codecs:
            one = old.blob if old.blob.kind == target else self._siblings.get((old.diff_id, target))
            if one is not None and one.descriptor.digest.startswith("sha256:"):
                found[target] = one
        return found

    def _take_side_by_side(
        self, layers: deque[OldLayer], taking: _Taking
    ) -> list[tuple[bytes, Layer | None]]:
        """Some of LAYERS, all of which can be checked, now in the layout; with their recipes."""

        def opened(old: OldLayer, stack: ExitStack) -> Told:
            blob = stack.enter_context(self._source.blob(old.descriptor))
            return Told(old, blob, taking.wanted[old.recipe or b""])

        def done(told: Told, holds: bool) -> tuple[bytes, Layer | None]:
            return self._take(told.old, told.blob, taking, holds=holds)

        return check_side_by_side(layers, opened, done, taking.gauge, self._workers)

    def _may_be_carried(self, old: OldLayer) -> bool:
        """Does the image tell the recipe of OLD, and have it in every codec that is wanted?"""
        return old.recipe is not None and len(self._in_codecs(old)) == len(self._codecs)

    def _can_check(self, old: OldLayer, wanted: Mapping[bytes, TarPlan]) -> bool:
        return self._may_be_carried(old) and can_check(wanted.get(old.recipe or b""))

    def _take_opened(
        self, old: OldLayer, taking: _Taking, *, check: bool
    ) -> tuple[bytes, Layer | None]:
        """The recipe of OLD, and where it is wanted the layer, now in the layout. CHECK: it can be
        held against its plan.
        """
        with self._source.blob(old.descriptor) as blob:
            holds = check and check_archive(
                Told(old, blob, taking.wanted[old.recipe or b""]), taking.gauge, self._workers
            )
            return self._take(old, blob, taking, holds=holds)

    def _take(
        self, old: OldLayer, blob: VerifiedBlob, taking: _Taking, *, holds: bool = False
    ) -> tuple[bytes, Layer | None]:
        """As _take_opened(). Where HOLDS is false, what is told of OLD was not found to be true: it
        is read as a stranger's, which tells what is wrong.
        """
        there = self._there(old, blob)
        same = len(there) == len(self._codecs)
        if not same and old.recipe is not None:
            return self._remade(old, blob, taking, there)
        recipe = old.recipe if holds and old.recipe else self._read(old, blob, taking.gauge)
        if recipe not in taking.wanted:
            self._explain(f"{blob.path}: not used again")
            return recipe, None
        if same:
            made = {kind: self._carried(one, old, blob) for kind, one in there.items()}
            return recipe, self._layer(old, made, taking.wanted[recipe])
        return self._take(old._replace(recipe=recipe), blob, taking)

    def _there(self, old: OldLayer, blob: VerifiedBlob) -> dict[str, OldBlob]:
        """Those of _in_codecs(OLD) that may be carried: metadata of zstd:chunked hold, where they
        are not trusted.
        """
        there: dict[str, OldBlob] = {}
        for target, one in self._in_codecs(old).items():
            with ExitStack() as stack:
                opened = blob
                if one is not old.blob:
                    opened = stack.enter_context(self._source.blob(one.descriptor))
                say = partial(self._doubt, opened.path)
                if self._trust or holds(one, opened.part, self._workers, say=say):
                    there[target] = one
        return there

    def _doubt(self, path: Path, problem: str) -> None:
        self._explain(f"{path}: made anew, because its metadata do not hold: {problem}")

    def _carried(self, one: OldBlob, old: OldLayer, blob: VerifiedBlob) -> Descriptor:
        """ONE in the layout: that of OLD, whose BLOB is verified, or the same layer in another
        codec, which is verified now.
        """
        with ExitStack() as stack:
            opened = blob
            if one is not old.blob:
                opened = stack.enter_context(self._source.blob(one.descriptor))
                if self._trust:
                    for _ in opened:
                        self._workers.check()
                else:
                    read_archive(
                        one.codec, opened, opened.path, one.diff_id, self._workers, sink=None
                    )
            return self._carry(one, opened)

    def _layer(self, old: OldLayer, made: Mapping[str, Descriptor], plan: TarPlan) -> Layer:
        descriptors = tuple(made[codec.compression] for codec in self._codecs)
        return Layer(descriptors, old.diff_id, plan.archive_size)

    def _read(
        self,
        old: OldLayer,
        blob: VerifiedBlob,
        gauge: ReadGauge,
        write: Callable[[bytes | memoryview], None] | None = None,
    ) -> bytes:
        """The recipe of OLD, whose archive is read to its end, and verified.

        Empty where no build of ours can have written it.
        """
        reader = TarReader(kernel=sha256_kernel(), digest=True, recipe=True, keep=False)
        sink = ArchiveSink(reader.feed, lambda: reader.digest)
        read_archive(
            old.codec, blob, blob.path, old.diff_id, self._workers, sink, write, gauge=gauge
        )
        with named(blob.path):
            reader.finish()
        recipe = reader.recipe or b""
        if old.recipe is not None and recipe != old.recipe:
            raise ParentError(
                f"its descriptor tells another recipe ({RECIPE}) than its archive has",
                where=str(blob.path),
                hint="somebody changed this image: build once without it",
            )
        return recipe

    def _remade(
        self,
        old: OldLayer,
        blob: VerifiedBlob,
        taking: _Taking,
        there: Mapping[str, OldBlob],
    ) -> tuple[bytes, Layer | None]:
        """Bring OLD into the layout in the codecs that are wanted, of which some are THERE.

        It spares reading and hashing the files again; the bytes are the same.
        """
        from build_oci.codec.chunked.encoder import CannotBeChunkedError

        assert old.recipe is not None
        plan = taking.wanted[old.recipe]
        missing = [codec for codec in self._codecs if codec.compression not in there]
        try:
            with Remaker(
                missing,
                plan,
                self._layout,
                self._workers,
                epoch=self._epoch,
                at_once=taking.at_once,
            ) as remaker:
                self._read(old, blob, taking.gauge, remaker.write)
                made = remaker.finish()
        except CannotBeChunkedError as reason:
            self._explain(f"{blob.path}: not used again, because it cannot be chunked: {reason}")
            return old.recipe, None
        for target in made:
            self._explain(f"{blob.path}: recompressed from {old.codec} to {target}")
        made |= {kind: self._carried(one, old, blob) for kind, one in there.items()}
        return old.recipe, self._layer(old, made, plan)
