"""Blobs of a trusted previous image that are hashed before it is known which are wanted (contract:
previous-blobs): what is found is what a look at the moment of carrying would find.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from previous_images import EPOCH, built, config_of, layers_of, root

from build_oci.config.load import load_config
from build_oci.errors import Cancelled, ParentError
from build_oci.oci.untrusted import Hashed, ReadDescriptor, Source, verify_blobs
from build_oci.pipeline import build
from build_oci.previous.ahead import HashedAhead, _Batch
from build_oci.previous.image import PreviousImage
from build_oci.work.crew import Crew
from build_oci.work.pool import SPARE

__all__ = ["root"]

SIZES = [0, 1, 999, 70_000, 3 << 20, 17 << 20, 17 << 20]


@pytest.fixture
def blobs(tmp_path: Path) -> list[ReadDescriptor]:
    (tmp_path / "blobs/sha256").mkdir(parents=True)
    contents = [random.Random(number).randbytes(size) for number, size in enumerate(SIZES)]
    made = []
    for content in contents:
        digest = hashlib.sha256(content).hexdigest()
        (tmp_path / "blobs/sha256" / digest).write_bytes(content)
        made.append(ReadDescriptor("", f"sha256:{digest}", len(content), {}, {}))
    return made


def path_of(folder: Path, blob: ReadDescriptor) -> Path:
    return folder / "blobs" / blob.digest.replace(":", "/")


def find(ahead: HashedAhead, folder: Path, blob: ReadDescriptor) -> Hashed | None:
    with Source(folder).blob(blob) as opened:
        return ahead.find(opened)


def test_what_is_found(tmp_path: Path, blobs: list[ReadDescriptor]) -> None:
    damaged, cut, gone, changed, same = blobs[2:]
    path_of(tmp_path, damaged).write_bytes(b"x" * damaged.size)
    path_of(tmp_path, cut).write_bytes(b"x")
    path_of(tmp_path, gone).unlink()
    before = os.listdir("/proc/self/fd")
    with Crew(2, 64 << 20) as workers:
        ahead = HashedAhead(Source(tmp_path), workers)
        ahead.begin(blobs)
        for blob in (*blobs[:2], changed, same):
            digest = bytes.fromhex(blob.digest.partition(":")[2])
            assert find(ahead, tmp_path, blob) == (0, blob.size, digest)
        found = find(ahead, tmp_path, damaged)
        assert found is not None
        assert found.digest == hashlib.sha256(b"x" * damaged.size).digest()
        # Now what was seen of one is no longer true.
        path_of(tmp_path, changed).write_bytes(b"x" * changed.size)
        assert find(ahead, tmp_path, changed) is None
        with ExitStack() as stack:
            opened = [stack.enter_context(Source(tmp_path).blob(blob)) for blob in (same, changed)]
            verify_blobs(opened[:1], workers.stoppable, ahead.find)
            with pytest.raises(ParentError, match="is damaged") as error:
                verify_blobs(opened, workers.stoppable, ahead.find)
            assert error.value.where == str(path_of(tmp_path, changed))
        for blob in (cut, gone):
            path_of(tmp_path, blob).write_bytes(b"x" * blob.size)
            assert find(ahead, tmp_path, blob) is None
        assert len(os.listdir("/proc/self/fd")) == len(before)


def test_only_what_is_wanted(tmp_path: Path, blobs: list[ReadDescriptor]) -> None:
    """What is not is no longer read, nor begun."""
    go_on = threading.Event()
    with Crew(2, 64 << 20) as workers:
        for _ in range(2):
            workers.pool.submit(go_on.wait)
        ahead = HashedAhead(Source(tmp_path), workers)
        ahead.begin(blobs)
        ahead.keep([blobs[4].digest, "sha256:" + "0" * 64])
        go_on.set()
        assert find(ahead, tmp_path, blobs[4]) is not None
        assert find(ahead, tmp_path, blobs[6]) is None


def test_a_thread_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is known what is wanted, one thread of the pool does not hash; then all of them
    do.
    """
    began, go_on, other = threading.Semaphore(0), threading.Event(), threading.Event()

    def run(self: _Batch, source: Source, workers: Crew) -> dict[str, object]:
        began.release()
        go_on.wait()
        return {}

    monkeypatch.setattr(_Batch, "run", run)
    # Four batches at least: some kernels take sixteen together, whatever their size.
    blobs = [ReadDescriptor("", f"sha256:{number:064}", 17 << 20, {}, {}) for number in range(64)]
    with Crew(3, 64 << 20) as workers:
        ahead = HashedAhead(Source(tmp_path), workers)
        ahead.begin(blobs)
        try:
            assert began.acquire(timeout=30)
            assert began.acquire(timeout=30)
            workers.pool.submit(other.set, urgency=SPARE)
            assert other.wait(30)
            ahead.keep([blob.digest for blob in blobs])
            assert began.acquire(timeout=30)
        finally:
            go_on.set()
    assert began.acquire(timeout=30)  # the fourth


def test_one_batch_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that has hashed one goes on with the next, before it is known what is wanted."""
    began = threading.Semaphore(0)

    def run(self: _Batch, source: Source, workers: Crew) -> dict[str, object]:
        began.release()
        raise OSError("this one is of no use")

    monkeypatch.setattr(_Batch, "run", run)
    blobs = [ReadDescriptor("", f"sha256:{number:064}", 17 << 20, {}, {}) for number in range(64)]
    with Crew(2, 64 << 20) as workers:
        HashedAhead(Source(tmp_path), workers).begin(blobs)
        for _ in range(3):
            assert began.acquire(timeout=30)


def test_who_asks_lets_it_begin(tmp_path: Path, blobs: list[ReadDescriptor]) -> None:
    """With one thread nothing is hashed before, and one who asks does not wait forever."""
    found: list[Hashed | None] = []
    with Crew(1, 64 << 20) as workers:
        ahead = HashedAhead(Source(tmp_path), workers)
        ahead.begin(blobs)
        asking = threading.Thread(
            target=lambda: found.append(find(ahead, tmp_path, blobs[-1])), daemon=True
        )
        asking.start()
        asking.join(30)
    digest = bytes.fromhex(blobs[-1].digest.partition(":")[2])
    assert found == [(0, blobs[-1].size, digest)]


def test_a_build_that_is_stopped(tmp_path: Path, blobs: list[ReadDescriptor]) -> None:
    with Crew(2, 64 << 20) as workers:
        ahead = HashedAhead(Source(tmp_path), workers)
        ahead.begin(blobs)
        workers.cancel()
        with pytest.raises(Cancelled):
            find(ahead, tmp_path, blobs[5])


@pytest.mark.parametrize("change", [None, "b"])
def test_hashed_before_the_layers_are_known(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str | None
) -> None:
    """A damaged blob is told where its layer comes out again, and only there, at any order of
    work.
    """
    first = tmp_path / "first"
    built(config_of(root), first)
    damaged = first / "blobs" / layers_of(first)[1].replace(":", "/")
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    if change:
        (root / change / "file1").write_bytes(b"changed")
    config = config_of(root, {"image": first, "trust": True})

    def outcome(number: int) -> str:
        try:
            built(config, tmp_path / f"out{number}")
        except ParentError as error:
            return str(error)
        return str(layers_of(tmp_path / f"out{number}"))

    take = PreviousImage.take

    def take_late(self: PreviousImage, *args: object) -> object:
        """All that was begun has ended."""
        for batch in self._ahead._batches.values():
            assert batch.task is not None
            batch.task.wait()
        return take(self, *args)  # type: ignore[arg-type]

    found = [outcome(0)]
    monkeypatch.setattr(PreviousImage, "take", take_late)
    found.append(outcome(1))
    monkeypatch.setattr(PreviousImage, "take", take)
    monkeypatch.setattr(PreviousImage, "hash_ahead", lambda self: None)
    found.append(outcome(2))
    assert len(set(found)) == 1
    assert ("is damaged" in found[0]) is (change is None)


def test_one_thread_hashes_nothing_ahead(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tmp_path / "first"
    built(config_of(root), first)
    begun: list[object] = []
    monkeypatch.setattr(HashedAhead, "begin", lambda self, blobs: begun.extend(blobs))
    config = config_of(root, {"image": first, "trust": True})
    built(config, tmp_path / "two")
    assert len(begun) == 6
    del begun[:]
    built(config_of(root, {"image": first}), tmp_path / "verified")
    build(load_config(json.dumps(config)), output=tmp_path / "one", workers=1, epoch=EPOCH)
    assert begun == []
