"""The source `packages`: data bases of package managers that lie in the tree.

Packages of one source package are one component.

A data base is a module with a function `packages`; add it to _DATABASES. Nobody vouches for what
lies in a tree: a data base that is cut, broken or hostile ends in one TreeError that names its
file, within the memory of one record (at most 64 MiB) and the tree's index.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module

from build_oci.config.components import name_problem
from build_oci.records import NamedTuple
from build_oci.split.component import (
    NO_OWNER,
    intervals_of_changelogs,
    latest_days,
    shown_name,
)
from build_oci.split.sources import Context, Owners, no_owners
from build_oci.split.tree import TreeIndex

_DATABASES = ("dpkg", "apk", "alpm", "rpm")
_SHARED = NO_OWNER - 1


class Package(NamedTuple):
    """One installed package.

    source: the name of its source package.
    entries: the indexes of what it owns, directories included, and None for what the tree lacks;
    read once, and lazily.
    dates: of its changelog, in seconds since 1970, as far as they are known.
    """

    source: str
    entries: Iterable[int | None]
    dates: Sequence[int] = ()


Packages = Callable[[TreeIndex, Callable[[str], None]], Iterator[Package]]
"""What a data base's module has: the packages that the tree holds, in an order that depends on
nothing else. The second argument warns.
"""


def claim(context: Context) -> Owners:
    """Each entry goes to the first package that lists it; a directory, or a link to one, only to a
    component that alone lists it.
    """
    tree, registry = context.tree, context.registry
    owners = no_owners(context).tolist()
    directories = tree.view.directories
    numbers: dict[str, int] = {}
    changelogs: dict[str, list[int]] = {}  # of a source package the first that tells anything
    shared: list[int] = []
    for database in _DATABASES:
        packages: Packages = import_module(f"{__name__}.{database}").packages
        for package in packages(tree, registry.warn):
            tree.check()
            number = numbers.get(package.source, NO_OWNER)
            if number == NO_OWNER:
                number = numbers[package.source] = registry.number(package.source, "packages")
            if package.source not in changelogs and len(days := latest_days(package.dates)) > 1:
                changelogs[package.source] = days
            for found in package.entries:
                if found is None:
                    continue
                owner = owners[found]
                if owner == NO_OWNER:
                    owners[found] = number
                elif owner not in (number, _SHARED) and (
                    directories[found] or tree.real_directory(tree.paths[found]) is not None
                ):
                    owners[found] = _SHARED
                    shared.append(found)
    for found in shared:
        owners[found] = NO_OWNER
    for source, interval in intervals_of_changelogs(changelogs).items():
        registry.set_interval(numbers[source], interval, "packages")
    return array("I", owners)


def source_name(tree: TreeIndex, path: bytes, raw: bytes) -> str:
    """RAW, which stands in the data base PATH, as the name of a component.

    TreeError if it cannot be one.
    """
    try:
        name = raw.decode()
        problem = name_problem(name)
    except UnicodeDecodeError:
        problem = "is not UTF-8"
    if problem:
        raise tree.broken(path, f"the name of a package, `{shown_name(raw)}`, {problem}")
    return name
