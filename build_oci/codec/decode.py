"""A layer's stream, decompressed, whoever wrote it: zstd, gzip, disabled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

_PIECE = 1 << 20  # decode() never hands out more at once


def decode(codec: str, chunks: Iterable[bytes]) -> Iterator[bytes | memoryview]:
    """The plain bytes of CHUNKS, a stream in CODEC ("zstd", "gzip", "disabled"), in pieces of at most 1 MiB.

    A piece is valid until the next but one is asked for.

    Every gzip member and every zstd frame is read, skippable frames are skipped, zeros may follow the last gzip member. Needs the window
    of a zstd frame in memory, 128 MiB at most. ValueError if the stream is corrupt, ends early or is followed by something else, or for
    another CODEC.
    """
    decoders: dict[str, Callable[[Iterable[bytes]], Iterator[bytes | memoryview]]]
    decoders = {"zstd": _decode_zstd, "gzip": _decode_gzip, "disabled": _slices}
    if codec not in decoders:
        raise ValueError(f"unknown compression {codec!r}")
    return decoders[codec](chunks)


def _slices(chunks: Iterable[bytes], size: int = _PIECE) -> Iterator[bytes]:
    for chunk in chunks:
        if len(chunk) <= size:
            yield chunk
        else:
            yield from (chunk[at : at + size] for at in range(0, len(chunk), size))


def _decode_gzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    from isal import isal_zlib

    igzip: Any = isal_zlib
    member = igzip.decompressobj(31)
    padded = False
    # Short slices, because each call copies what it leaves of its input.
    for data in _slices(chunks, 1 << 17):
        while data:
            if member is None:
                padding = len(data) - len(data.lstrip(b"\0"))
                padded = padded or padding > 0
                data = data[padding:]
                if not data:
                    break
                if padded or data[0] != 0x1F:
                    raise ValueError("something that is not gzip follows the gzip stream")
                member = igzip.decompressobj(31)
            try:
                piece = member.decompress(data, _PIECE)
                data = member.unconsumed_tail
                while len(piece) == _PIECE and not member.eof:
                    yield piece
                    piece = member.decompress(data, _PIECE)
                    data = member.unconsumed_tail
            except igzip.error as error:
                raise ValueError(f"the gzip stream is corrupt ({error})") from error
            if piece:
                yield piece
            if member.eof:
                data, member = member.unused_data, None
    if member is not None:
        raise ValueError("the gzip stream is truncated")


_ZSTD_WINDOW = 1 << 27
_ZSTD_BLOCK = 1 << 17  # the format's limit for a block, packed or not


class _Source:
    """Bytes on demand from the chunks of a zstd stream."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._chunk = b""
        self._at = 0

    def at_end(self) -> bool:
        while self._at == len(self._chunk):
            if (chunk := next(self._chunks, None)) is None:
                return True
            self._chunk, self._at = chunk, 0
        return False

    def some(self, size: int) -> bytes:
        """Up to SIZE bytes, at least one unless SIZE is 0; ValueError at the end."""
        if size and self.at_end():
            raise ValueError("the zstd stream is truncated")
        found = self._chunk[self._at : self._at + size]
        self._at += len(found)
        return found

    def exactly(self, size: int) -> bytes:
        """SIZE bytes; ValueError if the stream ends before."""
        found = self.some(size)
        while len(found) < size:
            found += self.some(size - len(found))
        return found

    def skip(self, size: int) -> None:
        while size:
            size -= len(self.some(min(size, _PIECE)))


def _decode_zstd(chunks: Iterable[bytes]) -> Iterator[memoryview]:
    import zstandard

    source = _Source(chunks)
    if source.at_end():
        raise ValueError("the zstd stream is truncated")
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    buffers = [bytearray(_PIECE), bytearray(_PIECE)]
    first = True
    while not source.at_end():
        magic = source.exactly(4)
        if magic[1:] == b"\x2a\x4d\x18" and magic[0] & 0xF0 == 0x50:
            source.skip(int.from_bytes(source.exactly(4), "little"))
        elif magic == b"\x28\xb5\x2f\xfd":
            try:
                frame: Any = _Frame(source)
                with decompressor.stream_reader(frame, read_size=_PIECE) as reader:
                    while size := reader.readinto(buffers[0]):
                        yield memoryview(buffers[0])[:size]
                        buffers.reverse()
                if not frame.ended:
                    raise ValueError("the zstd stream is corrupt (a frame ends early)")
            except zstandard.ZstdError as error:
                raise ValueError(f"the zstd stream is corrupt ({error})") from error
        elif first:
            raise ValueError("this is not a zstd stream")
        else:
            raise ValueError("something that is not zstd follows the zstd stream")
        first = False


class _Frame:
    """One frame whose magic has been read from SOURCE (RFC 8878, 3.1.1), as a file that ends where the frame does.

    The library reads no further than it must to fill the buffer that it is given: so what comes out at once stays bounded.
    """

    def __init__(self, source: _Source) -> None:
        descriptor = source.exactly(1)
        single_segment, self._has_checksum = descriptor[0] >> 5 & 1, descriptor[0] >> 2 & 1
        size_of_content_size = (single_segment, 2, 4, 8)[descriptor[0] >> 6]
        size_of_dictionary_id = (0, 1, 2, 4)[descriptor[0] & 3]
        rest = source.exactly((1 - single_segment) + size_of_dictionary_id + size_of_content_size)
        self._source = source
        self._parts = [b"\x28\xb5\x2f\xfd" + descriptor + rest]
        self.ended = False  # has all of it been read?

    def read(self, size: int) -> bytes:
        """The next bytes, around SIZE of them; none at the end. ValueError where the stream ends before."""
        parts, self._parts = self._parts, []
        while size > 0 and not self.ended:
            header = self._source.exactly(3)
            word = int.from_bytes(header, "little")
            kind, of_block = word >> 1 & 3, word >> 3
            if of_block > _ZSTD_BLOCK or kind == 3:
                raise ValueError("the zstd stream is corrupt (bad block header)")
            parts += header, self._source.exactly(1 if kind == 1 else of_block)
            size -= of_block
            if word & 1:
                self.ended = True
                parts.append(self._source.exactly(4 * self._has_checksum))
        return b"".join(parts)
