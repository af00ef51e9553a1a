"""How many bytes may be in flight at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from build_oci.errors import Cancelled


class Budget:
    """How many bytes may be in flight.

    A request larger than the whole is granted when nothing else is held, so none waits for ever.

    A signal handler may close it, or raise, at any moment: so the lock is one that it may take
    again, no Python code runs between taking and holding it, and a wait looks about itself now and
    then.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held = 0
        self._lock = threading.RLock()
        self._waiting = 0
        self._freed: SimpleQueue[None] = SimpleQueue()  # one for each that waits
        self._closed = False

    def take(self, size: int, *, block: bool) -> bool:
        """Take SIZE bytes; without `block`, say whether there were so many.

        Raises Cancelled once the budget is closed.
        """
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


class RelievedBudget(Budget):
    """The budget of all, as one thread takes from it that holds parts of it in several places: it
    never waits for what it holds itself.
    """

    def __init__(self, budget: Budget, relieve: Callable[[], bool]) -> None:
        """RELIEVE gives back a part of what this thread holds, waiting where it must; False if it
        holds nothing.
        """
        super().__init__(budget.limit)
        self._budget = budget
        self._relieve = relieve

    def take(self, size: int, *, block: bool) -> bool:
        while not self._budget.take(size, block=False):
            if not block:
                return False
            if not self._relieve():
                return self._budget.take(size, block=True)
        return True

    def give_back(self, size: int) -> None:
        self._budget.give_back(size)

    def close(self) -> None:
        self._budget.close()
