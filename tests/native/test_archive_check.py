"""An archive held against the plan whose archive it is said to be (kernel/pack/archive_check.h).
The oracle is the comparison of bytes, and hashlib."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import oracles
import pytest
import trees

from build_oci._native.diff import Digests
from build_oci._native.sha256 import kernel_id
from build_oci._native.tar import ArchiveCheck, Partition, Plan
from build_oci._native.walk import Tree

pytestmark = pytest.mark.once

KERNEL = kernel_id("auto")
SLICE = 1 << 20


def planned(root: Path, *, hashed: bool = True, trust: bool = False) -> Plan:
    tree = Tree(os.fsencode(root), trust_checksums=trust)
    tree.run()
    if hashed:
        digests = Digests(tree, kernel=KERNEL, threads=2)
        for batch in range(len(digests)):
            assert digests.hash(batch) is None
        digests.finish()
    return Plan(Partition(tree), epoch=None, kernel=KERNEL, segment_size=SLICE)


def cut(data: bytes, rng: random.Random) -> Iterator[bytes]:
    """DATA in pieces of any size, some of them empty."""
    at = 0
    while at < len(data):
        size = rng.choice([0, 1, 511, 512, 513, 5000, 100_000, 1 << 20, 3 << 20])
        yield data[at : at + size]
        at += size


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files, links, odd names, and files of one slice, of several, and of a byte more."""
    path = tmp_path_factory.mktemp("check") / "root"
    path.mkdir()
    trees.materialise(trees.random_tree(random.Random(77), 150), path)
    for number, size in enumerate([1, 511, 512, 70_000, SLICE - 1, SLICE, SLICE + 1, 3 * SLICE]):
        (path / f"of-size-{number}").write_bytes(random.Random(size).randbytes(size))
    os.link(path / "of-size-3", path / "zz-link")
    return path


@pytest.fixture(scope="module")
def archive(root: Path) -> bytes:
    return oracles.expected_tar(root, trust_checksum_xattrs=False)


@pytest.mark.parametrize("seed", range(8))
def test_the_archive_of_the_plan(root: Path, archive: bytes, seed: int) -> None:
    """contract: previous-blobs."""
    plan = planned(root)
    assert ArchiveCheck.possible(plan)
    check, rng = ArchiveCheck(plan), random.Random(seed)
    for piece in cut(archive, rng):
        assert not check.complete or not piece
        check.feed(piece)
        assert check.holds
    assert check.complete
    assert check.digest == hashlib.sha256(archive).digest()


def test_any_byte_that_differs(root: Path, archive: bytes) -> None:
    plan, rng = planned(root), random.Random(5)
    # The last bytes of files stand before their padding.
    places = [rng.randrange(len(archive)) for _ in range(250)]
    places += range(0, len(archive), len(archive) // 50)
    places += [len(archive) - 1, len(archive) - 1024, 0]
    for place in places:
        changed = bytearray(archive)
        changed[place] ^= 1 << rng.randrange(8)
        check = ArchiveCheck(plan)
        for piece in cut(bytes(changed), rng):
            check.feed(piece)
        assert not check.holds, place
        assert not check.complete
        assert check.digest == hashlib.sha256(changed).digest()


@pytest.mark.parametrize("left_out", [1, 512, 1024, 100_000])
def test_an_archive_that_ends_early(root: Path, archive: bytes, left_out: int) -> None:
    check = ArchiveCheck(planned(root))
    check.feed(archive[:-left_out])
    assert check.holds
    assert not check.complete


def test_an_archive_that_goes_on(root: Path, archive: bytes) -> None:
    check = ArchiveCheck(planned(root))
    check.feed(archive)
    assert check.complete
    check.feed(b"")
    assert check.complete
    check.feed(b"\0")
    assert not check.holds
    assert not check.complete


def test_two_side_by_side(root: Path, archive: bytes, tmp_path: Path) -> None:
    """Each finds what it finds alone, whatever the other is and however both are cut."""
    other_root = tmp_path / "other"
    other_root.mkdir()
    trees.materialise(trees.random_tree(random.Random(3), 60), other_root)
    other_archive = oracles.expected_tar(other_root, trust_checksum_xattrs=False)
    changed = bytearray(other_archive)
    changed[len(changed) // 2] ^= 1
    for seed, bytes_of_other in enumerate([other_archive, bytes(changed)]):
        rng = random.Random(seed)
        check, other = ArchiveCheck(planned(root)), ArchiveCheck(planned(other_root))
        pieces, others = cut(archive, rng), cut(bytes_of_other, rng)
        for piece in pieces:
            check.feed(piece, other, next(others, b""))
        for piece in others:
            other.feed(piece)
        assert check.complete
        assert check.digest == hashlib.sha256(archive).digest()
        assert other.complete == (bytes_of_other == other_archive)
        assert other.digest == hashlib.sha256(bytes_of_other).digest()


def test_one_is_not_its_own_neighbour(root: Path) -> None:
    check = ArchiveCheck(planned(root))
    with pytest.raises(ValueError, match="twice"):
        check.feed(b"", check, b"")


def test_what_cannot_be_checked(tmp_path: Path) -> None:
    """A plan with a file of which nothing is known, or whose digest is believed."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "empty").write_bytes(b"")
    assert ArchiveCheck.possible(planned(root, hashed=False))
    (root / "file").write_bytes(b"content")
    assert not ArchiveCheck.possible(planned(root, hashed=False))
    assert ArchiveCheck.possible(planned(root))
    if "user" in trees.abilities().xattrs:
        os.setxattr(root / "file", "user.checksum.sha256", b"0" * 64)
        assert not ArchiveCheck.possible(planned(root, trust=True))
        assert ArchiveCheck.possible(planned(root))
