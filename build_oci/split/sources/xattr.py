"""The source `xattr`: the extended attributes `user.component` and `user.update-interval`, which
hold for all below a directory too.
"""

from __future__ import annotations

from build_oci.config.components import name_problem
from build_oci.errors import TreeError
from build_oci.split.component import NO_OWNER, parse_interval, shown_name
from build_oci.split.sources import Context, Owners, no_owners

NAME = "user.component"
INTERVAL = "user.update-interval"


def claim(context: Context) -> Owners:
    """Each entry goes to the component that it names, else to that of its directory."""
    tree = context.tree
    owners = no_owners(context)
    named = tree.view.components
    if not named and not tree.view.intervals:
        return owners
    directories = tree.view.directories
    inherited: dict[bytes, int] = {}
    for index, path in enumerate(tree.paths):
        if index % 4096 == 0:
            tree.check()
        owner = (
            _component(context, index, named[index])
            if index in named
            else inherited.get(path.rpartition(b"/")[0], NO_OWNER)
        )
        if owner != NO_OWNER:
            owners[index] = owner
            if directories[index]:
                inherited[path] = owner
    _read_idle_intervals(context, owners)
    return owners


def _component(context: Context, index: int, value: bytes) -> int:
    try:
        name = value.removesuffix(b"\0").decode()
        problem = name_problem(name)
    except UnicodeDecodeError:
        problem = "is not UTF-8"
    if problem:
        raise TreeError(
            f"its attribute {NAME}, `{shown_name(value)}`, {problem}",
            where=context.tree.where(context.tree.paths[index]),
            hint="correct it, or leave `xattr` out of `split.components`",
        )
    interval = context.tree.view.intervals.get(index)
    return context.registry.number(
        name, "xattr", None if interval is None else _interval(context, index, interval)
    )


def _interval(context: Context, index: int, value: bytes) -> float:
    try:
        return parse_interval(value.removesuffix(b"\0").decode("utf-8", "replace"))
    except ValueError as error:
        raise TreeError(
            f"its attribute {INTERVAL}, `{shown_name(value)}`, {error}",
            where=context.tree.where(context.tree.paths[index]),
            hint="correct it, or leave `xattr` out of `split.components`",
        ) from None


def _read_idle_intervals(context: Context, owners: Owners) -> None:
    """An interval without a name beside it says something of the component that the entry inherits;
    where there is none, nothing.
    """
    view = context.tree.view
    idle = []
    for index in sorted(set(view.intervals) - set(view.components)):
        if owners[index] == NO_OWNER:
            idle.append(context.tree.where(context.tree.paths[index]))
        else:
            context.registry.set_interval(
                owners[index], _interval(context, index, view.intervals[index])
            )
    if idle:
        others = f" (and so with {len(idle) - 1:,} more)" if len(idle) > 1 else ""
        context.registry.warn(
            f"{idle[0]}: has the attribute {INTERVAL} but no component, so it says nothing{others}"
        )
