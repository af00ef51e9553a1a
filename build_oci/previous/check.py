"""Layers of the previous image, held against the plans whose recipes the image tells
(kernel/pack/archive_check.h): two of them side by side, which takes little longer than one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeVar

from build_oci._native.tar import ArchiveCheck
from build_oci.codec.table import decode
from build_oci.errors import ParentError
from build_oci.oci.untrusted import named
from build_oci.parent.archive import ReadGauge, blob_pieces, read_archive
from build_oci.parent.lower import ArchiveSink
from build_oci.records import NamedTuple
from build_oci.work.budget import Budget

if TYPE_CHECKING:
    from build_oci._native.tar import Plan as TarPlan
    from build_oci.oci.untrusted import VerifiedBlob
    from build_oci.previous.codecs import OldLayer
    from build_oci.work.crew import Crew

Result = TypeVar("Result")

# With so many layers for a thread, or more, each thread reads two at once: with fewer, a thread
# would be left with nothing.
_ENOUGH = 2


class _LargeWindowError(Exception):
    """A stream needs a larger window than every reader is granted."""


class _SmallWindows(Budget):
    """Refuses every window that would be counted: a thread that held one and waited for another
    could wait for ever.
    """

    def take(self, size: int, *, block: bool) -> bool:
        raise _LargeWindowError


class Told(NamedTuple):
    """A layer of the previous image, its blob, and the plan whose recipe the image tells."""

    old: OldLayer
    blob: VerifiedBlob
    plan: TarPlan


def can_check(plan: TarPlan | None) -> bool:
    """Can an archive be held against PLAN, the one of its recipe?"""
    return plan is not None and ArchiveCheck.possible(plan)


def are_many(layers: Sequence[OldLayer], threads: int) -> bool:
    """Are LAYERS to be read by check_side_by_side()?"""
    return len(layers) >= _ENOUGH * threads


def check_archive(told: Told, gauge: ReadGauge, workers: Crew) -> bool:
    """Is the archive of TOLD byte for byte that of its plan, and has it the digest that the image's
    config tells? GAUGE is told of every piece of the blob.

    Raises ParentError for a blob that is not what its descriptor says or cannot be decoded.
    """
    check = ArchiveCheck(told.plan)
    sink = ArchiveSink(check.feed, lambda: check.digest)
    path, diff_id = told.blob.path, told.old.diff_id
    try:
        read_archive(told.old.codec, told.blob, path, diff_id, workers, sink, gauge=gauge)
    except ParentError:
        if check.holds:
            raise
        return False
    return check.complete


class _UnderWay(NamedTuple):
    """A layer that is being checked; `opened` keeps its blob open."""

    told: Told
    opened: ExitStack
    check: ArchiveCheck
    pieces: Iterator[bytes | memoryview]


def check_side_by_side(
    layers: deque[OldLayer],
    opened: Callable[[OldLayer, ExitStack], Told],
    done: Callable[[Told, bool], Result],
    gauge: ReadGauge,
    workers: Crew,
) -> list[Result]:
    """Takes LAYERS from the left, which other threads do too, and holds two at a time against their
    plans, as check_archive() does.

    OPENED opens the blob of a layer until the end of the stack. DONE is told whether the layer
    holds, while its blob is still open; a list of what it returned comes back.
    """
    results: list[Result] = []
    with ExitStack() as last, workers.decoding():
        under_way: list[_UnderWay] = []
        while True:
            while len(under_way) < 2:
                try:
                    old = layers.popleft()
                except IndexError:
                    break
                # At an error each that is still open is closed.
                stack = last.enter_context(ExitStack())
                told = opened(old, stack)
                pieces = _pieces(told, gauge, workers)
                under_way.append(_UnderWay(told, stack, ArchiveCheck(told.plan), pieces))
            if not under_way:
                return results
            pieces_of = [(one, _next(one)) for one in under_way]
            fed = [(one.check, piece) for one, piece in pieces_of if piece is not None]
            if fed:
                fed[0][0].feed(fed[0][1], *(fed[1] if len(fed) > 1 else ()))
            for one, piece in pieces_of:
                if piece is None or not one.check.holds:
                    under_way.remove(one)
                    results.append(done(one.told, piece is None and _holds(one)))
                    one.opened.close()


def _next(one: _UnderWay) -> bytes | memoryview | None:
    try:
        return next(one.pieces, None)
    except _LargeWindowError:
        return None  # it is not complete, so it is read by itself


def _holds(one: _UnderWay) -> bool:
    return one.check.complete and f"sha256:{one.check.digest.hex()}" == one.told.old.diff_id


def _pieces(told: Told, gauge: ReadGauge, workers: Crew) -> Iterator[bytes | memoryview]:
    pieces = gauge.watch(blob_pieces(told.old.codec, told.blob, told.old.diff_id))
    with named(told.blob.path):
        for piece in decode(told.old.codec, pieces, _SmallWindows(0)):
            workers.check()
            yield piece
