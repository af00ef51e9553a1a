"""The codecs of a layer that is used again: which blobs of the previous image are in them, and the
others made from the archive as it streams by, with the bytes that packing gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from build_oci.codec.chunked.container import chunked_annotations
from build_oci.codec.table import CHUNKED, block_size, encoder, shares, stream_codec
from build_oci.errors import ParentError
from build_oci.layer.pack import block_sizes
from build_oci.layer.walk import problem_error
from build_oci.oci.documents import Descriptor, Platform
from build_oci.oci.manifest import read_manifest
from build_oci.oci.media_types import CODECS, LAYER_MEDIA_TYPES
from build_oci.oci.untrusted import ReadDescriptor, Source, parse_descriptors
from build_oci.records import NamedTuple
from build_oci.work.budget import RelievedBudget

if TYPE_CHECKING:
    from build_oci._native.tar import Plan as TarPlan
    from build_oci.codec.blocks import Encoder
    from build_oci.codec.chunked.check import Blob as Bytes
    from build_oci.config.keys import Codec
    from build_oci.oci.layout import Blob, Layout
    from build_oci.work.crew import Crew

# Images of an index that are looked into for the same layers in another codec.
_MOST_SIBLINGS = 8


class OldBlob(NamedTuple):
    """A layer of a previous image as one blob. kind: its codec, or zstd:chunked where it has the
    annotations of that; empty where it cannot be read.
    """

    descriptor: ReadDescriptor
    diff_id: str
    kind: str

    @property
    def codec(self) -> str:
        """What decodes it."""
        return stream_codec(self.kind)

    def taken(self) -> Descriptor:
        """The descriptor of the new image."""
        kept = chunked_annotations(self.descriptor.annotations) if self.kind == CHUNKED else {}
        return Descriptor(
            LAYER_MEDIA_TYPES[self.codec],
            self.descriptor.digest,
            self.descriptor.size,
            annotations=kept,
        )


class OldLayer(NamedTuple):
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


def old_blob(descriptor: ReadDescriptor, diff_id: str) -> OldBlob:
    kind = CODECS.get(descriptor.media_type, "")
    if kind == "zstd" and chunked_annotations(descriptor.annotations):
        kind = CHUNKED
    return OldBlob(descriptor, diff_id, kind)


def siblings(source: Source, number: int, platform: Platform) -> dict[tuple[str, str], OldBlob]:
    """The layers of the images around NUMBER in the index of SOURCE that are for the same platform,
    by diff_id and kind: a build with two codecs leaves them there.
    """
    found: dict[tuple[str, str], OldBlob] = {}
    images = parse_descriptors(source.index(), "manifests", str(source.path / "index.json"))
    others = [
        other
        for other, image in enumerate(images)
        if other != number and image.platform == images[number].platform
    ]
    for other in sorted(others, key=lambda other: abs(other - number))[:_MOST_SIBLINGS]:
        with suppress(ParentError):
            manifest = read_manifest(source, other, platform, "previous")
            for descriptor, diff_id in zip(manifest.layers, manifest.diff_ids, strict=True):
                blob = old_blob(descriptor, diff_id)
                found.setdefault((diff_id, blob.kind), blob)
    return found


class Remaker(ExitStack):
    """Blobs of one layer in several codecs, made of its archive in the blocks that packing it would
    compress. To be given up by an exception, or finished.
    """

    def __init__(
        self,
        codecs: Sequence[Codec],
        plan: TarPlan,
        layout: Layout,
        workers: Crew,
        *,
        epoch: int | None,
        at_once: int,
    ) -> None:
        """Raises CannotBeChunkedError, like write() and finish(), where zstd:chunked is among
        CODECS and cannot express the layer of PLAN.
        """
        super().__init__()
        self._plan = plan
        self._layout = layout
        self._made: list[tuple[str, Encoder, Blob, _Blocks]] = []
        if any(codec.compression == CHUNKED for codec in codecs):
            from build_oci.codec.chunked.encoder import check_plan

            check_plan(plan)
        budget = RelievedBudget(workers.codec_budget, self._relieve)
        parts = shares(codecs, workers.codec_memory // at_once, budget)
        for (target, level), share in zip(codecs, parts, strict=True):
            output = self.enter_context(layout.blob())
            one = encoder(
                target,
                level,
                output.write,
                pool=workers.pool,
                workers=workers.count,
                epoch=epoch,
                memory=share.memory,
                budget=share.budget,
                chunked=self._chunked,
            )
            self._made.append((target, one, output, _Blocks(one, self._sizes(target, level))))
        self.callback(self._drop)

    def _sizes(self, target: str, level: int | None) -> Iterator[int]:
        return block_sizes(self._plan, block_size(target, level))

    def _chunked(self, *args: Any, **more: Any) -> Encoder:
        from build_oci.codec.chunked.encoder import PlanEncoder

        return PlanEncoder(
            self._plan,
            *args,
            new_file=self._layout.nameless_file,
            problem_error=lambda problem: problem_error("", problem),
            **more,
        )

    def _relieve(self) -> bool:
        return any(one.relieve() for _, one, _, _ in self._made)

    def write(self, piece: bytes | memoryview) -> None:
        """The next piece of the archive."""
        for _, _, _, blocks in self._made:
            blocks.write(piece)

    def finish(self) -> dict[str, Descriptor]:
        """The descriptors by codec, once all of the archive was written."""
        for _, one, output, _ in self._made:
            one.finish()
            output.finish()
        return {
            target: Descriptor(
                LAYER_MEDIA_TYPES[stream_codec(target)],
                output.digest,
                output.size,
                annotations=one.annotations,
            )
            for target, one, output, _ in self._made
        }

    def _drop(self) -> None:
        for _, one, _, _ in self._made:
            one.drop()
        self._made.clear()  # which hold each other by way of the budget


class _Blocks:
    """An archive that streams by, in the blocks that packing it would compress."""

    def __init__(self, encoder: Encoder, sizes: Iterator[int]) -> None:
        self._encoder = encoder
        self._sizes = sizes
        self._left = next(sizes, 0)
        self._block = bytearray()

    def write(self, piece: bytes | memoryview) -> None:
        view = memoryview(piece)
        # What is longer than the plan says is no archive of that recipe, which shows at its end.
        while view and self._left:
            taken = view[: self._left]
            self._block += taken
            view = view[len(taken) :]
            self._left -= len(taken)
            if not self._left:
                block, self._block = self._block, bytearray()
                self._encoder.poll()
                self._encoder.add(memoryview(block), lambda: None)
                self._left = next(self._sizes, 0)


def holds(old: OldBlob, part: Bytes, workers: Crew, *, say: Callable[[str], None]) -> bool:
    """Do the annotations of OLD, whose bytes are PART, hold? SAY is told why not."""
    if old.kind != CHUNKED:
        return True
    from build_oci.codec.chunked.check import ANY_SIZE, chunked_problems

    archive = (old.diff_id, ANY_SIZE)
    annotations = old.descriptor.annotations
    problems = chunked_problems(part, annotations, archive, workers.check, workers.windows)
    for problem in problems:
        say(problem)
    return not problems
