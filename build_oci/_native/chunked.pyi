"""Blocks of an archive as parts of a zstd:chunked layer: frames, chunks, and what TOC and tar-split
say of them.

Offsets and sizes are in bytes. A plan is a `build_oci._native.tar.Plan`; MEMBER numbers its members
in tar order.
"""

from typing import NamedTuple

from typing_extensions import Buffer, disjoint_base

from build_oci._native.tar import Plan
from build_oci._native.walk import Problem

# Frame that holds it, place and size in the block, is it a hole, SHA-256 (None: it may go on in
# another block).
Chunk = tuple[int, int, int, bool, bytes | None]

class Piece(NamedTuple):
    """What a block holds of a file that stands in several blocks.

    offset: where it begins in the file. checksum: CRC-64 of the piece. starts_chunk: does a chunk
    begin with it, or does one of the piece before go on? is_last: the file ends with it.
    """

    member: int
    offset: int
    size: int
    checksum: int
    starts_chunk: bool
    is_last: bool
    chunks: list[Chunk]

@disjoint_base
class Parts:
    """The parts of a block that holds COUNT filled segments of PLAN from FIRST on, one behind the
    other in DATA. Releases the GIL.

    problem: what went wrong, if anything; nothing else may be asked then. tar_split: the lines for
    the headers in the block, and for the contents that are wholly in it.
    """

    problem: Problem | None
    tar_split: bytes
    def __new__(cls, plan: Plan, first: int, count: int, data: Buffer) -> Parts: ...
    def frames(self) -> bytes:
        """What is to be one frame each: pairs of native 64-bit numbers, start and size, that cover
        the block in order.
        """

    def toc(self, packed: Buffer, offset: int) -> bytes:
        """The TOC's entries of the members in the block, without the files of `pieces`, each with a
        comma in front.

        PACKED: the compressed sizes of the frames as native 64-bit numbers; the first one begins at
        OFFSET of the blob. Releases the GIL.
        """

    def pieces(self) -> list[Piece]:
        """The files that are not wholly in the block: one that comes from the block before, one
        that goes on in the next, at most.
        """

def crc64(data: Buffer, crc: int = 0) -> int:
    """CRC-64 (ISO) of DATA behind bytes whose checksum is CRC. Releases the GIL."""

def crc64_joined(first: int, second: int, size: int) -> int:
    """The checksum of two runs of bytes in a row, from that of each and the SIZE of the second."""

def cut_content(
    data: Buffer, before: bytes = b"", after: bytes = b""
) -> tuple[list[tuple[int, int, bool]], bool]:
    """The chunks of DATA as (start, size, is it a hole), and whether a chunk begins with it.
    Releases the GIL.

    BEFORE, AFTER: up to 1024 bytes of the same content on either side, all there are if fewer.
    """

def survey(owner: Plan) -> tuple[int, str, bytes]:
    """The bytes that the TOC of PLAN takes at the least; "name" or "time" if an entry cannot be
    told in it, else ""; its path.

    Releases the GIL.
    """

def file_entry(owner: Plan, member: int, offset: int, end: int) -> bytes:
    """A comma and the TOC's entry of a file without its closing brace; its content lies in the
    blob's bytes [offset, end).
    """

def chunk_entry(owner: Plan, member: int, offset: int, place: int) -> bytes:
    """The same for a further chunk at OFFSET of the blob and PLACE of the content."""

def chunk_keys(size: int, digest: Buffer, is_hole: bool) -> bytes:
    """The keys of a chunk, with a comma in front."""

def content_line(owner: Plan, member: int, checksum: int) -> bytes:
    """The line of the tar-split for the content of a file."""
