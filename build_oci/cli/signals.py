"""Signals that ask the command to stop."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal asked to stop. No `except Exception` swallows it, every `finally` sees it."""


class Signals:
    """The first stopping signal raises Stopped in the main thread or, once there is a build,
    cancels it; later ones change nothing.

    One that comes when the build is moving its files to their places is too late: the image is
    complete and the exit status is 0.
    """

    def __init__(self) -> None:
        self.caught = 0  # the number of the signal
        self._cancel: Callable[[], None] | None = None

    def cancel_by(self, cancel: Callable[[], None]) -> None:
        """From now on call CANCEL rather than raise; at once, if a signal has come: what it raised
        may have been lost, where Python ignores exceptions.
        """
        self._cancel = cancel
        if self.caught:
            cancel()

    def check(self) -> None:
        """Raise Stopped once a signal has asked to stop."""
        if self.caught:
            raise Stopped

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if not self.caught:
            self.caught = number
            if self._cancel is None:
                raise Stopped
            self._cancel()

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Have the handler in place, and put the former ones back."""
        former: dict[int, Any] = {}
        tell = sys.unraisablehook

        def tell_of_others(lost: Any) -> None:
            # Where Python ignores exceptions, in a callback of a weak reference for instance, it
            # prints a traceback of each.
            if not isinstance(lost.exc_value, Stopped):
                tell(lost)

        sys.unraisablehook = tell_of_others
        try:
            if threading.current_thread() is threading.main_thread():
                for number in STOPPING_SIGNALS:
                    # What nohup or a shell's & ignores stays ignored.
                    if signal.getsignal(number) is not signal.SIG_IGN:
                        former[number] = signal.signal(number, self._stop)
            yield
        finally:
            for caught, handler in former.items():
                signal.signal(caught, signal.SIG_DFL if handler is None else handler)
            sys.unraisablehook = tell
