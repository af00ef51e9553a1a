"""An archive of any builder as zstd:chunked, while it streams by: the layers of parents.

The table of contents must say of every member just what its headers say to the readers of the
format, who hold the two against each other; and the tar-split holds the headers as they are, so
that the archive can be written again byte for byte. So nothing is written anew here: headers are
read, and where they cannot be told, the layer cannot be expressed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from build_oci._native.chunked import Splitter
from build_oci.codec.blocks import Piece, Sink
from build_oci.codec.chunked.container import BLOCK
from build_oci.codec.chunked.encoder import BlocksOfMembers, CannotBeChunkedError

if TYPE_CHECKING:
    from build_oci.work.budget import Budget
    from build_oci.work.digests import Digest, Digests
    from build_oci.work.pool import Pool


class ArchiveEncoder(BlocksOfMembers):
    """Encodes an archive that is written to it. write(), finish() and relieve() raise
    CannotBeChunkedError where it cannot be expressed; it is to be dropped then.
    """

    def __init__(
        self,
        level: int | None,
        sink: Sink,
        *,
        pool: Pool,
        workers: int,
        budget: Budget,
        digests: Digests,
        new_file: Callable[[], BinaryIO],
        kernel: int | None = None,
    ) -> None:
        """DIGESTS: of POOL; KERNEL: of SHA-256, see build_oci._native.sha256. The others as
        BlocksOfMembers.
        """
        super().__init__(level, sink, pool=pool, workers=workers, budget=budget, new_file=new_file)
        self._splitter = Splitter(BLOCK, kernel)
        # Files that do not fit into one block are hashed beside the packing of blocks.
        self._digests = digests
        self._content: Digest | None = None  # of the one that goes on in the next block
        self._contents: deque[Digest] = deque()  # of those that have come to their end

    def write(self, data: Piece) -> None:
        view = memoryview(data).cast("B")
        while view:
            try:
                size = self._splitter.feed(view)
            except ValueError as error:
                raise CannotBeChunkedError(str(error)) from None
            self._open += view[:size]
            view = view[size:]
            if self._splitter.full:
                self._cut()

    def add(self, block: memoryview, release: Callable[[], None]) -> None:
        self.write(block)
        release()

    def finish(self) -> None:
        try:
            self._splitter.finish()
        except ValueError as error:
            raise CannotBeChunkedError(str(error)) from None
        if self._splitter.full:
            self._cut()
        super().finish()

    def _cut(self) -> None:
        """The bytes taken in hold a whole block: have it packed."""
        try:
            cut = self._splitter.take(self._open)
        except ValueError as error:
            raise CannotBeChunkedError(str(error)) from None
        taken, self._open = self._open, self._open[cut.size :]
        block = memoryview(taken)[: cut.size]
        self._begin(partial(self._pack_block, cut.parts_of, block, lambda: None), cut.size)
        for start, size, is_last in cut.pieces:
            content = self._content or self._digests.new()
            content.update(block[start : start + size])
            self._content = None if is_last else content
            if is_last:
                self._contents.append(content)

    def _next_digest(self) -> bytes:
        return self._contents.popleft().finish()
