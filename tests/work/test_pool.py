"""The pool: what runs first, how errors and the end come out."""

from __future__ import annotations

import threading
import time

import pytest

from build_oci.errors import Cancelled
from build_oci.work.budget import Budget
from build_oci.work.crew import Crew
from build_oci.work.pool import BLOCK, SEGMENT, SPARE, STREAM, Pool


def hold(began: threading.Event, go: threading.Event) -> bool:
    """Keep a thread busy until GO."""
    began.set()
    return go.wait(300)


def test_results_and_errors() -> None:
    with Pool(3) as pool:
        tasks = [pool.submit(divmod, number, 7) for number in range(100)]
        failed = pool.submit(divmod, 1, 0)
        assert [task.result() for task in tasks] == [divmod(number, 7) for number in range(100)]
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                failed.result()
        failed.wait()
        assert failed.done()


def test_the_most_urgent_first_and_the_oldest_of_equals() -> None:
    began, go = threading.Event(), threading.Event()
    order: list[tuple[int, int]] = []
    with Pool(1) as pool:
        pool.submit(hold, began, go)
        began.wait()
        for number, urgency in enumerate([SPARE, SEGMENT, BLOCK, STREAM] * 3):
            pool.submit(order.append, (urgency, number), urgency=urgency)
        go.set()
    assert order == sorted(order)
    assert len(order) == 12


def test_cancelled() -> None:
    """What runs ends as it does; what waits, and what comes later, ends with Cancelled."""
    began, go = threading.Event(), threading.Event()
    made: list[str] = []
    with Pool(1) as pool:
        running = pool.submit(hold, began, go)
        began.wait()
        waiting = [pool.submit(made.append, "waiting"), pool.submit(made.append, "waiting")]
        pool.cancelled = True
        waiting.append(pool.submit(made.append, "later"))
        go.set()
        assert running.result()
        for task in waiting:
            with pytest.raises(Cancelled):
                task.result()
    assert made == []


def test_closing_waits() -> None:
    pool = Pool(2)
    tasks = [pool.submit(time.sleep, 0.001) for _ in range(20)]
    pool.close()
    assert all(task.done() for task in tasks)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("worker-")]


def test_a_thread_that_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that did are ended."""
    start = threading.Thread.start
    count = iter(range(3))

    def fail_late(thread: threading.Thread) -> None:
        if next(count) == 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail_late)
    with pytest.raises(RuntimeError, match="can't start"):
        Pool(4)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("worker-")]


@pytest.mark.parametrize("at_once", [1, 3])
def test_each_stops_before_the_next(at_once: int) -> None:
    """What a coordinator does before it looks itself may be long: of thousands of items those to
    come are not begun.
    """
    begun: list[int] = []

    def work(item: int) -> None:
        begun.append(item)
        crew.cancel()

    with pytest.raises(Cancelled), Crew(2, 1 << 26) as crew:
        crew.each(work, list(range(2000)), at_once=at_once)
    assert len(begun) <= at_once


def test_each_begins_with_the_largest() -> None:
    begun: list[str] = []
    both = threading.Barrier(2)

    def work(item: str) -> str:
        begun.append(item)
        if item != "b":
            both.wait(timeout=300)  # the third is begun when two threads have begun
        return item * 2

    items = ["b", "aaaa", "cc"]
    with Crew(2, 1 << 26) as crew:
        assert crew.each(work, items, at_once=2, size=len) == [item * 2 for item in items]
    assert {*begun[:2]} == {"aaaa", "cc"}
    assert begun[2] == "b"


def test_a_decoder_has_help_while_there_are_fewer_decoders_than_threads() -> None:
    with Crew(2, 1 << 26) as crew, crew.decoding() as first:
        assert first()
        with crew.decoding() as second:
            assert not first()
            assert not second()
        assert first()


def test_a_budget_that_is_closed_while_somebody_waits() -> None:
    """Wherever the waiting one is: the closing comes from a signal handler too, which runs in the
    midst of it.
    """
    for delay in (0.0, 0.0001, 0.01):
        budget = Budget(10)
        assert budget.take(10, block=True)
        assert not budget.take(1, block=False)
        closer = threading.Timer(delay, budget.close)
        closer.start()
        with pytest.raises(Cancelled):
            budget.take(1, block=True)
        closer.join()


def hold_some(budget: Budget) -> bool:
    taken = budget.take(6, block=True)
    time.sleep(0.0005)
    budget.give_back(6)
    return taken


def test_a_budget_given_back() -> None:
    budget = Budget(10)
    budget.take(8, block=True)
    threading.Timer(0.01, budget.give_back, [8]).start()
    assert budget.take(20, block=True)  # more than there is, when nobody else holds any
    with Pool(4) as pool:
        budget.give_back(20)
        done = [pool.submit(hold_some, budget) for _ in range(100)]
        assert all(task.result() for task in done)
