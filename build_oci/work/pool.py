"""Threads that do the work of a build: the most urgent task first, and of equally urgent ones the
oldest.

What brings something that was begun to its end is more urgent than what begins something. So no
stream stands still while a thread is free for it, little is kept in memory, and the threads have
something to do as long as there is anything to do at all.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from build_oci.errors import Cancelled

Result = TypeVar("Result")

# How urgent a task is.
# The next piece of a stream, which goes in order and through one thread: the time it stands still
# is lost.
STREAM = 0
BLOCK = 1  # one of many pieces that end up in a stream
SEGMENT = 2  # what such a piece is made of, or what that waits for
SPARE = 3  # what gains by waiting: for a thread that has nothing else to do
_URGENCIES = 4


class _Runnable(Protocol):
    def run(self, *, cancelled: bool) -> None: ...


class Task(Generic[Result]):
    """A call that a thread of a pool makes, and what comes of it."""

    __slots__ = ("_ended", "_error", "_result", "_work")

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work: Callable[[], Result] | None = work
        self._error: BaseException | None = None
        self._ended = threading.Lock()
        self._ended.acquire()

    def run(self, *, cancelled: bool) -> None:
        """Make the call, or let the task end with Cancelled; for the pool, and once."""
        work, self._work = self._work, None
        try:
            if cancelled or work is None:
                raise Cancelled("the build was stopped")
            self._result = work()
        except BaseException as error:
            self._error = error
        finally:
            self._ended.release()

    def done(self) -> bool:
        return not self._ended.locked()

    def wait(self) -> None:
        """Wait for its end, whatever that is."""
        with self._ended:
            pass

    def result(self) -> Result:
        """What the call returns, once it does; raises what it raises, and Cancelled if it was never
        made.
        """
        self.wait()
        if self._error is not None:
            raise self._error
        return self._result


class Pool:
    """COUNT threads. Once the pool is cancelled, tasks that have not begun end with Cancelled."""

    def __init__(self, count: int) -> None:
        self.cancelled = False
        self._tasks: tuple[deque[_Runnable], ...] = tuple(deque() for _ in range(_URGENCIES))
        # True for each task, False for each thread that is to end. Its put() may be called from a
        # signal handler, within another put() too.
        self._ready: SimpleQueue[bool] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        try:
            for number in range(count):
                # A daemon: an exception out of a signal handler, just here, must not keep the
                # interpreter from ending.
                thread = threading.Thread(target=self._serve, name=f"worker-{number}", daemon=True)
                thread.start()
                self._threads.append(thread)
        except BaseException:
            self.close()
            raise

    def submit(
        self, work: Callable[..., Result], /, *args: Any, urgency: int = BLOCK
    ) -> Task[Result]:
        """Have WORK(*ARGS) called by a thread."""
        task = Task(lambda: work(*args))
        self.put(task, urgency)
        return task

    def put(self, task: _Runnable, urgency: int) -> None:
        self._tasks[urgency].append(task)
        self._ready.put(True)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for all that was submitted, and end the threads."""
        for _ in self._threads:
            self._ready.put(False)
        for thread in self._threads:
            thread.join()
        while any(self._tasks):  # what the last ones have put
            self._most_urgent().run(cancelled=self.cancelled)

    def _serve(self) -> None:
        while self._ready.get():
            task = self._most_urgent()
            task.run(cancelled=self.cancelled)
            del task  # and with it what its call holds, before the next one comes

    def _most_urgent(self) -> _Runnable:
        while True:  # there is one, but the others may be faster
            for tasks in self._tasks:
                try:
                    return tasks.popleft()
                except IndexError:
                    continue
