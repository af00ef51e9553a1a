"""A layer as zstd:chunked: each content in frames of its own, with a table of contents (TOC) and
the archive's skeleton (tar-split) behind.

A block of the archive is one task of the pool: it finds headers, contents and chunks, compresses
them, and makes the block's lines of the tar-split. What depends on the blocks before, the offsets
in the TOC and files that reach over several blocks, is put together in order. The bytes depend on
the archive and its blocks, the level and the codec library's version; never on the workers or on
time.
"""

from __future__ import annotations

import os
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, BinaryIO

from build_oci._native.chunked import (
    chunk_entry,
    chunk_keys,
    content_keys,
    content_line,
    crc64_joined,
    plan_block,
    survey,
)
from build_oci._native.sha256 import Sha256
from build_oci.codec.blocks import Blocks, Pieces, Sink
from build_oci.codec.chunked.container import (
    BLOCK,
    BLOCKS_HELD,
    FOOTER_SIZE,
    SKIPPABLE_HEADER,
    TOC_LIMIT,
    Metadata,
    Span,
    skippable,
)
from build_oci.codec.zstd import DEFAULT_LEVEL
from build_oci.errors import OutputError
from build_oci.records import NamedTuple

if TYPE_CHECKING:
    from build_oci._native.chunked import OpenFile, Parts, Piece
    from build_oci._native.tar import Plan
    from build_oci._native.walk import Problem
    from build_oci.work.budget import Budget
    from build_oci.work.pool import Pool

_SPOOL = 4 << 20  # bytes of compressed metadata that stay in memory
_PIECE = 1 << 20
_PROBLEMS = {
    "name": "a name is not UTF-8",
    "time": "a time is outside of the years 0 to 9999",
    "whiteout": "a whiteout has a content",
}


class CannotBeChunkedError(Exception):
    """The layer cannot be expressed as zstd:chunked; the text says why."""


def check_plan(plan: Plan) -> None:
    """Raise CannotBeChunkedError where it is clear before packing that the layer of PLAN cannot be
    written.
    """
    least, problem, path = survey(plan)
    if problem:
        raise CannotBeChunkedError(f"{_PROBLEMS[problem]}: /{os.fsdecode(path)}")
    _check_size("table of contents", least)


def _check_size(what: str, size: int) -> None:
    if size > TOC_LIMIT:
        raise CannotBeChunkedError(
            f"its {what} is larger than the {TOC_LIMIT >> 20} MiB that clients read"
        )


class _Packed(NamedTuple):
    """What came of one block: its frames joined, their sizes, what is left to say of it, its lines
    of the tar-split.
    """

    data: bytes
    sizes: array[int]
    parts: Parts
    pieces: list[Piece]
    loose: list[list[bytes]]  # for each piece, the content of its chunks that have no digest yet
    lines: bytes
    lines_size: int


class BlocksOfMembers(Blocks[_Packed]):
    """Encodes an archive whose blocks are known as members: what PlanEncoder and ArchiveEncoder
    share.
    """

    def __init__(
        self,
        level: int | None,
        sink: Sink,
        *,
        pool: Pool,
        workers: int,
        budget: Budget,
        new_file: Callable[[], BinaryIO],
    ) -> None:
        """NEW_FILE: a temporary file without a name."""
        import zstandard

        super().__init__(sink, pool, BLOCK, workers + 3, b"", budget, (BLOCKS_HELD - 2) * BLOCK)
        # Without a checksum, as a plain layer's frame: digests hold everything.
        self._new_compressor: Callable[[], Any] = partial(
            zstandard.ZstdCompressor, level=DEFAULT_LEVEL if level is None else level
        )
        self._compressors: deque[Any] = deque()  # that nobody is using
        self._written = 0  # bytes of the blob
        self._new_file = new_file
        self._toc = _Spool(new_file)
        self._toc_stream = self._new_compressor().compressobj()
        self._toc_size = 0
        self._is_empty = True  # no entry in the TOC yet
        self._tar_split = _Spool(new_file)
        self._tar_split_size = 0
        self._large: _LargeFile | None = None
        self._add_text(b'{"version":1,"entries":[')

    def finish(self) -> None:
        self._drain(0)
        _check_size("tar-split", self._tar_split.size)
        self._add_text(b'],"tarSplitDigest":"sha256:' + self._tar_split.digest.encode() + b'"}')
        self._toc.write(self._toc_stream.flush())
        _check_size("table of contents", max(self._toc.size, self._toc_size))
        toc = Span(self._written + SKIPPABLE_HEADER, self._toc.size, self._toc_size)
        tar_split = Span(
            toc.offset + toc.size + SKIPPABLE_HEADER, self._tar_split.size, self._tar_split_size
        )
        metadata = Metadata(f"sha256:{self._toc.digest}", toc, tar_split)
        for spool in (self._toc, self._tar_split):
            self._sink(skippable(spool.size))
            for piece in spool.pieces():
                self._sink(piece)
        self._sink(skippable(FOOTER_SIZE) + metadata.footer())
        self.annotations = metadata.annotations()

    # ---- in the pool

    def _pack_block(
        self,
        find: Callable[[memoryview], Parts],
        block: memoryview,
        release: Callable[[], None],
    ) -> _Packed:
        try:
            return self._pack_parts(find(block), block)
        finally:
            release()

    def _pack_parts(self, parts: Parts, block: memoryview) -> _Packed:
        import zstandard

        try:
            compressor = self._compressors.pop()
        except IndexError:
            compressor = self._new_compressor()
        # One call for all frames of the block, which lets other threads run meanwhile.
        frames = compressor.multi_compress_to_buffer(
            zstandard.BufferWithSegments(block, parts.frames()), threads=1
        )
        lines = compressor.compress(parts.tar_split) if parts.tar_split else b""
        self._compressors.append(compressor)
        pieces = parts.pieces()
        loose = [
            [
                bytes(block[start : start + size])
                for _, start, size, _, digest in piece.chunks
                if digest is None
            ]
            for piece in pieces
        ]
        return _Packed(
            b"".join(frames),
            array("Q", map(len, frames)),
            parts,
            pieces,
            loose,
            lines,
            len(parts.tar_split),
        )

    # ---- in order

    def _taken(self, packed: _Packed) -> Pieces:
        offsets = list(accumulate(packed.sizes, initial=self._written)) if packed.pieces else []
        pieces = list(zip(packed.pieces, packed.loose, strict=True))
        # Of the files that are not wholly in the block, one may reach into it, and one out of it.
        if pieces and pieces[0][0].offset:
            self._take_piece(*pieces.pop(0), offsets)
        self._add_entries(packed.parts.toc(packed.sizes, self._written))
        if packed.parts.opened:
            self._large = _LargeFile(packed.parts.opened, self._new_file)
        for piece, loose in pieces:
            self._take_piece(piece, loose, offsets)
        if packed.lines:
            self._add_lines(packed.lines, packed.lines_size)
        self._written += len(packed.data)
        return (packed.data,)

    def _take_piece(self, piece: Piece, loose: list[bytes], offsets: list[int]) -> None:
        assert self._large is not None
        self._large.add(piece, loose, offsets)
        if piece.is_last:
            digest = self._large.file.digest or self._next_digest()
            for text in self._large.entries(digest):
                self._add_entries(text)
            line = self._large.line()
            self._add_lines(self._new_compressor().compress(line), len(line))
            self._large = None

    def _next_digest(self) -> bytes:
        """The SHA-256 of the file that ends now, where its digest was not known when it began."""
        raise NotImplementedError

    def _add_entries(self, text: bytes) -> None:
        """TEXT has a comma in front of every entry."""
        if text:
            self._add_text(text[1:] if self._is_empty else text)
            self._is_empty = False

    def _add_text(self, text: bytes) -> None:
        self._toc_size += len(text)
        _check_size("table of contents", self._toc_size)
        self._toc.write(self._toc_stream.compress(text))

    def _add_lines(self, packed: bytes, size: int) -> None:
        self._tar_split.write(packed)
        self._tar_split_size += size


class PlanEncoder(BlocksOfMembers):
    """Encodes the archive of one plan.

    It takes blocks only: the plan's segments, in order, none left out.
    """

    def __init__(
        self,
        plan: Plan,
        level: int | None,
        sink: Sink,
        *,
        pool: Pool,
        workers: int,
        budget: Budget,
        new_file: Callable[[], BinaryIO],
        problem_error: Callable[[Problem], Exception],
    ) -> None:
        """NEW_FILE: a temporary file without a name. PROBLEM_ERROR makes an exception of what went
        wrong with a file of the tree.
        """
        super().__init__(level, sink, pool=pool, workers=workers, budget=budget, new_file=new_file)
        self._plan = plan
        self._problem_error = problem_error
        self._segment = 0  # the first that no block had yet

    def write(self, data: object) -> None:
        raise NotImplementedError("a plan is encoded block by block")

    def add(self, block: memoryview, release: Callable[[], None]) -> None:
        first, size = self._segment, 0
        while size < len(block):
            size += self._plan.size(self._segment)
            self._segment += 1
        find = partial(self._parts, first, self._segment - first)
        self._begin(partial(self._pack_block, find, block, release), len(block))

    def _parts(self, first: int, count: int, block: memoryview) -> Parts:
        parts = plan_block(self._plan, first, count, block)
        if parts.problem:
            raise self._problem_error(parts.problem)
        return parts


class _OpenChunk(NamedTuple):
    """A chunk that may go on in the next block."""

    offset: int
    place: int
    is_hole: bool
    content: Sha256


class _LargeFile:
    """A file that several blocks hold, as far as they have come."""

    def __init__(self, file: OpenFile, new_file: Callable[[], BinaryIO]) -> None:
        self.file = file
        self._offset = self._end = 0  # of the content in the blob
        self._checksum = 0
        self._size = 0  # of the content so far
        self._count = 0
        self._open: _OpenChunk | None = None
        self._first_keys = b""
        self._spool = _Spool(new_file)  # the entries of all chunks but the first

    def add(self, piece: Piece, loose: list[bytes], offsets: list[int]) -> None:
        """The next piece of it; OFFSETS: where the frames of its block begin in the blob, and where
        the last one ends.
        """
        self._offset = self._offset or offsets[piece.chunks[0][0]]
        self._end = offsets[piece.chunks[-1][0] + 1]
        self._checksum = crc64_joined(self._checksum, piece.checksum, piece.size)
        contents = iter(loose)
        for number, (frame, _, size, is_hole, digest) in enumerate(piece.chunks):
            goes_on = (
                number == 0
                and not piece.starts_chunk
                and self._open is not None
                and self._open.is_hole == is_hole
            )
            if not goes_on:
                self._close()
            if digest is not None:
                self._add_chunk(offsets[frame], self._size, size, digest, is_hole)
            else:
                if self._open is None:
                    self._open = _OpenChunk(offsets[frame], self._size, is_hole, Sha256())
                self._open.content.update(next(contents))
            self._size += size
        if piece.is_last:
            self._close()

    def entries(self, digest: bytes) -> Iterator[bytes]:
        """Those of the TOC, once all of it has been added; DIGEST: its SHA-256."""
        keys = content_keys(digest, self._offset, self._end)
        yield self.file.entry + keys + (self._first_keys if self._count > 1 else b"") + b"}"
        yield from self._spool.pieces()

    def line(self) -> bytes:
        """That of the tar-split."""
        return content_line(self.file.name, self.file.size, self._checksum, self.file.position + 1)

    def _close(self) -> None:
        if self._open is not None:
            offset, place, is_hole, content = self._open
            self._add_chunk(offset, place, self._size - place, content.digest(), is_hole)
            self._open = None

    def _add_chunk(self, offset: int, place: int, size: int, digest: bytes, is_hole: bool) -> None:
        keys = chunk_keys(size, digest, is_hole)
        if self._count:
            self._spool.write(chunk_entry(self.file.name, offset, place) + keys + b"}")
        else:
            self._first_keys = keys
        self._count += 1


class _Spool:
    """Bytes that are wanted later: in memory while they are few, else in a file without a name.
    `digest`: their SHA-256, hexadecimal.
    """

    def __init__(self, new_file: Callable[[], BinaryIO]) -> None:
        self.size = 0
        self._content = Sha256()
        self._new_file = new_file
        self._file: BinaryIO | None = None
        self._held: list[bytes] = []
        self._held_size = 0

    @property
    def digest(self) -> str:
        return self._content.digest().hex()

    def write(self, data: bytes) -> None:
        self._content.update(data)
        self.size += len(data)
        self._held.append(data)
        self._held_size += len(data)
        if self._held_size > _SPOOL:
            if self._file is None:
                self._file = self._new_file()
            with _named():
                self._file.write(b"".join(self._held))
            self._held.clear()
            self._held_size = 0

    def pieces(self) -> Iterator[bytes]:
        """All of them, once, in order."""
        if self._file is not None:
            with _named(), self._file as file:
                file.seek(0)
                while piece := file.read(_PIECE):
                    yield piece
        for start in range(0, len(self._held), 64):
            yield b"".join(self._held[start : start + 64])


@contextmanager
def _named() -> Iterator[None]:
    """An error of the file is one of the output."""
    try:
        yield
    except OSError as error:
        what = f"the metadata of a layer cannot be written: {error.strerror}"
        raise OutputError(what, hint="free some space, or write elsewhere with --output") from None
