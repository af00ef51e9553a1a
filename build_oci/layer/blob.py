"""One layer's way into a blob: the diff_id of the archive, its compression, the digest of what comes out, side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from build_oci._native import sha256
from build_oci.codec.blocks import Encoder, Piece, Sink
from build_oci.codec.table import CHUNKED, encoder, stream_codec
from build_oci.layer.walk import problem_error
from build_oci.oci.documents import Descriptor
from build_oci.oci.media_types import LAYER_MEDIA_TYPES
from build_oci.work.pool import Strand

if TYPE_CHECKING:
    from build_oci.config.load import Compression
    from build_oci.layer.pack import Packer, Segment
    from build_oci.oci.layout import Layout
    from build_oci.work.crew import Crew
    from build_oci.work.pool import Task


# Bytes of the blob that wait to be hashed beside the archive: a block of zstd's, as what is not noise comes out.
_MOST_PIECES = 4 << 20


class Layer(NamedTuple):
    """A layer in the layout: its blob, and the digest and size in bytes of the archive inside."""

    descriptor: Descriptor
    diff_id: str
    archive_size: int


def write_layer(
    packer: Packer,
    layout: Layout,
    workers: Crew,
    *,
    compression: Compression,
    level: int | None,
    epoch: int | None,
    at_once: int = 1,
    written: Callable[[int], None] = lambda size: None,
    warn: Callable[[str], None] = lambda text: None,
) -> Layer:
    """Compress the archive of PACKER into a blob of LAYOUT while it is being made; WRITTEN is told how many bytes of it are.

    AT_ONCE: how many layers share the memory of an image at the most. A layer that zstd:chunked cannot express becomes plain zstd, and WARN
    is told why. Raises OutputError, and what PACKER raises.
    """
    shared: dict[str, Any] = {"pool": workers.pool, "workers": workers.count, "budget": workers.codec_budget}
    if compression == CHUNKED:
        from build_oci.codec.chunked.encoder import CannotBeChunkedError, ChunkedEncoder, check_plan

        new_encoder: Callable[[Sink], Encoder] = partial(
            ChunkedEncoder, packer.plan, level, new_file=layout.nameless_file, problem_error=partial(problem_error, packer.layer), **shared
        )
        try:
            check_plan(packer.plan)
            return _write(packer, layout, workers, "zstd", new_encoder, written, at_once)
        except CannotBeChunkedError as reason:
            warn(f"{packer.layer}: its layer is written as plain zstd, because {reason}")
    codec = stream_codec(compression)
    memory = workers.codec_memory // at_once
    return _write(packer, layout, workers, codec, partial(encoder, codec, level, epoch=epoch, memory=memory, **shared), written, at_once)


def _write(
    packer: Packer,
    layout: Layout,
    workers: Crew,
    codec: str,
    new_encoder: Callable[[Sink], Encoder],
    written: Callable[[int], None],
    at_once: int,
) -> Layer:
    """The archive in a blob of CODEC, which NEW_ENCODER writes to the function that it gets."""
    size = 0
    plain = codec == "disabled"  # what is stored as it is has one digest for both
    with layout.blob() as blob:
        digests = _Digests(Strand(workers.pool), _MOST_PIECES // at_once)
        pieces: list[Piece] = []  # of the blob, that are to be hashed

        def sink(piece: Piece) -> None:
            blob.append(piece)
            if not plain:
                pieces.append(piece)

        compressed = new_encoder(sink)
        try:
            with closing(packer.segments(compressed.relieve)) as segments:
                for segment in segments:
                    compressed.poll()
                    digests.update(segment, pieces)
                    pieces = []
                    size += len(segment.data)
                    if segment.is_last:
                        compressed.add(segment.block.data, segment.block.release)
                    written(size)
            compressed.finish()
        except BaseException:
            compressed.drop()
            raise
        digests.update(None, pieces)
        diff_id, digest = digests.finish()
        blob.finish(diff_id if plain else digest)
    descriptor = Descriptor(LAYER_MEDIA_TYPES[codec], blob.digest, blob.size, annotations=compressed.annotations)
    return Layer(descriptor, f"sha256:{diff_id}", size)


class _Digests:
    """The SHA-256 of the archive and that of the blob, reckoned side by side by a thread of the pool."""

    def __init__(self, strand: Strand, most_pieces: int) -> None:
        """MOST_PIECES: bytes of the blob that may wait for an archive to go beside."""
        self._strand = strand
        self._under_way: deque[Task[None]] = deque()
        # Elsewhere OpenSSL's code for one message is quicker than ours.
        self._streams = _Streams(most_pieces) if sha256.in_pairs() else _PlainStreams()

    def update(self, segment: Segment | None, pieces: list[Piece]) -> None:
        """Take SEGMENT in, whose block is released then, and PIECES of the blob. Raises what went wrong with those before."""
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
        self._pieces: deque[Piece] = deque()  # of the blob, which comes in bursts: they wait for an archive to go beside

    def update(self, data: memoryview, pieces: list[Piece]) -> None:
        self._pieces.extend(pieces)
        while data and self._pieces:
            piece = self._pieces.popleft()
            both = min(len(data), len(piece))
            self.archive.update_beside(data[:both], self.blob, memoryview(piece)[:both])
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
