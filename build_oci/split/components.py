"""Who owns each file of a tree: the sources in their order, then hard links, then what nobody
claims.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING

from build_oci.config.components import UNCLAIMED
from build_oci.errors import TreeError, counted, printable
from build_oci.records import NamedTuple
from build_oci.split.component import NO_OWNER, Component
from build_oci.split.sources import Context, Owners, Registry, map_file, packages, paths, xattr
from build_oci.split.tree import TreeIndex, TreeView

if TYPE_CHECKING:
    from build_oci.config.model import SplitConfig
    from build_oci.split.sources import Claim

__all__ = ["NO_OWNER", "Component", "Ownership", "TreeView", "Unclaimed", "find_owners"]

CLAIMS: dict[str, Claim] = {
    "file": map_file.claim,
    "xattr": xattr.claim,
    "packages": packages.claim,
    "paths": paths.claim,
}
_PATHS_NAMED = 10
_ALONE = (
    100  # an unclaimed file of at least a hundredth of the tree's bytes is a component of its own
)


class Unclaimed(NamedTuple):
    """What no source claims: size in bytes and number of entries that are no directories, and the
    first ten paths in tar order.
    """

    size: int
    files: int
    paths: tuple[bytes, ...]


class Ownership(NamedTuple):
    """Who owns each entry of a tree.

    components: sorted by name; each owns at least one entry.
    owners: for each entry, as a buffer of 32 bits each, the number of its component; NO_OWNER for a
    directory that nobody claims, for nothing else.
    warnings: lines for the user.
    """

    components: tuple[Component, ...]
    owners: Owners
    warnings: tuple[str, ...]
    unclaimed: Unclaimed


def find_owners(
    view: TreeView, split: SplitConfig, *, check: Callable[[], None] = lambda: None
) -> Ownership:
    """Who owns what in the tree VIEW.

    CHECK is called now and then from this thread, and raises to end the work.

    Raises UsageError for a map of components, TreeError for what the tree itself holds, or for
    files without an owner where the configuration forbids them.
    """
    tree = TreeIndex(view, check)
    registry = Registry()
    owners: Owners | None = None
    for config in split.components:
        claimed = CLAIMS[config.kind](Context(tree, registry, config))
        if owners is not None and owners.count(NO_OWNER) < len(owners):
            claimed = array(
                "I",
                [
                    later if first == NO_OWNER else first
                    for first, later in zip(owners, claimed, strict=True)
                ],
            )
        owners = claimed
    if owners is None:
        owners = array("I", b"\xff\xff\xff\xff") * len(tree.paths)
    _join_links(tree, registry, owners)
    unclaimed = _own_unclaimed(tree, registry, owners)
    if unclaimed.files and split.unclaimed == "error":
        raise TreeError(
            _told(unclaimed),
            where=view.root,
            hint="name an owner in `split.components`, or set `unclaimed: warn`",
        )
    if unclaimed.files and split.unclaimed == "warn":
        registry.warn(f"{view.root}: {_told(unclaimed)}")
    return _sorted(registry, owners, unclaimed)


def _join_links(tree: TreeIndex, registry: Registry, owners: Owners) -> None:
    """All names of one file go to the component of the first name in tar order that has one."""
    groups: dict[int, list[int]] = {}
    for index, group in enumerate(tree.view.links):
        if group:
            groups.setdefault(group, []).append(index)
    conflicts = []
    for names in groups.values():
        claimed = [index for index in names if owners[index] != NO_OWNER]
        if not claimed:
            continue
        owner = owners[claimed[0]]
        conflicts += [
            (claimed[0], index, owners[index]) for index in claimed if owners[index] != owner
        ][:1]
        for index in names:
            owners[index] = owner
    if conflicts:
        first, other, owner = min(conflicts)
        others = (
            f" (and so with {counted(len(conflicts) - 1, 'more file')})"
            if len(conflicts) > 1
            else ""
        )
        registry.warn(
            f"{tree.where(tree.paths[other])}: belongs to `{registry.name(owner)}`, but is a hard"
            f" link to {tree.where(tree.paths[first])} of `{registry.name(owners[first])}`, and"
            f" goes there{others}"
        )


def _own_unclaimed(tree: TreeIndex, registry: Registry, owners: Owners) -> Unclaimed:
    """Large files become a component each; the others go together by the first two names of their
    directory's path.
    """
    links, sizes = tree.view.links, tree.view.sizes
    total = sum(sizes)
    first_names: dict[int, int] = {}
    for index, group in enumerate(links):
        if group and first_names.setdefault(group, index) != index:
            total -= sizes[index]
    left = [
        index
        for index, (owner, is_directory) in enumerate(
            zip(owners, tree.view.directories, strict=True)
        )
        if owner == NO_OWNER and not is_directory
    ]
    unclaimed_bytes = 0
    folders: dict[bytes, int] = {}
    for index in left:
        group = links[index]
        # No name of the group has an owner, or they all would.
        if group and first_names[group] != index:
            owners[index] = owners[first_names[group]]
            continue
        size = sizes[index]
        unclaimed_bytes += size
        path = tree.paths[index]
        if size and size * _ALONE >= total:
            owners[index] = registry.number(UNCLAIMED + printable(path), "unclaimed")
            continue
        folder = path.rpartition(b"/")[0]
        if folder not in folders:
            folders[folder] = registry.number(
                UNCLAIMED + printable(b"/".join(folder.split(b"/")[:2])), "unclaimed"
            )
        owners[index] = folders[folder]
    return Unclaimed(
        unclaimed_bytes, len(left), tuple(tree.paths[index] for index in left[:_PATHS_NAMED])
    )


def _told(unclaimed: Unclaimed) -> str:
    named = ", ".join(printable(path) for path in unclaimed.paths)
    more = ", …" if unclaimed.files > len(unclaimed.paths) else ""
    return (
        f"{counted(unclaimed.files, 'file')} ({counted(unclaimed.size, 'byte')}) without an owner:"
        f" {named}{more}"
    )


def _sorted(registry: Registry, owners: Owners, unclaimed: Unclaimed) -> Ownership:
    """Without components that own nothing, and numbered by name, so that the order in which sources
    met them does not matter.
    """
    components = registry.components()
    used = sorted(set(owners) - {NO_OWNER}, key=lambda number: components[number].name)
    renumbered = {number: place for place, number in enumerate(used)} | {NO_OWNER: NO_OWNER}
    return Ownership(
        tuple(components[number] for number in used),
        array("I", map(renumbered.__getitem__, owners)),
        tuple(registry.warnings),
        unclaimed,
    )
