"""Why a layer is not one of the previous image: the first entry that differs, and in what."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import TYPE_CHECKING

from build_oci._native.lower import TarReader
from build_oci.codec.table import decode
from build_oci.errors import BuildOciError, Cancelled, printable
from build_oci.oci.headers import header_list
from build_oci.records import NamedTuple

if TYPE_CHECKING:
    from build_oci._native.tar import Plan as TarPlan
    from build_oci.oci.untrusted import Source, VerifiedBlob
    from build_oci.previous.codecs import OldLayer
    from build_oci.work.crew import Crew

_COMPARED = 64 << 20  # bytes of members that are looked at to say in what a layer differs


class Difference(NamedTuple):
    """Why a layer is not one of the previous image. what: `content`, `mode`, …
    (build_oci._native.tar.Difference), `unknown`; path: of the first entry that differs, below the
    root; of `unknown`, why."""

    what: str
    path: bytes

    def __str__(self) -> str:
        path = printable(self.path) or "."
        return (
            path
            if self.what == "unknown"
            else (
                f"{path} is {self.what}"
                if self.what in ("new", "gone")
                else f"{self.what} of {path}"
            )
        )


class Differences:
    """Finds them. owned: the components that each of the layers holds, by what it remembers. trust:
    are header lists believed?
    """

    def __init__(
        self,
        source: Source,
        layers: Sequence[OldLayer],
        owned: Sequence[frozenset[str]],
        workers: Crew,
        *,
        trust: bool,
    ) -> None:
        self._trust = trust
        self._source = source
        self._layers = layers
        self._owned = owned
        self._workers = workers

    def find(
        self, plan: TarPlan, components: Sequence[str], reused: Collection[str]
    ) -> Difference | None:
        """The first entry of PLAN, a layer of COMPONENTS, that differs from the layer of the
        previous image that has most of them; None if none has any.

        REUSED: digests of the layers that were taken. Reads the layer, or its header list, only as
        far as is needed, and does not verify what it reads.
        """
        old = self._counterpart(frozenset(components), reused)
        if old is None:
            return None
        try:
            return self._compare(plan, old)
        except Cancelled:
            raise
        except (BuildOciError, ValueError) as error:
            return Difference(
                "unknown",
                f"its previous layer cannot be compared: {error}".encode(
                    "utf-8", "backslashreplace"
                ),
            )

    def _counterpart(self, components: frozenset[str], reused: Collection[str]) -> OldLayer | None:
        """The layer that holds most of COMPONENTS; of none, the topmost that is of no component."""
        owned = self._owned
        rest = [
            number
            for number, old in enumerate(self._layers)
            if old.codec and old.descriptor.digest not in reused
        ]
        if not components:
            rest = [number for number in rest if not owned[number]]
            return self._layers[rest[-1]] if rest else None
        best = max(rest, key=lambda number: len(components & owned[number]), default=None)
        return self._layers[best] if best is not None and components & owned[best] else None

    def _compare(self, plan: TarPlan, old: OldLayer) -> Difference | None:
        at = 0
        with self._names(old) as (blob, codec, has_contents):
            reader = TarReader(
                memory_limit=_COMPARED, trust=True, whole_names=False, headers=not has_contents
            )
            for piece in decode(codec, _checked(blob, self._workers.check), self._workers.windows):
                reader.feed(piece)
                found = plan.difference(reader, at)
                if not isinstance(found, int):
                    return Difference(*found)
                at = found
        reader.finish()
        found = plan.difference(reader, at)
        return (
            Difference("unknown", b"no entry, but the bytes of the archive")
            if isinstance(found, int)
            else Difference(*found)
        )

    @contextmanager
    def _names(self, old: OldLayer) -> Iterator[tuple[VerifiedBlob, str, bool]]:
        """What tells the entries of OLD: a blob, what decodes it, and whether contents are there
        too.
        """
        with ExitStack() as opened:
            listed = None
            if self._trust:
                listed = opened.enter_context(header_list(self._source, old.descriptor.annotations))
            if listed is not None:
                yield listed.blob, "zstd", False
            else:
                blob = opened.enter_context(self._source.blob(old.descriptor))
                yield blob, old.codec, True


def _checked(pieces: Iterator[bytes] | VerifiedBlob, check: Callable[[], None]) -> Iterator[bytes]:
    for piece in islice(pieces, None):
        check()
        yield piece
