"""The digests of files in batches, which several threads hash.

contract: layer-checksum-record.
"""

from __future__ import annotations

import os
import random
from array import array
from pathlib import Path

import pytest

from build_oci._native import sha256
from build_oci._native.diff import Digests
from build_oci._native.tar import component_digests
from build_oci._native.walk import Tree

KERNELS = [pytest.param(sha256.kernel_id(name), id=name) for name in sha256.kernels()]
every_kernel = pytest.mark.parametrize("kernel", KERNELS)


def walked(root: Path) -> Tree:
    tree = Tree(os.fsencode(root), trust_checksums=False)
    tree.run()
    return tree


def digests_of(root: Path, kernel: int, threads: int) -> bytes | None:
    """Of all its files together."""
    tree = walked(root)
    digests = Digests(tree, kernel=kernel, threads=threads)
    for batch in range(len(digests)):
        assert digests.hash(batch) is None
    digests.finish()
    (found,) = component_digests(tree, array("I", [0] * len(tree)), 1, kernel=kernel)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_every_kernel_finds_the_same(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    borders = [size + more for size in (64 << 10, 256 << 10, 1 << 20) for more in (-1, 0, 1)]
    for number in range(60):
        size = rng.choice([0, rng.randrange(9000), rng.randrange(200_000), *borders])
        (tmp_path / f"{number}").write_bytes(rng.randbytes(size))
    (tmp_path / "large").write_bytes(rng.randbytes(3 << 20))
    os.link(tmp_path / "large", tmp_path / "again")
    os.truncate(tmp_path / "0", 9 << 20)
    expected = digests_of(tmp_path, 0, 1)
    for name in sha256.kernels():
        for threads in (1, 2, 8):
            assert digests_of(tmp_path, sha256.kernel_id(name), threads) == expected


@every_kernel
def test_large_files_are_for_all_threads(tmp_path: Path, kernel: int) -> None:
    """Many side by side take as long as ten by twos, but then the other threads have nothing."""
    for number in range(32):
        with open(tmp_path / f"{number}", "wb") as file:
            file.truncate(1 << 30)
    tree = walked(tmp_path)
    lanes = {"scalar": 1, "avx2": 8, "avx512": 16, "sha-ni-avx512": 16}
    name = next(name for name in sha256.kernels() if sha256.kernel_id(name) == kernel)
    most = lanes.get(name, 2)
    by_twos = 16 if sha256.in_pairs(kernel) else 32 // most
    assert len(Digests(tree, kernel=kernel, threads=8)) == by_twos
    # Of the second half no thread would have enough.
    half = 1 + 8 if name == "sha-ni-avx512" else by_twos
    assert len(Digests(tree, kernel=kernel, threads=2)) == half


def test_no_threads(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no threads"):
        Digests(walked(tmp_path), kernel=0, threads=0)
