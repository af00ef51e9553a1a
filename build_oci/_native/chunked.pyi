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

    offset: where it begins in the file.
    checksum: CRC-64 of the piece.
    starts_chunk: does a chunk begin with it, or does one of the piece before go on?
    is_last: the file ends with it.
    """

    offset: int
    size: int
    checksum: int
    starts_chunk: bool
    is_last: bool
    chunks: list[Chunk]

class OpenFile(NamedTuple):
    """A file whose headers are in a block and whose content ends in another.

    entry: a comma and the start of its entry in the TOC.
    name: its name, a JSON string.
    position: of its headers in the tar-split.
    size: of the content.
    digest: SHA-256 of the content, None where it is not known yet.
    """

    entry: bytes
    name: bytes
    position: int
    size: int
    digest: bytes | None

@disjoint_base
class Parts:
    """The parts of a block.

    problem: what went wrong, if anything; nothing else may be asked then.
    tar_split: the lines for the headers in the block, and for the contents that are wholly in it.
    opened: the last file, if it ends in another block; at most one.
    """

    problem: Problem | None
    opened: OpenFile | None
    tar_split: bytes
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

def plan_block(owner: Plan, first: int, count: int, data: Buffer) -> Parts:
    """The parts of a block that holds COUNT filled segments of a plan from FIRST on, one behind the
    other in DATA. Releases the GIL.
    """

@disjoint_base
class Cut:
    """A block that a Splitter cut off: its first `size` bytes. pieces: (start, size, is it the
    last) of each content in it that stands in other blocks too.
    """

    size: int
    pieces: list[tuple[int, int, bool]]
    def parts_of(self, data: Buffer) -> Parts:
        """The parts of the block, whose bytes are DATA; to be called once. Releases the GIL."""

@disjoint_base
class Splitter:
    """Cuts an archive of any builder into blocks of about LIMIT bytes, which do not depend on the
    pieces that it comes in. KERNEL: of SHA-256, see build_oci._native.sha256. One thread at a time.

    full: the bytes of the block that is complete; 0 while none is.
    """

    full: int
    def __new__(cls, limit: int, kernel: int | None = None) -> Splitter: ...
    def feed(self, data: Buffer) -> int:
        """Take in bytes of the archive: all of DATA, or up to where a block is full. Returns how
        many. Releases the GIL. ValueError says why the archive cannot be told.
        """

    def finish(self) -> None:
        """There are no more bytes; what is left is the last block. ValueError as above."""

    def take(self, data: Buffer) -> Cut:
        """The block that is full. DATA: the bytes taken in since the block before; what stands in
        them behind the block is to be kept for the next one. ValueError as above.
        """

@disjoint_base
class PathSet:
    """Paths of members, 8 to 32 bytes of memory for each. One thread at a time."""

    def add(self, path: bytes) -> bool:
        """Is PATH another one than all before? `./a` and `a/` are the same as `a`. Two paths may be
        taken for one by chance, once in 2⁶⁴.
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
    """The bytes that the TOC of PLAN takes at the least; "name", "time" or "whiteout" if an entry
    cannot be told in it, else ""; its path.

    Releases the GIL.
    """

def content_keys(digest: Buffer, offset: int, end: int) -> bytes:
    """The keys of a content in the TOC, which lies in the blob's bytes [offset, end), with a comma
    in front. DIGEST: its SHA-256.
    """

def chunk_entry(name: bytes, offset: int, place: int) -> bytes:
    """A comma and the TOC's entry of a further chunk of the file NAME, a JSON string, at OFFSET of
    the blob and PLACE of the content; without its closing brace.
    """

def chunk_keys(size: int, digest: Buffer, is_hole: bool) -> bytes:
    """The keys of a chunk, with a comma in front."""

def content_line(name: bytes, size: int, checksum: int, position: int) -> bytes:
    """The line of the tar-split for the content of the file NAME, a JSON string."""
