"""How far a build is, and how a terminal or a log shows it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

Stage = Literal["walk", "parent", "hash", "pack", "done"]


class Progress(NamedTuple):
    """How far one image is.

    image: its number in the configuration, from 0. stage: `walk` and `hash` count entries of the layer's tree, `parent` bytes of the
    parent's blobs, `pack` bytes of the layer's archive; `done` comes once, at the end. total: None where it is not known yet. `parent`
    runs beside `walk` and `hash`.
    """

    image: int
    stage: Stage
    done: int
    total: int | None


Listener = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """The listener that does nothing."""


class Reporter(Protocol):
    """Shows what it is told of, on standard error; safe to call from several threads."""

    def __call__(self, progress: Progress) -> None: ...

    def say(self, line: str) -> None:
        """A line of text, in between."""

    def close(self) -> None:
        """Leave the terminal as it was."""


def reporter(mode: str, names: list[str], say: Callable[[str], None], *, terminal: bool) -> Reporter | None:
    """What shows the progress of images with these NAMES: MODE is `auto`, `bar`, `plain` or `none`, SAY prints a line. None: nothing."""
    if mode == "bar" or (mode == "auto" and terminal):
        return Bars(names)
    return Lines(names, say) if mode == "plain" else None


_DOING = {"walk": "walking", "parent": "reading parent", "hash": "hashing", "pack": "packing"}
_BYTES = ("parent", "pack")


class Lines:
    """Plain lines, a few seconds apart and one at the end of each image: for logs."""

    INTERVAL = 5.0

    def __init__(self, names: list[str], say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._names = names
        self._say = say
        self._clock = clock
        self._lock = threading.Lock()
        self._started = clock()
        self._last = dict.fromkeys(range(len(names)), self._started)

    def __call__(self, progress: Progress) -> None:
        now = self._clock()
        with self._lock:
            if progress.stage != "done" and now - self._last[progress.image] < self.INTERVAL:
                return
            self._last[progress.image] = now
        self._say(f"build-oci: {self._names[progress.image]}: {_told(progress)} after {now - self._started:.0f} s")

    def say(self, line: str) -> None:
        self._say(line)

    def close(self) -> None:
        pass


def _told(progress: Progress) -> str:
    if progress.stage == "done":
        return "done"
    if progress.stage not in _BYTES:
        return f"{_DOING[progress.stage]}, {progress.done:,} entries"
    of = f" of {progress.total / 1e6:,.0f} MB ({progress.done / progress.total:.0%})" if progress.total else " MB"
    return f"{_DOING[progress.stage]}, {progress.done / 1e6:,.0f}{of}"


class Bars:
    """A bar for each stage that is under way, with rate and remaining time; it leaves no trace."""

    def __init__(self, names: list[str]) -> None:
        from tqdm import tqdm

        self._tqdm = tqdm
        self._names = names
        self._lock = threading.Lock()
        self._bars: dict[tuple[int, Stage], Any] = {}

    def __call__(self, progress: Progress) -> None:
        with self._lock:
            if progress.stage in ("pack", "done"):
                # What ran before is over.
                for key in [key for key in self._bars if key[0] == progress.image and key[1] != progress.stage]:
                    self._bars.pop(key).close()
            if progress.stage == "done":
                return
            bar = self._bars.get((progress.image, progress.stage))
            if bar is None:
                bar = self._bars[progress.image, progress.stage] = self._new(progress)
            bar.total = progress.total
            bar.update(progress.done - bar.n)
            if progress.total is not None and progress.done >= progress.total:
                self._bars.pop((progress.image, progress.stage)).close()

    def say(self, line: str) -> None:
        self._tqdm.write(line, file=sys.stderr)

    def close(self) -> None:
        with self._lock:
            while self._bars:
                self._bars.popitem()[1].close()

    def _new(self, progress: Progress) -> Any:
        in_bytes = progress.stage in _BYTES
        return self._tqdm(
            desc=f"{self._names[progress.image]}: {_DOING[progress.stage]}",
            total=progress.total,
            unit="B" if in_bytes else " entries",
            unit_scale=True,
            file=sys.stderr,
            leave=False,
            dynamic_ncols=True,
            mininterval=0.1,
        )
