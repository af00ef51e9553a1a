"""A layer that was read from an image, in other codecs than its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from build_oci.codec.table import CHUNKED, encoder, shares, stream_codec
from build_oci.oci.documents import Descriptor
from build_oci.oci.media_types import LAYER_MEDIA_TYPES
from build_oci.work.budget import RelievedBudget
from build_oci.work.cpus import sha256_kernel

if TYPE_CHECKING:
    from build_oci.codec.blocks import Encoder, Piece
    from build_oci.oci.layout import Blob, Layout
    from build_oci.work.crew import Crew

Read = Callable[[Callable[["Piece"], None]], None]


class Recompression(ExitStack):
    """One way of an archive into several blobs, a codec each.

    `left_out`: why those are not made that cannot express the archive, by codec.
    """

    def __init__(
        self,
        targets: Sequence[tuple[str, int | None]],
        layout: Layout,
        workers: Crew,
        *,
        memory: int,
        epoch: int | None,
    ) -> None:
        """TARGETS: pairs of codec and level; MEMORY: bytes that all encoders together may take."""
        super().__init__()
        self.left_out: dict[str, str] = {}
        self._layout = layout
        self._digests = workers.digests
        self._encoders: dict[str, tuple[Encoder, Blob]] = {}
        budget = RelievedBudget(workers.codec_budget, self._relieve)
        for (target, level), share in zip(targets, shares(targets, memory, budget), strict=True):
            output = self.enter_context(layout.blob())
            one = encoder(
                target,
                level,
                output.write,
                pool=workers.pool,
                workers=workers.count,
                epoch=epoch,
                memory=share.memory,
                budget=share.budget,
                chunked=self._chunked,
            )
            self._encoders[target] = one, output

    def _relieve(self) -> bool:
        for target in list(self._encoders):
            relieved: list[bool] = []
            given_up = not self._each(target, partial(_relieve_into, relieved))
            if given_up or any(relieved):
                return True
        return False

    def _chunked(self, *args: Any, **more: Any) -> Encoder:
        from build_oci.codec.chunked.archive import ArchiveEncoder

        return ArchiveEncoder(
            *args,
            digests=self._digests,
            new_file=self._layout.nameless_file,
            kernel=sha256_kernel(),
            **more,
        )

    def run(self, read: Read) -> dict[str, Descriptor]:
        """The descriptors of the archive that READ gives to a function, by codec.

        To be called once.
        """
        try:
            read(self._write)
            made = {}
            for target in list(self._encoders):
                if self._each(target, lambda one: one.finish()):
                    one, output = self._encoders[target]
                    output.finish()
                    made[target] = Descriptor(
                        LAYER_MEDIA_TYPES[stream_codec(target)],
                        output.digest,
                        output.size,
                        annotations=one.annotations,
                    )
            return made
        except BaseException:
            for one, _ in self._encoders.values():
                one.drop()
            raise
        finally:
            self._encoders.clear()  # which hold each other by way of the budget

    def _write(self, piece: Piece) -> None:
        for target in list(self._encoders):
            self._each(target, lambda one: one.write(piece))

    def _each(self, target: str, do: Callable[[Encoder], None]) -> bool:
        """DO something with the encoder of TARGET; False where it cannot express the archive, and
        is given up, or was before.
        """
        if target not in self._encoders:
            return False
        one = self._encoders[target][0]
        if target != CHUNKED:
            do(one)
            return True
        from build_oci.codec.chunked.encoder import CannotBeChunkedError

        try:
            do(one)
        except CannotBeChunkedError as reason:
            self.left_out[target] = str(reason)
            if self._encoders.pop(target, None):
                one.drop()
            return False
        return True


def _relieve_into(relieved: list[bool], one: Encoder) -> None:
    relieved.append(one.relieve())


def recompressed(
    path: Path,
    codec: str,
    targets: Sequence[tuple[str, int | None]],
    read: Read,
    read_again: Read,
    layout: Layout,
    workers: Crew,
    *,
    memory: int,
    epoch: int | None,
    explain: Callable[[str], None],
    warn: Callable[[str], None],
) -> dict[str, Descriptor]:
    """The layer PATH, compressed with CODEC, in each of TARGETS (codec, level); its descriptors by
    codec.

    What zstd:chunked cannot express becomes plain zstd, which WARN is told; where CODEC is zstd it
    is not among the descriptors, as the layer is that already. READ gives the archive to a
    function, and READ_AGAIN does so once more. Raises what they raise, and OutputError.
    """
    for target, _ in targets:
        explain(f"{path}: recompressed from {codec} to {target}")
    with Recompression(targets, layout, workers, memory=memory, epoch=epoch) as first:
        made = first.run(read)
        reason = first.left_out.get(CHUNKED)
    if reason is None:
        return made
    warn(f"{path}: becomes plain zstd, because it cannot be zstd:chunked: {reason}")
    if codec != "zstd":
        plain = [("zstd", level) for target, level in targets if target == CHUNKED]
        with Recompression(plain, layout, workers, memory=memory, epoch=epoch) as second:
            made |= second.run(read_again)
    return made
