"""Several threads at once in the native tables: what each finds is what one alone finds."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import oracles
import pytest
import trees
from parents import built, image_of

from build_oci._native.diff import Digests, mark_unchanged
from build_oci._native.lower import Lower, TarReader
from build_oci._native.sha256 import kernel_id
from build_oci._native.tar import Partition, Plan
from build_oci._native.walk import Tree

KERNEL = kernel_id("auto")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    trees.materialise(trees.random_tree(random.Random(21), 800), path)
    return path


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """[work(0), work(1), ...], all begun together."""
    ready = threading.Barrier(count)

    def one(number: int) -> Any:
        ready.wait(timeout=300)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def walked(root: Path) -> Tree:
    tree = Tree(os.fsencode(root), trust_checksums=False)
    tree.run()
    return tree


def test_walk(root: Path) -> None:
    """Sixteen threads on one tree, one more that asks how far they are, and then one that stops
    them.
    """
    expected = walked(root).paths()

    def watch(tree: Tree) -> None:
        counts = [len(tree) for _ in range(200)]
        assert counts == sorted(counts)

    for _ in range(20):
        tree = Tree(os.fsencode(root))
        run_together([partial(watch, tree), *[tree.run] * 16])
        assert tree.paths() == expected
        stopped = Tree(os.fsencode(root))
        run_together([stopped.run, stopped.run, stopped.stop, stopped.run])
        assert set(stopped.paths()) <= set(expected)


def run_together(tasks: list[Callable[[], None]]) -> None:
    at_once(len(tasks), lambda number: tasks[number]())


def lower_of(root: Path) -> Lower:
    reader = TarReader(kernel=KERNEL)
    reader.feed(oracles.expected_tar(root, trust_checksum_xattrs=False))
    reader.finish()
    lower = Lower(memory_limit=1 << 28)
    lower.apply(reader)
    return lower


def test_diffs_upon_one_lower(root: Path) -> None:
    """contract: parent-read-once. "A parent shared by several images is read once": so their diffs
    read one table at once.
    """
    lower = lower_of(root)
    before = walked(root)
    (root / "added").write_text("new")

    def work(number: int) -> tuple[int, int, bytes]:
        # the first tree is from before the change, so that the diffs do not all do the same
        tree = before if number == 0 else walked(root)
        digests = Digests(tree, kernel=KERNEL, threads=2)
        for batch in range(len(digests)):
            assert digests.hash(batch) is None
        digests.finish()
        unchanged, whiteouts = mark_unchanged(tree, lower, epoch=None)
        plan = Plan(Partition(tree), epoch=None, kernel=KERNEL, segment_size=1 << 20)
        return unchanged, whiteouts, packed(plan, 1)

    first, *others = at_once(6, work)
    assert len(set(others)) == 1
    assert first[1] == others[0][1] == 0
    assert b"./added\0" in others[0][2]
    assert b"./added\0" not in first[2]


def packed(plan: Plan, threads: int) -> bytes:
    """The archive of PLAN, its segments filled by so many threads."""
    out = [bytearray(plan.size(index)) for index in range(len(plan))]

    def work(number: int) -> None:
        for index in range(number, len(plan), threads):
            if plan.to_digest(index):
                assert plan.digest(index) is None
            assert plan.fill(index, out[index]) is None

    at_once(threads, work)
    return b"".join(out)


def test_packing(root: Path) -> None:
    """contract: layer-tar. From eight threads that take segments of one plan."""
    expected = oracles.expected_tar(root, trust_checksum_xattrs=False)
    for _ in range(5):
        plan = Plan(Partition(walked(root)), epoch=None, kernel=KERNEL, segment_size=1 << 14)
        assert len(plan) > 8
        assert packed(plan, 8) == expected


def test_builds_in_one_process(root: Path, tmp_path: Path) -> None:
    """contract: promise-reproducible, layout-many-builds.
    The same bytes, whatever else goes on in the process; builds into one output do not disturb each
    other either."""
    parent = built(tmp_path / "parent", image_of(root), epoch=1, trust_checksum_xattrs=False)
    (root / "added").write_text("new")

    def index(number: int) -> bytes:
        output = tmp_path / (f"output-{number}" if number < 4 else "shared")
        return (
            built(output, image_of(root, parent), image_of(root), epoch=1) / "index.json"
        ).read_bytes()

    expected = index(0)
    assert at_once(6, index) == [expected] * 6
