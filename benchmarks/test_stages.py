"""Each native stage of a build alone: walk, pack, lower, diff."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from build_oci._native.diff import Digests, mark_unchanged
from build_oci._native.lower import Lower, TarReader
from build_oci._native.sha256 import kernel_id
from build_oci._native.tar import Partition, Plan
from build_oci._native.walk import Tree

pytest_plugins = ("rootfs",)

KERNEL = kernel_id("auto")
WORKERS = min(4, os.cpu_count() or 1)


def on_all(work: Callable[[], None], workers: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def walked(path: Path, workers: int = 1) -> Tree:
    tree = Tree(os.fsencode(path))
    on_all(tree.run, workers)
    assert not tree.problems()
    return tree


def archive(path: Path) -> bytes:
    plan = Plan(Partition(walked(path)), epoch=None, kernel=KERNEL, segment_size=1 << 20)
    out = bytearray()
    for segment in range(len(plan)):
        if plan.to_digest(segment):
            assert plan.digest(segment) is None
        into = bytearray(plan.size(segment))
        assert plan.fill(segment, into) is None
        out += into
    return bytes(out)


@pytest.mark.parametrize("workers", sorted({1, WORKERS}))
def test_walk(benchmark: BenchmarkFixture, tree: Path, workers: int) -> None:
    assert len(benchmark(walked, tree, workers)) > 1


def test_pack(benchmark: BenchmarkFixture, tree: Path) -> None:
    """Plan, read, hash, headers and all, on one core."""
    size = len(benchmark(archive, tree))
    if benchmark.stats is not None:  # not when benchmarks are disabled
        benchmark.extra_info["MB/s"] = round(size / 1e6 / benchmark.stats.stats.min)


def test_lower(benchmark: BenchmarkFixture, tree: Path) -> None:
    """The reader of a parent's archive, and its table."""
    data = archive(tree)

    def read() -> Lower:
        reader = TarReader()
        for at in range(0, len(data), 1 << 20):
            reader.feed(memoryview(data)[at : at + (1 << 20)])
        reader.finish()
        lower = Lower(memory_limit=1 << 30)
        lower.apply(reader)
        return lower

    assert benchmark(read)


def test_diff(benchmark: BenchmarkFixture, made: dict[str, Path]) -> None:
    """Hash every file of the tree and hold it against a parent of which 1 % has changed."""
    reader = TarReader()
    reader.feed(archive(made["many small"]))
    reader.finish()
    lower = Lower(memory_limit=1 << 30)
    lower.apply(reader)

    def compare() -> tuple[int, int]:
        tree = walked(made["changed"])
        digests = Digests(tree, kernel=KERNEL, threads=1)
        for batch in range(len(digests)):
            assert digests.hash(batch) is None
        digests.finish()
        return mark_unchanged(tree, lower, epoch=None)

    unchanged, whiteouts = benchmark(compare)
    assert (unchanged, whiteouts) == (4000 - 40, 0)
