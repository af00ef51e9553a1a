"""One image under way: what it is built with and its progress."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from build_oci.progress import Listener, Progress, Stage, ignore
from build_oci.records import NamedTuple

if TYPE_CHECKING:
    from build_oci.config.model import BuildConfig, ImageConfig
    from build_oci.oci.layout import Layout
    from build_oci.parent.layers import Parents
    from build_oci.work.crew import Crew


class Context(NamedTuple):
    """What all images of one build share.

    `created` is the time of the build in seconds, `epoch` SOURCE_DATE_EPOCH if it is set.
    """

    config: BuildConfig
    layout: Layout
    workers: Crew
    parents: Parents | None  # None: no image has one
    epoch: int | None
    created: int
    warn: Callable[[str], None]
    listen: Listener = ignore
    explain: Callable[[str], None] = lambda text: None
    differences: bool = True  # is to be told why a layer is not one of the previous image?


class Run:
    """One image under way, which has this NUMBER in the configuration. stages: seconds by stage."""

    def __init__(self, context: Context, image: ImageConfig, number: int) -> None:
        self.context = context
        self.image = image
        self.platform = image.platform
        self.stages: dict[str, float] = {}
        self._number = number

    def tell(self, stage: Stage, done: int, total: int | None) -> None:
        self.context.listen(Progress(self._number, stage, done, total))

    @contextmanager
    def stage(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.stages[stage] = self.stages.get(stage, 0.0) + time.monotonic() - started


class Gauge:
    """How many bytes of several archives are made; several threads may tell."""

    def __init__(self, total: int, tell: Callable[[int, int | None], None]) -> None:
        self._total = total
        self._tell = tell
        self._done: dict[int, int] = {}
        self._sum = 0
        self._lock = threading.Lock()

    def reach(self, number: int, size: int) -> None:
        """SIZE bytes of the archive NUMBER are made by now."""
        with self._lock:
            self._sum += size - self._done.get(number, 0)
            self._done[number] = size
            self._tell(self._sum, self._total)


class Shares:
    """How far several readers are together; several threads may tell."""

    def __init__(self, tell: Callable[[int, int | None], None], count: int) -> None:
        self._tell = tell
        self._done, self._totals = [0] * count, [0] * count
        self._lock = threading.Lock()

    def reach(self, number: int, done: int, total: int) -> None:
        """The reader NUMBER has read DONE bytes of TOTAL."""
        with self._lock:
            self._done[number], self._totals[number] = done, total
            self._tell(sum(self._done), sum(self._totals))
