"""Which blobs one thread hashes at once."""

from __future__ import annotations

import random

import pytest

from build_oci._native import sha256
from build_oci.oci.untrusted import side_by_side

_MOST = 16  # more than these are never one run


@pytest.mark.parametrize("seed", range(20))
def test_all_of_them_once(seed: int) -> None:
    """The largest first, in runs that give a thread enough to do, and no run of many for one that
    is large.
    """
    rng = random.Random(seed)
    sizes = [rng.choice([0, 1, 5000, 1 << 20, 40 << 20, 1 << 70]) for _ in range(rng.randrange(90))]
    runs = list(side_by_side(enumerate(sizes), lambda item: item[1], rng.randrange(1, 9)))
    found = [item for run in runs for item in run]
    assert sorted(found) == list(enumerate(sizes))
    assert [size for _, size in found] == sorted(sizes, reverse=True)
    for run in runs:
        assert 1 <= len(run) < 2 * _MOST
    for run in runs[:-1]:
        assert len(run) >= _MOST or sum(size for _, size in run) >= 16 << 20


@pytest.mark.skipif(not sha256.in_pairs(), reason="on this CPU many take no longer than two")
def test_every_thread_has_some() -> None:
    """Of a few large ones each thread hashes two, and of the last ones of many."""
    runs = list(side_by_side([40 << 20] * 16, lambda size: size, 8))
    assert [len(run) for run in runs] == [2] * 8
    runs = list(side_by_side([40 << 20] * 32, lambda size: size, 2))
    assert [len(run) for run in runs[-8:]] == [2] * 8
