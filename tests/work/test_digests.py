"""Digests of streams that come in pieces: equal to hashlib's, in order, two side by side where two
wait; errors and the end.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from build_oci._native import sha256
from build_oci.errors import Cancelled
from build_oci.work.digests import Digest, Digests
from build_oci.work.pool import BLOCK, SEGMENT, Pool

MIB = 1 << 20


class Recorded:
    """Stands in for the native SHA-256, and keeps what is hashed at once: the first byte of each
    part, which names its stream, and the size.
    """

    calls: list[tuple[bytes, int]] = []  # noqa: RUF012 (anew in each test)
    meanwhile: Callable[[], object] = staticmethod(lambda: None)

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._inside = threading.Semaphore(1)

    def update(self, data: memoryview) -> None:
        self._hash_all({self: data})

    def update_pair(self, data: memoryview, other: Recorded, other_data: memoryview) -> None:
        assert other is not self
        self._hash_all({self: data, other: other_data})

    def digest(self) -> bytes:
        return self._hash.digest()

    @classmethod
    def _hash_all(cls, parts: dict[Recorded, memoryview]) -> None:
        for one in parts:
            assert one._inside.acquire(blocking=False), "one stream, two threads"
        (size,) = {len(data) for data in parts.values()}
        if size:
            cls.calls.append((b"".join(bytes(data[:1]) for data in parts.values()), size))
        cls.meanwhile()
        for one, data in parts.items():
            one._hash.update(data)
            one._inside.release()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, int]]:
    """What is hashed at once, in order, as on a CPU that hashes two side by side."""
    monkeypatch.setattr(Recorded, "calls", [])
    monkeypatch.setattr(sha256, "Sha256", Recorded)
    monkeypatch.setattr(sha256, "in_pairs", lambda: True)
    return Recorded.calls


@contextmanager
def held(pool: Pool, count: int = 1) -> Iterator[None]:
    """The COUNT threads of POOL are busy until the end of the block."""
    began, go = threading.Barrier(count + 1), threading.Event()

    def hold() -> None:
        began.wait(60)
        assert go.wait(60)

    tasks = [pool.submit(hold) for _ in range(count)]
    began.wait(60)
    try:
        yield
    finally:
        go.set()
    for task in tasks:
        task.result()


def finish_beside(digest: Digest) -> Callable[[], bytes]:
    """Somebody waits for DIGEST from now on; the function that it gets does so too."""
    found: list[bytes | BaseException] = []

    def finish() -> None:
        try:
            found.append(digest.finish())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=finish)
    thread.start()
    while not digest.is_complete:
        time.sleep(0.001)

    def wait() -> bytes:
        thread.join()
        (result,) = found
        if isinstance(result, BaseException):
            raise result
        return result

    return wait


def hash_stream(digests: Digests, seed: int) -> None:
    """A stream in pieces of any sizes is hashed as hashlib does; every piece is released once, and
    in order.
    """
    chance = random.Random(seed)
    pieces = [
        chance.randbytes(chance.choice([0, 1, 63, 64, 1000, 4096, 70_000, 1_100_000]))
        for _ in range(chance.randrange(30))
    ]
    digest = digests.new()
    released: list[int] = []
    for number, piece in enumerate(pieces):
        digest.update(piece, partial(released.append, number))
        if chance.random() < 0.2:
            time.sleep(0.0005)
    assert digest.finish() == hashlib.sha256(b"".join(pieces)).digest()
    assert released == list(range(len(pieces)))


@pytest.mark.parametrize("recorded", [False, True], ids=["native", "recorded"])
@pytest.mark.parametrize("streams", [1, 2, 7])
@pytest.mark.parametrize("count", [1, 2, 8])
def test_as_hashlib(
    count: int, streams: int, recorded: bool, request: pytest.FixtureRequest
) -> None:
    """However many streams and threads there are, and whatever else the threads do. Where it is
    recorded, no stream is hashed by two at once.
    """
    if recorded:
        request.getfixturevalue("calls")
    failed: list[BaseException] = []

    def coordinate(number: int) -> None:
        try:
            for round_ in range(3):
                hash_stream(digests, 100 * number + round_)
        except BaseException as error:
            failed.append(error)

    with Pool(count) as pool:
        digests = Digests(pool)
        threads = [threading.Thread(target=coordinate, args=[n]) for n in range(streams)]
        for thread in threads:
            thread.start()
        tasks = [pool.submit(time.sleep, 0.0002, urgency=SEGMENT) for _ in range(200)]
        for thread in threads:
            thread.join()
        for task in tasks:
            task.result()
    assert not failed


@pytest.mark.parametrize("count", [1, 2, 8])
def test_where_the_cpu_has_no_pairs(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sha256, "in_pairs", lambda: False)
    with Pool(count) as pool:
        digests = Digests(pool)
        for seed in range(5):
            hash_stream(digests, seed)


def test_two_that_wait_go_side_by_side(calls: list[tuple[bytes, int]]) -> None:
    """What one has more goes beside the next."""
    with Pool(1) as pool:
        digests = Digests(pool)
        first, second, third = digests.new(), digests.new(), digests.new()
        with held(pool):
            first.update(b"a" * 3000)
            second.update(b"b" * 1000)
            third.update(b"c" * 2000)
        assert first.finish() == hashlib.sha256(b"a" * 3000).digest()
        assert second.finish() == hashlib.sha256(b"b" * 1000).digest()
        assert third.finish() == hashlib.sha256(b"c" * 2000).digest()
    assert calls == [(b"ab", 1000), (b"ca", 2000)]


def test_two_are_more_urgent_than_all_else(calls: list[tuple[bytes, int]]) -> None:
    """And one alone is less."""
    with Pool(1) as pool:
        digests = Digests(pool)
        first, second, third = digests.new(), digests.new(), digests.new()
        with held(pool):
            pool.submit(calls.append, (b"block", 0), urgency=BLOCK)
            first.update(b"a" * 1000)
            second.update(b"b" * 1000)
        first.finish()
        with held(pool):
            third.update(b"c" * 1000)
            pool.submit(calls.append, (b"block", 0), urgency=BLOCK)
            pool.submit(calls.append, (b"segment", 0), urgency=SEGMENT)
    assert calls == [(b"ab", 1000), (b"block", 0), (b"block", 0), (b"segment", 0), (b"c", 1000)]


def test_what_comes_meanwhile_goes_beside_one_alone(calls: list[tuple[bytes, int]]) -> None:
    with Pool(1) as pool:
        digests = Digests(pool)
        first, second = digests.new(), digests.new()
        with held(pool):
            first.update(b"a" * 1000)
            pool.submit(second.update, b"b" * 1000, urgency=SEGMENT)
            pool.submit(calls.append, (b"segment", 0), urgency=SEGMENT)
    assert calls == [(b"ab", 1000), (b"segment", 0)]


def test_much_does_not_wait(calls: list[tuple[bytes, int]]) -> None:
    with Pool(1) as pool:
        digest = Digests(pool).new()
        with held(pool):
            digest.update(b"a" * (9 * MIB))
            pool.submit(calls.append, (b"block", 0), urgency=BLOCK)
    assert calls == [(b"a", MIB), (b"block", 0)] + 8 * [(b"a", MIB)]


def test_what_is_waited_for_does_not_wait(calls: list[tuple[bytes, int]]) -> None:
    with Pool(1) as pool:
        digest = Digests(pool).new()
        with held(pool):
            digest.update(b"a" * 1000)
            pool.submit(calls.append, (b"block", 0), urgency=BLOCK)
            wait = finish_beside(digest)
        assert wait() == hashlib.sha256(b"a" * 1000).digest()
    assert calls == [(b"a", 1000), (b"block", 0)]


def test_one_alone_is_taken_where_there_is_nothing_else(calls: list[tuple[bytes, int]]) -> None:
    hashed = threading.Event()
    with Pool(1) as pool:
        Digests(pool).new().update(b"a" * 1000, hashed.set)
        assert hashed.wait(60)
    assert calls == [(b"a", 1000)]


def test_errors(calls: list[tuple[bytes, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were hashed together fail; all is released, and the others go on."""
    released: list[str] = []
    with Pool(1) as pool:
        digests = Digests(pool)
        first, second, third = digests.new(), digests.new(), digests.new()
        failures = iter([MemoryError("no room")])

        def fail_once() -> None:
            for error in failures:
                raise error

        monkeypatch.setattr(Recorded, "meanwhile", fail_once)
        with held(pool):
            first.update(b"a" * 1000, lambda: released.append("a"))
            second.update(b"b" * 1000, lambda: released.append("b"))
            second.update(b"b" * 1000, lambda: released.append("b"))
            third.update(b"c" * 1000, lambda: released.append("c"))
        for failed in (first, second):
            for _ in range(2):
                with pytest.raises(MemoryError, match="no room"):
                    failed.finish()
        with pytest.raises(MemoryError, match="no room"):
            first.update(b"a", lambda: released.append("a again"))
        assert third.finish() == hashlib.sha256(b"c" * 1000).digest()
    assert sorted(released) == ["a", "a again", "b", "b", "c"]


@pytest.mark.parametrize("count", [1, 2, 8])
def test_cancelled(
    count: int, calls: list[tuple[bytes, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the midst of two: what is hashed just then is the last; all is released, and nobody who
    waits, or comes later, waits for ever.
    """
    began, go = threading.Event(), threading.Event()
    released: list[int] = []

    def pause() -> None:
        began.set()
        go.wait(60)

    with Pool(count) as pool:
        digests = Digests(pool)
        streams = [digests.new() for _ in range(2)]
        monkeypatch.setattr(Recorded, "meanwhile", pause)
        with held(pool, count):
            for _ in range(5):
                for number, stream in enumerate(streams):
                    stream.update(b"%d" % number * 1000, partial(released.append, number))
        began.wait()
        waits = [finish_beside(stream) for stream in streams]
        pool.cancelled = True
        go.set()
        for wait in waits:
            with pytest.raises(Cancelled):
                wait()
        with pytest.raises(Cancelled):
            streams[0].update(b"later")
        late = digests.new()
        late.update(b"later", partial(released.append, 2))
        with pytest.raises(Cancelled):
            late.finish()
    assert sorted(released) == [0] * 5 + [1] * 5 + [2]
    assert len(calls[0][0]) == 2
    assert len(calls) == 1


def test_closing_hashes_what_waits(
    calls: list[tuple[bytes, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what came while its stream was being hashed, when the thread is to end already."""
    began, go = threading.Event(), threading.Event()
    released: list[str] = []

    def pause() -> None:
        began.set()
        go.wait(60)

    monkeypatch.setattr(Recorded, "meanwhile", pause)
    pool = Pool(1)
    digest = Digests(pool).new()
    digest.update(b"a" * 1000, lambda: released.append("first"))
    began.wait()
    digest.update(b"a" * 1000, lambda: released.append("second"))
    closing = threading.Thread(target=pool.close)
    closing.start()
    while pool._ready.empty():  # until the thread has been told to end
        time.sleep(0.001)
    go.set()
    closing.join()
    assert released == ["first", "second"]
