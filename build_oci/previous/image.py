"""The image that an earlier build made: which of its layers come out again, verified before
anything of them is used, then carried.

kernel/pack/layer_recipe.h says why a layer with the recipe of a planned one is that layer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from build_oci._native.lower import TarReader
from build_oci.codec.table import decode, least_memory
from build_oci.errors import BuildOciError, Cancelled, ParentError, PlanError, printable
from build_oci.layer.blob import Layer
from build_oci.oci.archive_source import open_source
from build_oci.oci.documents import Descriptor, Platform
from build_oci.oci.manifest import read_manifest
from build_oci.oci.recorded import RECIPE, recorded_recipe
from build_oci.oci.untrusted import (
    ReadDescriptor,
    VerifiedBlob,
    named,
    side_by_side,
    verify_blobs,
)
from build_oci.parent.archive import ReadGauge, read_archive
from build_oci.parent.lower import ArchiveSink
from build_oci.previous.codecs import OldBlob, Remaker, holds, old_blob, siblings
from build_oci.records import NamedTuple
from build_oci.split.plan_file import ANNOTATION, MOST_BYTES, load_plan, plan_from_annotations
from build_oci.work.cpus import sha256_kernel

if TYPE_CHECKING:
    from build_oci._native.tar import Plan as TarPlan
    from build_oci.config.model import BuildConfig, PreviousConfig
    from build_oci.oci.layout import Layout
    from build_oci.split.plan import Plan
    from build_oci.work.crew import Crew

_COMPARED = 64 << 20  # bytes of members that are looked at to say in what a layer differs


class Difference(NamedTuple):
    """Why a layer is not one of the previous image. what: `content`, `mode`, …
    (build_oci._native.tar.Difference), `unknown`; path: of the first entry that differs, below the
    root; of `unknown`, why."""

    what: str
    path: bytes

    def __str__(self) -> str:
        path = printable(self.path) or "."
        return (
            path
            if self.what == "unknown"
            else (
                f"{path} is {self.what}"
                if self.what in ("new", "gone")
                else f"{self.what} of {path}"
            )
        )


class _Old(NamedTuple):
    """A layer of the previous image. recipe: what the image says of it; None where it says
    nothing.
    """

    blob: OldBlob
    recipe: bytes | None

    @property
    def descriptor(self) -> ReadDescriptor:
        return self.blob.descriptor

    @property
    def diff_id(self) -> str:
        return self.blob.diff_id

    @property
    def codec(self) -> str:
        """What decodes it."""
        return self.blob.codec


def read_plan_file(previous: PreviousConfig) -> Plan | None:
    """The plan in the file that PREVIOUS names; None where it is missing, and may be. Raises
    PlanError.
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


class PreviousImage:
    """The layers of one image of an earlier build. Opening it raises ParentError; only documents
    are read then.
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
            _Old(old_blob(layer, diff_id), recorded_recipe(layer.annotations))
            for layer, diff_id in zip(manifest.layers, manifest.diff_ids, strict=True)
        ]

        targets = {codec.compression for codec in self._codecs}
        is_all_there = all({old.blob.kind} == targets for old in self._layers)
        self._siblings = {} if is_all_there else siblings(self._source, previous.number, platform)

    def plan(self) -> Plan | None:
        """The plan that its layers remember. Raises PlanError."""
        return plan_from_annotations(self._notes, str(self._source.path))

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

    def difference(
        self, plan: TarPlan, components: Sequence[str], reused: Collection[str]
    ) -> Difference | None:
        """The first entry of PLAN, a layer of COMPONENTS, that differs from the layer here that has
        most of them; None if none has any.

        REUSED: digests of the layers that were taken. Reads the layer only as far as is needed, and
        does not verify what it reads.
        """
        old = self._counterpart(frozenset(components), reused)
        if old is None:
            return None
        try:
            return self._compare(plan, old)
        except Cancelled:
            raise
        except (BuildOciError, ValueError) as error:
            return Difference(
                "unknown",
                f"its previous layer cannot be compared: {error}".encode(
                    "utf-8", "backslashreplace"
                ),
            )

    # ---- which layers

    def _may_be_ours(self, old: _Old) -> bool:
        return (
            bool(old.codec)
            and old.descriptor.digest.startswith("sha256:")
            and old.diff_id.startswith("sha256:")
        )

    def _may_have_size(self, old: _Old, sizes: Collection[int]) -> bool:
        return old.codec != "disabled" or old.descriptor.size in sizes

    def _with_recipe(self, layers: Sequence[_Old], wanted: Collection[bytes]) -> list[_Old]:
        """One of LAYERS for each recipe that is WANTED, as the image tells them, with the first
        codec that is wanted if there is one.
        """
        target = self._codecs[0].compression
        found: dict[bytes, _Old] = {}
        for old in layers:
            if old.recipe is None or old.recipe not in wanted:
                continue
            if old.recipe not in found or old.blob.kind == target != found[old.recipe].blob.kind:
                found[old.recipe] = old
        return list(found.values())

    def _take_all(
        self, layers: list[_Old], wanted: Mapping[bytes, TarPlan], read: Callable[[int, int], None]
    ) -> dict[bytes, Layer]:
        gauge = ReadGauge(sum(old.descriptor.size for old in layers), read, self._workers.check)
        told, layers = self._told(layers)
        batches = list(side_by_side(told, lambda old: old.descriptor.size))
        taken = self._workers.each(
            lambda batch: self._carry_told(batch, wanted, gauge),
            batches,
            at_once=self._workers.count,
        )
        room = self._workers.codec_memory // sum(least_memory(*codec) for codec in self._codecs)
        at_once = max(1, min(self._workers.count, len(layers), room))
        found = self._workers.each(
            lambda old: self._take(old, wanted, gauge, at_once), layers, at_once=at_once
        )
        found += [pair for batch in taken for pair in batch]
        return {recipe: layer for recipe, layer in reversed(found) if layer is not None}

    def _told(self, layers: Sequence[_Old]) -> tuple[list[_Old], list[_Old]]:
        """Those of LAYERS that are carried for what the image tells of them, and the rest."""
        told = [
            old
            for old in layers
            if self._trust
            and old.recipe is not None
            and len(self._in_codecs(old)) == len(self._codecs)
        ]
        return told, [old for old in layers if old not in told]

    def _carry_told(
        self, layers: list[_Old], wanted: Mapping[bytes, TarPlan], gauge: ReadGauge
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
            verify_blobs([blob for _, _, _, blob in opened], self._workers.stoppable)
            made: dict[str, dict[str, Descriptor]] = {}
            for old, kind, one, blob in opened:
                made.setdefault(old.descriptor.digest, {})[kind] = self._carry(one, blob)
            carried = []
            for old in layers:
                assert old.recipe is not None
                layer = self._layer(old, made[old.descriptor.digest], wanted[old.recipe])
                carried.append((old.recipe, layer))
                gauge.add(old.descriptor.size)
            return [*carried]

    # ---- one layer

    def _carry(self, one: OldBlob, blob: VerifiedBlob) -> Descriptor:
        """ONE, whose BLOB is verified, in the layout."""
        self._layout.carry(blob.part, blob.path, one.descriptor.digest, self._workers.check)
        return one.taken()

    def _in_codecs(self, old: _Old) -> dict[str, OldBlob]:
        """The blobs of the previous image that are OLD in one of the codecs wanted, by codec."""
        found: dict[str, OldBlob] = {}
        for target, _ in self._codecs:
            one = old.blob if old.blob.kind == target else self._siblings.get((old.diff_id, target))
            if one is not None and one.descriptor.digest.startswith("sha256:"):
                found[target] = one
        return found

    def _take(
        self, old: _Old, wanted: Mapping[bytes, TarPlan], gauge: ReadGauge, at_once: int
    ) -> tuple[bytes, Layer | None]:
        """The recipe of OLD, and where it is WANTED the layer, now in the layout."""
        path = self._source.blob_path(old.descriptor.digest)
        with self._source.blob(old.descriptor) as blob:
            there = self._there(old, blob)
            same = len(there) == len(self._codecs)
            if not same and old.recipe is not None:
                return self._remade(old, blob, wanted, gauge, at_once, there)
            recipe = self._read(old, blob, gauge)
            if recipe not in wanted:
                self._explain(f"{path}: not used again")
                return recipe, None
            if same:
                made = {kind: self._carried(one, old, blob) for kind, one in there.items()}
                return recipe, self._layer(old, made, wanted[recipe])
        return self._take(old._replace(recipe=recipe), wanted, gauge, at_once)

    def _there(self, old: _Old, blob: VerifiedBlob) -> dict[str, OldBlob]:
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

    def _carried(self, one: OldBlob, old: _Old, blob: VerifiedBlob) -> Descriptor:
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

    def _layer(self, old: _Old, made: Mapping[str, Descriptor], plan: TarPlan) -> Layer:
        descriptors = tuple(made[codec.compression] for codec in self._codecs)
        return Layer(descriptors, old.diff_id, plan.archive_size)

    def _read(
        self,
        old: _Old,
        blob: VerifiedBlob,
        gauge: ReadGauge,
        write: Callable[[bytes | memoryview], None] | None = None,
    ) -> bytes:
        """The recipe of OLD, whose archive is read to its end, and verified. Empty where no build
        of ours can have written it.
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
        old: _Old,
        blob: VerifiedBlob,
        wanted: Mapping[bytes, TarPlan],
        gauge: ReadGauge,
        at_once: int,
        there: Mapping[str, OldBlob],
    ) -> tuple[bytes, Layer | None]:
        """Bring OLD into the layout in the codecs that are wanted, of which some are THERE. It
        spares reading and hashing the files again; the bytes are the same.
        """
        from build_oci.codec.chunked.encoder import CannotBeChunkedError

        assert old.recipe is not None
        plan = wanted[old.recipe]
        missing = [codec for codec in self._codecs if codec.compression not in there]
        try:
            with Remaker(
                missing, plan, self._layout, self._workers, epoch=self._epoch, at_once=at_once
            ) as remaker:
                self._read(old, blob, gauge, remaker.write)
                made = remaker.finish()
        except CannotBeChunkedError as reason:
            self._explain(f"{blob.path}: not used again, because it cannot be chunked: {reason}")
            return old.recipe, None
        for target in made:
            self._explain(f"{blob.path}: recompressed from {old.codec} to {target}")
        made |= {kind: self._carried(one, old, blob) for kind, one in there.items()}
        return old.recipe, self._layer(old, made, plan)

    # ---- what differs

    def _counterpart(self, components: frozenset[str], reused: Collection[str]) -> _Old | None:
        """The layer that holds most of COMPONENTS; of none, the topmost that is of no component."""
        owned = self._components()
        rest = [
            number
            for number, old in enumerate(self._layers)
            if old.codec and old.descriptor.digest not in reused
        ]
        if not components:
            rest = [number for number in rest if not owned[number]]
            return self._layers[rest[-1]] if rest else None
        best = max(rest, key=lambda number: len(components & owned[number]), default=None)
        return self._layers[best] if best is not None and components & owned[best] else None

    def _components(self) -> list[frozenset[str]]:
        """What each layer holds, by what it remembers; nothing where it remembers nothing."""
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
        return owned

    def _compare(self, plan: TarPlan, old: _Old) -> Difference | None:
        reader = TarReader(memory_limit=_COMPARED, trust=True, whole_names=False)
        at = 0
        with self._source.blob(old.descriptor) as blob:
            for piece in decode(
                old.codec, _checked(blob, self._workers.check), self._workers.windows
            ):
                reader.feed(piece)
                found = plan.difference(reader, at)
                if not isinstance(found, int):
                    return Difference(*found)
                at = found
        reader.finish()
        found = plan.difference(reader, at)
        return (
            Difference("unknown", b"no entry, but the bytes of the archive")
            if isinstance(found, int)
            else Difference(*found)
        )


def _checked(pieces: Iterator[bytes] | VerifiedBlob, check: Callable[[], None]) -> Iterator[bytes]:
    for piece in islice(pieces, None):
        check()
        yield piece
