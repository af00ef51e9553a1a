"""The codec `disabled`: bytes stored as they are."""

from __future__ import annotations

from build_oci.codec.blocks import Piece, Sink, StreamOnly

BLOCK_SIZE = 1 << 20


class StoredEncoder(StreamOnly):
    """Hands on what it gets."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, data: Piece) -> None:
        self._sink(data)

    def finish(self) -> None:
        pass
