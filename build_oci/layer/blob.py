"""One layer's way into a blob: the diff_id of the archive, its compression, the digest of what
comes out, side by side.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Any

from build_oci._native import sha256
from build_oci.codec.blocks import Encoder, Piece, Sink
from build_oci.codec.table import CHUNKED, block_size, encoder, shares, stream_codec
from build_oci.layer.walk import problem_error
from build_oci.oci.documents import Descriptor
from build_oci.oci.media_types import LAYER_MEDIA_TYPES
from build_oci.records import NamedTuple
from build_oci.work.budget import RelievedBudget
from build_oci.work.pool import Strand

if TYPE_CHECKING:
    from build_oci._native.tar import Plan
    from build_oci.config.keys import Codec
    from build_oci.layer.pack import Packer, Segment
    from build_oci.oci.layout import Blob, Layout
    from build_oci.work.crew import Crew
    from build_oci.work.pool import Task


# Bytes of the blob that wait to be hashed beside the archive: a block of zstd's, as what is not
# noise comes out.
_MOST_PIECES = 4 << 20


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
    with ExitStack() as blobs:
        try:
            for (compression, level), share in zip(codecs, parts, strict=True):
                # The first takes in the archive as well, which one codec alone hashes beside its
                # blob.
                digests = _Digests(Strand(workers.pool), _MOST_PIECES // at_once)
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
                        digests,
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
                        output.poll(segment if output is outputs[0] else None)
                    size += len(segment.data)
                    for output in outputs:
                        output.add(segment)
                    if segment.is_last:
                        segment.block.release()
                    written(size)
            for output in outputs:
                output.encoder.finish()
            diff_id = outputs[0].finish(None)
            for output in outputs[1:]:
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
        digests: _Digests,
        new_encoder: Callable[[Sink], Encoder],
        plan: Plan,
        most: int,
    ) -> None:
        """DIGESTS may take in the archive too. MOST: bytes of a block of several segments."""
        self._blob = blob
        self._codec = stream_codec(compression)
        self._plain = compression == "disabled"  # what is stored as it is has one digest for both
        self._digests = digests
        self._pieces: list[Piece] = []  # of the blob, that are to be hashed
        self._plan = plan
        self._most = most
        # The start of a block, whose rest another block of the packer's holds.
        self._kept = bytearray()
        self._start = self._end = 0  # of what follows it in the packer's block
        self.encoder = new_encoder(self._sink)

    def poll(self, segment: Segment | None) -> None:
        """Hand on what is ready, and hash it beside SEGMENT."""
        self.encoder.poll()
        if segment or self._pieces:
            self._digests.update(segment, self._pieces)
            self._pieces = []

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

    def finish(self, diff_id: str | None) -> str:
        """End the blob; returns the digest of the archive, DIFF_ID if it is known."""
        self._digests.update(None, self._pieces)
        archive, digest = self._digests.finish()
        diff_id = diff_id or archive
        self._blob.finish(diff_id if self._plain else digest)
        return diff_id

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
        if not self._plain:
            self._pieces.append(piece)


class _Digests:
    """The SHA-256 of the archive and that of the blob, reckoned side by side by a thread of the
    pool.
    """

    def __init__(self, strand: Strand, most_pieces: int) -> None:
        """MOST_PIECES: bytes of the blob that may wait for an archive to go beside."""
        self._strand = strand
        self._under_way: deque[Task[None]] = deque()
        # Elsewhere OpenSSL's code for one message is quicker than ours.
        self._streams = _Streams(most_pieces) if sha256.in_pairs() else _PlainStreams()

    def update(self, segment: Segment | None, pieces: list[Piece]) -> None:
        """Take SEGMENT in, whose block is released then, and PIECES of the blob.

        Raises what went wrong with those before.
        """
        self._under_way.append(self._strand.submit(self._take, segment, pieces))
        while self._under_way and self._under_way[0].done():
            self._under_way.popleft().result()

    def finish(self) -> tuple[str, str]:
        """The digests of archive and blob, in hexadecimal digits."""
        for task in self._under_way:
            task.result()
        self._streams.finish()
        return self._streams.archive.digest().hex(), self._streams.blob.digest().hex()

    def _take(self, segment: Segment | None, pieces: list[Piece]) -> None:
        try:
            self._streams.update(segment.data if segment else memoryview(b""), pieces)
        finally:
            if segment:
                segment.block.release()


class _Streams:
    def __init__(self, most_pieces: int) -> None:
        self._most_pieces = most_pieces
        self.archive = sha256.Sha256()
        self.blob = sha256.Sha256()
        # Pieces of the blob, which comes in bursts: they wait for an archive to go beside.
        self._pieces: deque[Piece] = deque()

    def update(self, data: memoryview, pieces: list[Piece]) -> None:
        self._pieces.extend(pieces)
        while data and self._pieces:
            piece = self._pieces.popleft()
            both = min(len(data), len(piece))
            self.archive.update_pair(data[:both], self.blob, memoryview(piece)[:both])
            data = data[both:]
            if both < len(piece):
                self._pieces.appendleft(memoryview(piece)[both:])
        self.archive.update(data)
        while sum(map(len, self._pieces)) > self._most_pieces:
            self.blob.update(self._pieces.popleft())

    def finish(self) -> None:
        while self._pieces:
            self.blob.update(self._pieces.popleft())


class _PlainStreams:
    def __init__(self) -> None:
        import hashlib  # 5 ms, which most have no use for

        self.archive = hashlib.sha256()
        self.blob = hashlib.sha256()

    def update(self, data: memoryview, pieces: list[Piece]) -> None:
        self.archive.update(data)
        for piece in pieces:
            self.blob.update(piece)

    def finish(self) -> None:
        pass
