"""How a walked tree is divided: who owns what, how much that is, which components share a layer,
and so the layer of every entry.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING

from build_oci._native.tar import component_digests
from build_oci.records import NamedTuple
from build_oci.split.components import NO_OWNER, Ownership, Unclaimed, find_owners
from build_oci.split.plan import Plan, make_plan
from build_oci.split.rates import DIGEST_KEPT, Component
from build_oci.split.root import RootFiles
from build_oci.work.cpus import sha256_kernel

if TYPE_CHECKING:
    from build_oci._native.unpack import AnyTree
    from build_oci._native.walk import Listing
    from build_oci.config.model import SplitConfig

_BLOCK = 512  # of a tar
# Of a regular file: its extended header, the record of its digest, its own header.
_HEADERS = 3 * _BLOCK


class Division(NamedTuple):
    """A tree in layers.

    plan: which components share a layer, the lowest first.
    layers: for each entry of the walk, in tar order, the number of its layer, or NO_OWNER for a
    directory that no planned component owns.
    components: for each entry the number of its component in `names`, or NO_OWNER.
    reason: why the plan is as it is, in a line.
    unclaimed: what no source claims.
    """

    plan: Plan
    layers: array[int]
    components: array[int]
    names: tuple[str, ...]
    reason: str
    unclaimed: Unclaimed


class _View:
    """A walked tree as the sources of components see it (split.tree.TreeView)."""

    def __init__(
        self, root: str, listing: Listing, open_file: Callable[[bytes], int | None]
    ) -> None:
        self.root = root
        (
            self.paths,
            self.directories,
            self.sizes,
            self.links,
            self.symlinks,
            self.components,
            self.intervals,
        ) = listing
        self.open_file = open_file


class Owned(NamedTuple):
    """Who owns each entry of a tree, and the tree as it was seen."""

    view: _View
    ownership: Ownership


def owned_tree(
    tree: AnyTree, root: str, split: SplitConfig, *, check: Callable[[], None] = lambda: None
) -> Owned:
    """Who owns what in TREE, the directory ROOT. Other threads may hash its files meanwhile. CHECK
    is called now and then, and raises to end the work.

    Raises UsageError for a map of components, TreeError for what the tree holds or for files
    without an owner where the configuration forbids them.
    """
    with RootFiles(root) as files:
        # The tree of an image is in no directory.
        view = _View(root, tree.listing(), getattr(tree, "open_file", files.open_file))
        try:
            return Owned(view, find_owners(view, split, check=check))
        finally:
            view.paths.close()


def divide(
    tree: AnyTree,
    owned: Owned,
    *,
    most: int,
    previous: Plan | None = None,
    digested: bool = False,
    warn: Callable[[str], None] = lambda text: None,
    check: Callable[[], None] = lambda: None,
) -> Division:
    """Divide TREE, which is OWNED, into at most MOST layers, after the plan PREVIOUS; only what is
    emitted counts.

    DIGESTED: every file has its digest, so that the plan learns which components changed. CHECK is
    called now and then, and raises to end the work.
    """
    view, found = owned
    for warning in found.warnings:
        warn(warning)
    sizes = _sizes(view, found, tree.emitted())
    digests: list[bytes | None] = [None] * len(sizes)
    if digested:
        digests = component_digests(tree, found.owners, len(sizes), kernel=sha256_kernel())
    result = make_plan(
        [
            Component(
                component.name, size, component.interval_days, digest.hex() if digest else None
            )
            for component, size, digest in zip(found.components, sizes, digests, strict=True)
            if size
        ],
        most,
        previous,
        check=check,
    )
    places = result.plan.places()
    layers = {
        number: places.get(component.name, NO_OWNER)
        for number, component in enumerate(found.components)
    }
    layers[NO_OWNER] = NO_OWNER
    return Division(
        result.plan,
        array("I", map(layers.__getitem__, found.owners)),
        found.owners,
        tuple(component.name for component in found.components),
        result.reason,
        found.unclaimed,
    )


def with_digests(division: Division, tree: AnyTree) -> Division:
    """DIVISION of TREE once all is packed: its plan remembers what its components hold, so that the
    next build can see which changed.
    """
    found = component_digests(
        tree, division.components, len(division.names), kernel=sha256_kernel()
    )
    digests = {
        name: digest.hex()[:DIGEST_KEPT]
        for name, digest in zip(division.names, found, strict=True)
        if digest
    }
    history = {
        name: known if known.gone else known._replace(digest=digests.get(name, ""))
        for name, known in division.plan.history.items()
    }
    return division._replace(plan=division.plan._replace(history=history))


def _sizes(view: _View, found: Ownership, emitted: bytes) -> list[int]:
    """The bytes that each component adds to an archive; 0 where nothing of it but directories is
    emitted, which lie where they must.
    """
    sizes = [0] * len(found.components)
    linked: set[int] = set()
    for owner, size, link, is_directory, is_emitted in zip(
        found.owners, view.sizes, view.links, view.directories, emitted, strict=True
    ):
        if is_directory or not is_emitted:
            continue
        if link:
            if link in linked:
                size = 0
            linked.add(link)
        sizes[owner] += (_HEADERS + (size + _BLOCK - 1) // _BLOCK * _BLOCK) if size else _BLOCK
    return sizes
