"""How far a build is, as a terminal or a log shows it."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from build_oci.errors import counted
from build_oci.progress import Progress, Stage
from build_oci.records import NamedTuple


class Reporter(Protocol):
    """Shows what it is told of, on standard error; safe to call from several threads."""

    def __call__(self, progress: Progress) -> None: ...

    def say(self, line: str) -> None:
        """A line of text, in between."""

    def close(self) -> None:
        """Leave the terminal as it was."""


def reporter(
    mode: str, names: list[str], say: Callable[[str], None], *, terminal: bool
) -> Reporter | None:
    """What shows the progress of images with these NAMES: MODE is `auto`, `bar`, `plain` or `none`,
    SAY prints a line. None: nothing.
    """
    if mode == "bar" or (mode == "auto" and terminal):
        return Bars(names, say)
    return Lines(names, say) if mode == "plain" else None


_DOING = {
    "walk": "walking",
    "parent": "reading parent",
    "hash": "hashing",
    "previous": "reading previous",
    "pack": "packing",
}
_BYTES = ("parent", "previous", "pack")
# Left free at the end of a line: the ^C that a terminal writes behind a bar must not begin the next
# one.
_MARGIN = 4


class Lines:
    """Plain lines, a few seconds apart and one at the end of each image: for logs."""

    INTERVAL = 5.0

    def __init__(
        self,
        names: list[str],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
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
        self._say(
            f"build-oci: {self._names[progress.image]}: {_told(progress)} after"
            f" {now - self._started:.0f} s"
        )

    def say(self, line: str) -> None:
        self._say(line)

    def close(self) -> None:
        pass


def _told(progress: Progress) -> str:
    if progress.stage == "done":
        return "done"
    if progress.stage not in _BYTES:
        return f"{_DOING[progress.stage]}, {counted(progress.done, 'entry')}"
    of = (
        f" of {progress.total / 1e6:,.0f} MB ({progress.done / progress.total:.0%})"
        if progress.total
        else " MB"
    )
    return f"{_DOING[progress.stage]}, {progress.done / 1e6:,.0f}{of}"


class Bars:
    """A bar for each stage that is under way, with rate and remaining time; it leaves no trace.

    Whoever tells of progress only leaves a number behind; one thread draws. Nothing appears in the
    first DELAY seconds of a build, nor for a stage that has not run for BRIEF or will be over
    within LEFT, by its rate so far: a flash tells nobody anything, and the import of tqdm takes 25
    ms, which only a build of several seconds hides.
    """

    DELAY = 2.0
    BRIEF = 0.3
    LEFT = 1.5
    INTERVAL = 0.2

    def __init__(self, names: list[str], say: Callable[[str], None]) -> None:
        self._names = names
        self._say = say
        self._lock = threading.Lock()
        self._under_way: dict[tuple[int, Stage], _UnderWay] = {}
        self._bars: dict[tuple[int, Stage], Any] = {}
        self._over = threading.Event()
        self._artist = threading.Thread(target=self._draw, name="bars", daemon=True)
        self._artist.start()

    def __call__(self, progress: Progress) -> None:
        image, stage, done, total = progress
        with self._lock:
            if stage in ("pack", "done"):
                # What ran before is over.
                for key in [key for key in self._under_way if key[0] == image and key[1] != stage]:
                    del self._under_way[key]
            if stage == "done" or (total is not None and done >= total):
                self._under_way.pop((image, stage), None)
                return
            known = self._under_way.get((image, stage))
            self._under_way[image, stage] = _UnderWay(
                known.since if known else time.time(), done, total
            )

    def say(self, line: str) -> None:
        with self._lock:
            if not self._bars:
                self._say(line)
                return
            with suppress(OSError, ValueError):  # nobody listening is no error
                next(iter(self._bars.values())).write(line, file=sys.stderr)

    def close(self) -> None:
        self._over.set()
        self._artist.join()

    def _draw(self) -> None:
        begin = self.DELAY
        while not self._over.wait(begin):
            begin = self.INTERVAL
            with self._lock:
                if any(self._is_worth_it(stage) for stage in self._under_way.values()):
                    break
        else:
            return
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # or it starts a thread of its own
        # Its own is one for processes, too, and is held for ever by what fails to write.
        tqdm.set_lock(threading.RLock())
        while not self._over.is_set():
            with self._lock:
                try:
                    self._refresh(tqdm)
                except (OSError, ValueError):
                    # The terminal has gone: the build goes on without bars.
                    for bar in self._bars.values():
                        bar.disable = True  # or it tries once more when it is collected
                    self._bars.clear()
                    return
            self._over.wait(self.INTERVAL)
        with self._lock, suppress(OSError, ValueError):
            self._under_way.clear()
            shown = bool(self._bars)
            self._refresh(tqdm)
            if shown and sys.stderr.isatty():
                # Clears the ^C that the terminal itself may have put behind a bar.
                sys.stderr.write("\r\x1b[J")
                sys.stderr.flush()
        self._bars.clear()

    def _refresh(self, tqdm: Any) -> None:
        """Let the bars be those of the stages under way, one a line, without gaps."""
        columns = _columns()
        for key in [key for key in self._bars if key not in self._under_way]:
            self._bars.pop(key).close()
        for line, bar in enumerate(self._bars.values()):
            if bar.pos != line:
                bar.clear()
                bar.pos = line
        for key, stage in self._under_way.items():
            if key not in self._bars and self._is_worth_it(stage):
                self._bars[key] = self._new(tqdm, key, stage, columns)
        for key, bar in self._bars.items():
            bar.n, bar.total = self._under_way[key].done, self._under_way[key].total
            bar.ncols, bar.bar_format = max(1, columns - _MARGIN), _form(columns, bar.total)
            bar.refresh()

    def _is_worth_it(self, stage: _UnderWay) -> bool:
        run = time.time() - stage.since
        left = run * (stage.total - stage.done) / stage.done if stage.total and stage.done else None
        return run >= self.BRIEF and (left is None or left >= self.LEFT)

    def _new(self, tqdm: Any, key: tuple[int, Stage], stage: _UnderWay, columns: int) -> Any:
        in_bytes = key[1] in _BYTES
        bar = tqdm(
            desc=f"{self._names[key[0]]}: {_DOING[key[1]]}",
            total=stage.total,
            initial=stage.done,
            unit="B" if in_bytes else " entries",
            unit_scale=True,
            file=sys.stderr,
            leave=False,
            ncols=max(1, columns - _MARGIN),
            bar_format=_form(columns, stage.total),
        )
        # Rate and time are those of the whole stage, not of what is left of it.
        bar.initial, bar.start_t = 0, stage.since
        return bar


class _UnderWay(NamedTuple):
    """A stage: when it began (time.time(), which is tqdm's clock), and how far it is."""

    since: float
    done: int
    total: int | None


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return 80


def _form(columns: int, total: int | None) -> str | None:
    """What a bar is made of where there are so many COLUMNS; None: all of it."""
    if total is None:
        return "{desc}: {n:,} entries [{elapsed}]"
    if columns >= 80:
        return None
    return "{l_bar}{bar}| {remaining}" if columns >= 50 else "{l_bar}{bar}|"
