"""The codec gzip: one member in, every member out.

Levels and blocks of both directions are here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from build_oci.codec.blocks import PIECE, Blocks, Piece, Pieces, Sink, slices
from build_oci.records import NamedTuple

if TYPE_CHECKING:
    from build_oci.work.budget import Budget
    from build_oci.work.pool import Pool

DEFAULT_LEVEL = 5
HIGHEST_LEVEL = 9
LIBRARIES = ("deflate", "isal.isal_zlib")
MAGIC = b"\x1f\x8b"

# Against 1 MiB, blocks of 256 KiB cost 0.6 % in size and of 512 KiB 0.2 %, of 4 MiB save 0.1 %
# (gzip 5 and 6 on 60 MB of binaries).
_DEFLATE_BLOCK = 1 << 20
_BLOCKS_PER_TASK = 2  # blocks that one thread compresses, at most: so many at once are joined
_MOST_TASKS = 24  # at most, whatever the workers: 96 MiB with what comes out of them

# Up to this level ISA-L, three times as fast for some percent more output; above, libdeflate.
# (ISA-L's level 3 is left alone: what it writes depends on the CPU it runs on.)
_LAST_ISAL_LEVEL = 2
# What ISA-L is given first of a block. It keeps 288 bytes back, which a match may need, and so this
# makes it compress one byte. ISA-L has a fault on x86-64 (up to 2.32.1 at least, in
# isal_deflate_icf_body_hash_hist): the call that compresses the first byte of a stream takes the
# hash of the third position from a register that holds the address of the stream, not the data
# (rcx at .write_first_byte). So it marks an entry of its hash table that depends on that address,
# and some of the matches found later differ: in one block of about 10,000. A call that ends after
# the first byte does not use this hash, and the next call computes its own from the data. This
# costs no time, and 2 bytes in a block of files, 25 in one of zeros.
_ISAL_START = 288 + 1
# Our level -> libdeflate's. Its levels find more than gzip's of the same name: each of these is the
# quickest that is not larger on a root file system, but from 7 on, where smaller is what was asked
# for. (On libraries or programs alone 3 is up to 2.1 %, 5 up to 0.9 % larger.)
_LIBDEFLATE_LEVELS = {3: 1, 4: 2, 5: 4, 6: 5, 7: 6, 8: 7, 9: 9}
# More than a compressor of these levels takes (libdeflate 1.26: 0.67 MB); `deflate` 0.9 reads at
# address 0 when it gets none.
_LIBDEFLATE_ROOM = 1 << 20

BLOCK_SIZE = _BLOCKS_PER_TASK * _DEFLATE_BLOCK  # what one thread compresses at once


def _deflate_isal(level: int, block: memoryview) -> bytes:
    from isal import isal_zlib

    # memLevel 8: 9 gives 0.3 % more, less is slower.
    stream = isal_zlib.compressobj(level, isal_zlib.DEFLATED, -15, 8)
    return (
        stream.compress(block[:_ISAL_START])
        + stream.compress(block[_ISAL_START:])
        + stream.flush(isal_zlib.Z_FULL_FLUSH)
    )


def _deflate_libdeflate(level: int, blocks: Sequence[memoryview]) -> list[bytearray]:
    """BLOCKS, of which at most _BLOCKS_PER_TASK are given."""
    import deflate

    from build_oci._native.deflate import make_joinable
    from build_oci._native.memory import probe_allocation

    streams: list[bytearray] = []
    for block in blocks:
        probe_allocation(_LIBDEFLATE_ROOM)
        streams.append(deflate.deflate_compress(block, _LIBDEFLATE_LEVELS[level]))
    if streams:
        make_joinable(*streams)
    return streams


def _deflate_stored(block: memoryview) -> bytes:
    """BLOCK as deflate's blocks of bytes as they are."""
    parts = [block[at : at + 0xFFFF] for at in range(0, len(block), 0xFFFF)]
    # Not the last one, and stored; how many, and the same with each bit turned.
    heads = [
        b"\x00" + len(part).to_bytes(2, "little") + (len(part) ^ 0xFFFF).to_bytes(2, "little")
        for part in parts
    ]
    return b"".join(piece for pair in zip(heads, parts, strict=True) for piece in pair)


def _deflate(level: int, blocks: Sequence[memoryview]) -> list[Piece]:
    """BLOCKS as raw deflate that does not look back, which anything can follow."""
    from build_oci._native.deflate import is_incompressible

    if level <= _LAST_ISAL_LEVEL:
        return [_deflate_isal(level, block) for block in blocks]
    pieces: list[Piece] = []
    waiting: list[memoryview] = []  # two at once are made to go on in less time
    for block in blocks:
        # Packages, archives and pictures would cost libdeflate as much time as anything else, for
        # nothing. A seventh of a root file system with its package caches; 10 % of the time of its
        # build with gzip 5.
        if is_incompressible(block):
            pieces += [*_deflate_libdeflate(level, waiting), _deflate_stored(block)]
            waiting = []
        else:
            waiting.append(block)
    return pieces + _deflate_libdeflate(level, waiting)


class _Deflated(NamedTuple):
    pieces: Pieces
    crc: int
    size: int  # of what it was made of


class GzipEncoder(Blocks[_Deflated]):
    """One member of deflate blocks that do not look back at each other, joined by full flushes."""

    def __init__(
        self, level: int, sink: Sink, pool: Pool, workers: int, budget: Budget, epoch: int
    ) -> None:
        # RFC 1952: magic, deflate, no flags, mtime, XFL 0, OS 255 (unknown)
        header = b"\x1f\x8b\x08\x00" + (epoch % (1 << 32)).to_bytes(4, "little") + b"\x00\xff"
        super().__init__(
            sink, pool, BLOCK_SIZE, min(2 * workers + 2, _MOST_TASKS), header, budget, 0
        )
        self._level = level
        self._crc = self._bytes = 0

    def _pack(self, block: memoryview) -> _Deflated:
        # Not ISA-L's, behind which libdeflate takes 4 % more time, because it leaves the upper
        # halves of vector registers in use.
        import deflate

        parts = [block[at : at + _DEFLATE_BLOCK] for at in range(0, len(block), _DEFLATE_BLOCK)]
        return _Deflated(_deflate(self._level, parts), deflate.crc32(block), len(block))

    def _taken(self, packed: _Deflated) -> Pieces:
        from isal import isal_zlib

        self._crc = isal_zlib.crc32_combine(self._crc, packed.crc, packed.size)
        self._bytes += packed.size
        return packed.pieces

    def _trailer(self) -> bytes:
        # A block of nothing that is the last, then checksum and size.
        return (
            b"\x03\x00"
            + self._crc.to_bytes(4, "little")
            + (self._bytes % (1 << 32)).to_bytes(4, "little")
        )


# ---- decompression

# RFC 1952, section 2.3: the place of the flags in a member's header, and those that no reader may
# pass over. ISA-L does.
_FLAGS, _RESERVED = 3, 0xE0


def decode(chunks: Iterable[bytes]) -> Iterator[bytes]:
    from isal import isal_zlib

    igzip: Any = isal_zlib
    member = igzip.decompressobj(31)
    header = b""  # of the member, up to its flags
    padded = False
    # Short slices, because each call copies what it leaves of its input.
    for data in slices(chunks, 1 << 17):
        while data:
            if member is None:
                padding = len(data) - len(data.lstrip(b"\0"))
                padded = padded or padding > 0
                data = data[padding:]
                if not data:
                    break
                if padded or data[0] != 0x1F:
                    raise ValueError("something that is not gzip follows the gzip stream")
                member, header = igzip.decompressobj(31), b""
            if len(header) < _FLAGS + 1:
                header += data[: _FLAGS + 1 - len(header)]
                is_gzip = len(header) > _FLAGS and header.startswith(b"\x1f\x8b")
                if is_gzip and header[_FLAGS] & _RESERVED:
                    raise ValueError("the gzip stream is corrupt (reserved flags are set)")
            try:
                piece = member.decompress(data, PIECE)
                data = member.unconsumed_tail
                while len(piece) == PIECE and not member.eof:
                    yield piece
                    piece = member.decompress(data, PIECE)
                    data = member.unconsumed_tail
            except igzip.error as error:
                raise ValueError(f"the gzip stream is corrupt ({error})") from error
            if piece:
                yield piece
            if member.eof:
                data, member = member.unused_data, None
    if member is not None:
        raise ValueError("the gzip stream is truncated")
