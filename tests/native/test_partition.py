"""The members of many layers from one walk, against a plain-Python twin and applied in order
(contract: split-layers, split-directories)."""

from __future__ import annotations

import hashlib
import io
import os
import random
import tarfile
import tempfile
from array import array
from collections.abc import Sequence
from pathlib import Path

import oracles
import pytest
import trees
from hypothesis import given, settings
from hypothesis import strategies as st

from build_oci._native.diff import Digests, mark_unchanged
from build_oci._native.lower import Lower, TarReader
from build_oci._native.sha256 import kernel_id
from build_oci._native.tar import OWNER_NOBODY, Partition, Plan, component_digests
from build_oci._native.walk import Tree

pytestmark = pytest.mark.platform

KERNEL = kernel_id("auto")


def walked(root: str | Path, *, take_instructions: bool = False) -> Tree:
    tree = Tree(os.fsencode(root), trust_checksums=False, take_instructions=take_instructions)
    tree.run()
    return tree


def archive(partition: Partition, layer: int, epoch: int | None) -> bytes:
    plan = Plan(partition, layer, epoch=epoch, kernel=KERNEL, segment_size=1 << 14)
    out = [bytearray(plan.size(index)) for index in range(len(plan))]
    for index, segment in enumerate(out):
        if plan.to_digest(index):
            assert plan.digest(index) is None
        assert plan.fill(index, segment) is None
    return b"".join(out)


def archives(
    tree: Tree,
    owners: Sequence[int] | None,
    layers: int,
    *,
    epoch: int | None,
    directories_last: bool = False,
) -> list[bytes]:
    """The archives of the layers that hold anything, the lowest first."""
    partition = Partition(
        tree,
        None if owners is None else array("I", owners),
        layers,
        directories_last=directories_last,
    )
    return [
        archive(partition, layer, epoch)
        for layer in range(len(partition))
        if partition.members(layer)
    ]


def members_of(tar: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(
        fileobj=io.BytesIO(tar), errors="surrogateescape", encoding="utf-8"
    ) as opened:
        return opened.getmembers()


def names_of(tar: bytes) -> list[bytes]:
    return [oracles.normalised(member.name) for member in members_of(tar)]


def random_owners(rng: random.Random, count: int, layers: int) -> list[int]:
    """A layer for each entry; some of them nobody's, and runs of one layer as files of a package
    make them.
    """
    owners: list[int] = []
    while len(owners) < count:
        owner = OWNER_NOBODY if rng.random() < 0.1 else rng.randrange(layers)
        owners += [owner] * rng.choice([1, 1, 2, 10])
    return owners[:count]


def expected_names(
    tree: Tree, owners: Sequence[int], layers: int, *, directories_last: bool
) -> list[list[bytes]]:
    """The names in each layer that holds anything, by sets: the twin of kernel/partition.c for a
    tree without a parent.
    """
    listing = tree.listing()
    paths = [path or b"." for path in listing.paths]

    def above(path: bytes) -> list[bytes]:
        if path == b".":
            return []
        directory = path.rpartition(b"/")[0] or b"."
        return [directory, *above(directory)]

    leading = {directory for path in paths for directory in above(path)}
    firsts: dict[int, int] = {}
    placed: dict[bytes, int] = {}
    for path, is_directory, link, owner in zip(
        paths, listing.directories, listing.links, owners, strict=True
    ):
        if is_directory and (directories_last or path in leading):
            continue
        placed[path] = firsts.setdefault(link, owner) if link else owner
    lowest = min((owner for owner in placed.values() if owner != OWNER_NOBODY), default=0)
    found: list[set[bytes]] = [set() for _ in range(layers)]
    for path, owner in placed.items():
        found[lowest if owner == OWNER_NOBODY else owner] |= {path, *above(path)}
    if directories_last:
        found.append(
            {
                path
                for path, is_directory in zip(paths, listing.directories, strict=True)
                if is_directory
            }
        )
    return [[path for path in paths if path in names] for names in found if names]


def applied(tars: Sequence[bytes], below: oracles.Model | None = None) -> oracles.Model:
    model: oracles.Model = {} if below is None else below
    for tar in tars:
        oracles.apply_layer(io.BytesIO(tar), model)
    return model


@settings(max_examples=60)
@given(
    items=trees.trees(whiteout_names=False),
    rng=st.randoms(use_true_random=False),
    layers=st.integers(1, 6),
    epoch=st.booleans(),
)
def test_layers_of_odd_trees(
    items: list[trees.Item], rng: random.Random, layers: int, epoch: bool
) -> None:
    """contract: split-layers.
    "Every layer carries, before what lies in them, all directories that lead to its entries", and
    the whole is the tree."""
    with tempfile.TemporaryDirectory() as root:
        trees.materialise(items, root)
        tree = walked(root)
        owners = random_owners(rng, len(tree), layers)
        tars = archives(
            tree, owners, layers, epoch=1 if epoch else None, directories_last=not epoch
        )
        assert [names_of(tar) for tar in tars] == expected_names(
            tree, owners, layers, directories_last=not epoch
        )
        model = oracles.tree_model(root)
    if epoch:
        for node in model.values():
            node.mtime = oracles.SECOND
    assert oracles.compare(applied(tars), model) == []


@settings(max_examples=40)
@given(
    items=trees.trees(whiteout_names=False),
    rng=st.randoms(use_true_random=False),
    layers=st.integers(1, 5),
    epoch=st.booleans(),
)
def test_layers_upon_a_parent(
    items: list[trees.Item], rng: random.Random, layers: int, epoch: bool
) -> None:
    """contract: split-layers. "With a parent: whiteouts in the lowest new layer"; the parent and
    the layers above it are the tree.
    """
    kept, names = [], {b"."}
    for item in items:
        if item.path == b"." or (names.issuperset(needs(item)) and rng.random() < 0.7):
            kept.append(item)
            names.add(item.path)
    with tempfile.TemporaryDirectory() as root, tempfile.TemporaryDirectory() as former:
        trees.materialise(items, former)
        trees.materialise(kept, root)
        seconds = 1 if epoch else None
        below = oracles.expected_tar(former, epoch=seconds, trust_checksum_xattrs=False)
        tree = walked(root)
        digests = Digests(tree, kernel=KERNEL, threads=2)
        assert [digests.hash(batch) for batch in range(len(digests))] == [None] * len(digests)
        digests.finish()
        owners = random_owners(rng, len(tree), layers)
        unchanged, whiteouts = mark_unchanged(tree, lower_of(below), epoch=seconds)
        assert tree.emitted().count(0) == unchanged
        tars = archives(tree, owners, layers, epoch=seconds, directories_last=not epoch)
        model = oracles.tree_model(root)
    if epoch:
        for node in model.values():
            node.mtime = oracles.SECOND
    hidden = [
        [name for name in names_of(tar) if name.rpartition(b"/")[2].startswith(b".wh.")]
        for tar in tars
    ]
    assert len(hidden[0]) == whiteouts
    assert not any(hidden[1:])
    assert oracles.compare(applied(tars, applied([below])), model) == []


def needs(item: trees.Item) -> list[bytes]:
    """What ITEM cannot be without."""
    directory = item.path.rpartition(b"/")[0]
    return ([directory] if directory else []) + ([item.target] if item.type == 0 else [])


def lower_of(tar: bytes) -> Lower:
    reader = TarReader(kernel=KERNEL)
    reader.feed(tar)
    reader.finish()
    lower = Lower(memory_limit=1 << 28)
    lower.apply(reader)
    return lower


def small_tree(root: Path) -> Path:
    """usr/bin/{a,b}, usr/lib/c, empty; b is a hard link of c."""
    for name in ("usr/bin", "usr/lib", "empty"):
        (root / name).mkdir(parents=True)
    (root / "usr/bin/a").write_text("a")
    (root / "usr/lib/c").write_text("c")
    os.link(root / "usr/lib/c", root / "usr/bin/b")
    for path in [root, *root.rglob("*")]:
        os.utime(path, (5, 5))
    return root


def owners_by(tree: Tree, owners: dict[str, int]) -> list[int]:
    return [owners.get(os.fsdecode(path), OWNER_NOBODY) for path in tree.paths()]


def test_one_layer_is_the_layer(tmp_path: Path) -> None:
    """contract: split-layers. What all lies in one layer is byte for byte the layer without
    `split`.
    """
    trees.materialise(trees.random_tree(random.Random(5), 400), tmp_path)
    tree = walked(tmp_path)
    expected = oracles.expected_tar(tmp_path, epoch=7, trust_checksum_xattrs=False)
    for owners in (None, [0] * len(tree), [OWNER_NOBODY] * len(tree), [2] * len(tree)):
        assert archives(tree, owners, 3, epoch=7) == [expected]


def test_directories_with_an_epoch(tmp_path: Path) -> None:
    """contract: split-directories.
    "a directory has the same header in every layer. With SOURCE_DATE_EPOCH that is all"; empty ones
    in the first layer."""
    tree = walked(small_tree(tmp_path / "tree"))
    tars = archives(
        tree, owners_by(tree, {"usr/bin/a": 2, "usr/bin/b": 1, "usr/lib/c": 2}), 3, epoch=9
    )
    assert [names_of(tar) for tar in tars] == [
        [b".", b"empty", b"usr", b"usr/bin", b"usr/bin/b", b"usr/lib", b"usr/lib/c"],
        [b".", b"usr", b"usr/bin", b"usr/bin/a"],
    ]
    headers = [
        {member.name: member.tobuf() for member in members_of(tar) if member.isdir()}
        for tar in tars
    ]
    assert headers[1].items() <= headers[0].items()


def test_empty_directory_with_an_owner(tmp_path: Path) -> None:
    """contract: split-directories. Only those "that nobody claims go there": one that is claimed
    lies with its component.
    """
    tree = walked(small_tree(tmp_path / "tree"))
    tars = archives(tree, owners_by(tree, {"usr/bin/a": 1, "usr/bin/b": 0, "empty": 1}), 2, epoch=9)
    assert names_of(tars[1]) == [b".", b"empty", b"usr", b"usr/bin", b"usr/bin/a"]


def test_directories_without_an_epoch(tmp_path: Path) -> None:
    """contract: split-directories.
    "the layers carry directories with time 0, and a last small layer holds every directory once as
    it is"."""
    root = small_tree(tmp_path / "tree")

    def build() -> list[bytes]:
        tree = walked(root)
        return archives(
            tree,
            owners_by(tree, {"usr/bin/a": 1, "usr/bin/b": 0}),
            2,
            epoch=None,
            directories_last=True,
        )

    first = build()
    assert [names_of(tar) for tar in first][2:] == [
        [b".", b"empty", b"usr", b"usr/bin", b"usr/lib"]
    ]
    times = [{member.mtime for member in members_of(tar) if member.isdir()} for tar in first]
    assert times == [{0}, {0}, {5}]
    assert {member.mtime for tar in first for member in members_of(tar) if member.isfile()} == {5}
    os.utime(root / "usr", (6, 6))
    assert [one == other for one, other in zip(first, build(), strict=True)] == [True, True, False]


def test_nothing_but_the_root(tmp_path: Path) -> None:
    """contract: diff-directories. "The root is always emitted", once, however many layers there
    could be.
    """
    tree = walked(tmp_path)
    assert [names_of(tar) for tar in archives(tree, [OWNER_NOBODY], 3, epoch=1)] == [[b"."]]
    assert [names_of(tar) for tar in archives(tree, [1], 3, epoch=None, directories_last=True)] == [
        [b"."]
    ]


def test_hard_links_become_copies(tmp_path: Path) -> None:
    """contract: hardlink-first-name. With `copy` every name is its own file, and lies in the layer
    of its own owner.
    """
    tree = walked(small_tree(tmp_path / "tree"))
    owners = array("I", owners_by(tree, {"usr/bin/a": 0, "usr/bin/b": 0, "usr/lib/c": 1}))
    partition = Partition(tree, owners, 2, preserve_hardlinks=False)
    tars = [archive(partition, layer, 1) for layer in range(2)]
    assert [sum(member.isreg() for member in members_of(tar)) for tar in tars] == [2, 1]


@pytest.mark.parametrize(
    ("owners", "layers"), [([], 1), ([0], 1), ([0] * 50, 1), ([0] * 8, 0), ([0] * 7 + [3], 3)]
)
def test_owners_that_do_not_fit(tmp_path: Path, owners: list[int], layers: int) -> None:
    tree = walked(small_tree(tmp_path / "tree"))
    assert len(tree) == 8
    with pytest.raises(ValueError, match=r"owner|layers"):
        Partition(tree, array("I", owners), layers)


def test_layers_cost_what_they_hold(tmp_path: Path) -> None:
    """10,000 layers of one file each: the work is that of the members, not layers times entries."""
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    for number in range(10_000):
        (folder / str(number)).touch()
    tree = walked(tmp_path)
    partition = Partition(tree, array("I", [*range(3), *range(10_000)]), 10_000)
    assert sum(partition.members(layer) for layer in range(10_000)) == 4 * 10_000


def test_recipe(tmp_path: Path) -> None:
    """contract: split-told. "the digest of the archive's headers in order, which hold every content
    digest"; it needs them all.
    """
    trees.materialise(trees.random_tree(random.Random(6), 300, large=2), tmp_path)
    tree = walked(tmp_path)
    partition = Partition(tree, array("I", random_owners(random.Random(7), len(tree), 3)), 3)
    plans = [
        Plan(partition, layer, epoch=None, kernel=KERNEL, segment_size=1 << 20)
        for layer in range(3)
    ]
    assert [plan.recipe() for plan in plans] == [None] * 3
    tars = [archive(partition, layer, None) for layer in range(3)]
    headers = [
        b"".join(tar[member.offset : member.offset_data] for member in members_of(tar))
        for tar in tars
    ]
    assert [plan.recipe() for plan in plans] == [hashlib.sha256(text).digest() for text in headers]


def test_component_digests(tmp_path: Path) -> None:
    """contract: split-plan. A plan counts in how many builds a component changed: in content or
    metadata, but not in times.
    """
    root = small_tree(tmp_path / "tree")

    def digests() -> list[bytes | None]:
        tree = walked(root)
        owners = array(
            "I", owners_by(tree, {"usr/bin/a": 0, "usr/bin/b": 1, "usr/lib/c": 1, "usr/lib": 0})
        )
        assert component_digests(tree, owners, 3, kernel=KERNEL)[:2] == [None, None]
        hashed = Digests(tree, kernel=KERNEL, threads=2)
        assert [hashed.hash(batch) for batch in range(len(hashed))] == [None] * len(hashed)
        hashed.finish()
        found = component_digests(tree, owners, 3, kernel=KERNEL)
        partition = Partition(tree, owners, 3)
        assert archive(partition, 1, None)
        assert component_digests(tree, owners, 3, kernel=KERNEL) == found
        return found

    first = digests()
    assert first[2] == hashlib.sha256().digest()
    os.utime(root / "usr/bin/a", (9, 9))
    os.utime(root / "usr/lib", (9, 9))
    assert digests() == first
    (root / "usr/lib/c").chmod(0o600)
    assert [one == other for one, other in zip(digests(), first, strict=True)] == [
        True,
        False,
        True,
    ]
    (root / "usr/bin/a").write_text("other")
    assert digests()[0] != first[0]
    tree = walked(root)
    with pytest.raises(ValueError, match="as many owners"):
        component_digests(tree, array("I", [0]), 1, kernel=KERNEL)


@pytest.mark.skipif(
    "user" not in trees.abilities().xattrs, reason="no user.* extended attributes here"
)
def test_listing(tmp_path: Path) -> None:
    """contract: split-instructions.
    What the sources of components see; both attributes "are instructions and are not written into
    the layer"."""
    root = small_tree(tmp_path / "tree")
    (root / "lib").symlink_to("usr/lib")
    os.setxattr(root / "usr/bin", "user.component", b"shell")
    os.setxattr(root / "usr/bin/a", "user.update-interval", b"daily\0")
    os.setxattr(root / "usr/bin/a", "user.other", b"kept")
    tree = walked(root, take_instructions=True)
    listing = tree.listing()
    at = {path: number for number, path in enumerate(listing.paths)}
    assert list(listing.paths) == tree.paths()
    flagged = zip(listing.paths, listing.directories, strict=True)
    folders = [path for path, flag in flagged if flag]
    assert folders == [b"", b"empty", b"usr", b"usr/bin", b"usr/lib"]
    assert listing.sizes[at[b"usr/bin/a"]] == 1
    assert listing.links[at[b"usr/bin/b"]] == listing.links[at[b"usr/lib/c"]] != 0
    assert sum(map(bool, listing.links)) == 2
    assert listing.symlinks == {b"lib": b"usr/lib"}
    assert listing.components == {at[b"usr/bin"]: b"shell"}
    assert listing.intervals == {at[b"usr/bin/a"]: b"daily\0"}
    written = [
        member.pax_headers for tar in archives(tree, None, 1, epoch=1) for member in members_of(tar)
    ]
    assert {key for headers in written for key in headers if "xattr" in key} == {
        "SCHILY.xattr.user.other"
    }
    kept = walked(root)
    assert kept.listing().components == {}
    written = [
        member.pax_headers for tar in archives(kept, None, 1, epoch=1) for member in members_of(tar)
    ]
    assert any("SCHILY.xattr.user.component" in headers for headers in written)
