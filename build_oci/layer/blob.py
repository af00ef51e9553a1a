"""One layer's way into a blob: the diff_id of the archive, its compression, the digest of what
comes out, side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Any

from build_oci.codec.blocks import Encoder, Piece, Sink
from build_oci.codec.table import CHUNKED, block_size, encoder, shares, stream_codec
from build_oci.layer.walk import problem_error
from build_oci.oci.documents import Descriptor
from build_oci.oci.media_types import LAYER_MEDIA_TYPES
from build_oci.records import NamedTuple
from build_oci.work.budget import RelievedBudget

if TYPE_CHECKING:
    from build_oci._native.tar import Plan
    from build_oci.config.keys import Codec
    from build_oci.layer.pack import Packer, Segment
    from build_oci.oci.layout import Blob, Layout
    from build_oci.work.crew import Crew
    from build_oci.work.digests import Digest


class Layer(NamedTuple):
    """A layer in the layout: its blobs, one for each codec; digest and size in bytes of the archive
    that is in all of them.
    """

    descriptors: tuple[Descriptor, ...]
    diff_id: str
    archive_size: int


def write_layer(
    packer: Packer,
    layout: Layout,
    workers: Crew,
    *,
    codecs: Sequence[Codec],
    epoch: int | None,
    at_once: int = 1,
    written: Callable[[int], None] = lambda size: None,
    warn: Callable[[str], None] = lambda text: None,
    reader: Callable[[], Callable[[memoryview], None]] | None = None,
    name: str = "",
) -> Layer:
    """Compress the archive of PACKER into a blob of LAYOUT for each of CODECS while it is being
    made; WRITTEN is told how many bytes of it are. A blob has the same bytes whether there are
    others or not.

    AT_ONCE: how many layers share the memory of an image at the most. A layer that zstd:chunked
    cannot express becomes plain zstd, and WARN is told why, and its NAME (its directory if it has
    none). What READER returns is given every piece of the archive, valid during the call; where it
    is written anew, READER is called again. Raises OutputError, and what PACKER raises.
    """
    write = partial(
        _write,
        packer,
        layout,
        workers,
        epoch=epoch,
        at_once=at_once,
        written=written,
        reader=reader,
    )
    if any(codec.compression == CHUNKED for codec in codecs):
        from build_oci.codec.chunked.encoder import CannotBeChunkedError, check_plan

        try:
            check_plan(packer.plan)
            return write(codecs)
        except CannotBeChunkedError as reason:
            warn(f"{name or packer.root}: its layer is written as plain zstd, because {reason}")
    return write([(stream_codec(compression), level) for compression, level in codecs])


def _write(
    packer: Packer,
    layout: Layout,
    workers: Crew,
    codecs: Sequence[tuple[str, int | None]],
    *,
    epoch: int | None,
    at_once: int,
    written: Callable[[int], None],
    reader: Callable[[], Callable[[memoryview], None]] | None,
) -> Layer:
    size = 0
    outputs: list[_Output] = []
    budget = RelievedBudget(workers.codec_budget, lambda: _relieve(outputs))
    parts = shares(codecs, workers.codec_memory // at_once, budget)
    read = reader() if reader else None
    archive = workers.digests.new()  # its digest is the diff_id
    with ExitStack() as blobs:
        try:
            for (compression, level), share in zip(codecs, parts, strict=True):
                new_encoder = partial(
                    encoder,
                    compression,
                    level,
                    pool=workers.pool,
                    workers=workers.count,
                    epoch=epoch,
                    memory=share.memory,
                    budget=share.budget,
                    chunked=partial(_chunked, packer, layout),
                )
                blob = blobs.enter_context(layout.blob())
                outputs.append(
                    _Output(
                        blob,
                        compression,
                        None if compression == "disabled" else workers.digests.new(),
                        new_encoder,
                        packer.plan,
                        block_size(compression, level),
                    )
                )
            with closing(packer.segments(lambda: _relieve(outputs))) as segments:
                for segment in segments:
                    if read:
                        read(segment.data)
                    for output in outputs:
                        output.encoder.poll()
                    archive.update(segment.data, segment.block.release)
                    size += len(segment.data)
                    for output in outputs:
                        output.add(segment)
                    if segment.is_last:
                        segment.block.release()
                    written(size)
            for output in outputs:
                output.encoder.finish()
            diff_id = archive.finish().hex()
            for output in outputs:
                output.finish(diff_id)
            return Layer(
                tuple(output.descriptor() for output in outputs), f"sha256:{diff_id}", size
            )
        except BaseException:
            for output in outputs:
                output.encoder.drop()
            raise
        finally:
            for output in outputs:
                output.let_go()
            outputs.clear()  # which hold each other by way of the budget


def _chunked(packer: Packer, layout: Layout, *args: Any, **more: Any) -> Encoder:
    from build_oci.codec.chunked.encoder import PlanEncoder

    return PlanEncoder(
        packer.plan,
        *args,
        new_file=layout.nameless_file,
        problem_error=partial(problem_error, packer.root),
        **more,
    )


def _relieve(outputs: list[_Output]) -> bool:
    """Wait for the end of a block of one of OUTPUTS; False if none is under way."""
    return any(output.encoder.relieve() for output in outputs)


class _Output:
    """The blob of one codec on its way: what compresses the archive into it, and the blob's digest.

    Blocks are cut where a packer would cut them whose blocks are of this codec's size, so the bytes
    do not depend on the other codecs.
    """

    def __init__(
        self,
        blob: Blob,
        compression: str,
        digest: Digest | None,
        new_encoder: Callable[[Sink], Encoder],
        plan: Plan,
        most: int,
    ) -> None:
        """DIGEST: of the blob; None where it is the archive itself. MOST: bytes of a block of
        several segments.
        """
        self._blob = blob
        self._codec = stream_codec(compression)
        self._digest = digest
        self._plan = plan
        self._most = most
        # The start of a block, whose rest another block of the packer's holds.
        self._kept = bytearray()
        self._start = self._end = 0  # of what follows it in the packer's block
        self.encoder = new_encoder(self._sink)

    def add(self, segment: Segment) -> None:
        """Take in the next segment of the archive."""
        self._end += len(segment.data)
        size = len(self._kept) + self._end - self._start
        following = segment.number + 1
        is_block = following == len(self._plan) or size + self._plan.size(following) > self._most
        if is_block and not self._kept:
            segment.block.hold()
            self.encoder.add(segment.block.data[self._start : self._end], segment.block.release)
            self._start = self._end
        elif is_block or segment.is_last:
            # The packer's block ends before this one, or did: so that its memory can be used anew,
            # what it holds is copied.
            self._kept += segment.block.data[self._start : self._end]
            self._start = self._end
            if is_block:
                block, self._kept = self._kept, bytearray()
                self.encoder.add(memoryview(block), lambda: None)
        if segment.is_last:
            self._start = self._end = 0

    def finish(self, diff_id: str) -> None:
        """End the blob; DIFF_ID: the digest of the archive."""
        self._blob.finish(self._digest.finish().hex() if self._digest else diff_id)

    def descriptor(self) -> Descriptor:
        """That of the blob, once it is finished."""
        return Descriptor(
            LAYER_MEDIA_TYPES[self._codec],
            self._blob.digest,
            self._blob.size,
            annotations=self.encoder.annotations,
        )

    def let_go(self) -> None:
        """Break the circle of this and its encoder, so that what the plan holds, open files among
        it, is closed now.
        """
        del self.encoder, self._plan

    def _sink(self, piece: Piece) -> None:
        self._blob.append(piece)
        if self._digest:
            self._digest.update(piece)
