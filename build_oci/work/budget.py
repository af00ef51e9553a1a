"""How many bytes may be in flight at once."""

from __future__ import annotations

import threading
from contextlib import suppress
from queue import Empty, SimpleQueue

from build_oci.errors import Cancelled


class Budget:
    """How many bytes may be in flight. A request larger than the whole is granted when nothing else is held, so none waits for ever.

    A signal handler may close it, or raise, at any moment: so the lock is one that it may take again, no Python code runs between taking
    and holding it, and a wait looks about itself now and then.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held = 0
        self._lock = threading.RLock()
        self._waiting = 0
        self._freed: SimpleQueue[None] = SimpleQueue()  # one for each that waits
        self._closed = False

    def take(self, size: int, *, block: bool) -> bool:
        """Take SIZE bytes; without `block`, say whether there were so many. Raises Cancelled once the budget is closed."""
        while True:
            with self._lock:
                if self._closed:
                    raise Cancelled("the build was stopped")
                if not self._held or self._held + size <= self.limit:
                    self._held += size
                    return True
                if not block:
                    return False
                self._waiting += 1
            with suppress(Empty):
                self._freed.get(timeout=1.0)

    def give_back(self, size: int) -> None:
        with self._lock:
            self._held -= size
            self._wake()

    def close(self) -> None:
        """Grant nothing more, and wake who waits."""
        with self._lock:
            self._closed = True
            self._wake()

    def _wake(self) -> None:
        while self._waiting:
            self._waiting -= 1
            self._freed.put(None)
