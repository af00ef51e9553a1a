"""How far a build is: what a listener is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from build_oci.records import NamedTuple

Stage = Literal["walk", "parent", "hash", "previous", "pack", "done"]


class Progress(NamedTuple):
    """How far one image is.

    image: its number in the configuration, from 0.
    stage: `walk` and `hash` count entries of the tree, `parent` and `previous` bytes of those
    images' blobs, `pack` bytes of the layers' archives; `done` comes once, at the end.
    total: None where it is not known yet.

    `parent` runs beside `walk` and `hash`.
    """

    image: int
    stage: Stage
    done: int
    total: int | None


Listener = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """The listener that does nothing."""
