"""Reading a root file system: the walk on all workers, and its problems in words."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from build_oci._native.walk import Tree
from build_oci.config.patterns import compile_pattern
from build_oci.errors import MEMORY_HINT, BuildOciError, Cancelled, TreeError

if TYPE_CHECKING:
    from build_oci._native.walk import Problem
    from build_oci.work.crew import Crew

_CALLS = {
    "open": "cannot be opened",
    "fdopendir": "cannot be listed",
    "readdir": "cannot be listed",
    "read": "cannot be read",
    "lstat": "cannot be looked at",
    "fstat": "cannot be looked at",
    "fstatat": "cannot be looked at",
    "readlinkat": "its target cannot be read",
    "llistxattr": "its extended attributes cannot be listed",
    "lgetxattr": "its extended attributes cannot be read",
}
_WARNINGS = {
    "socket": "skipped: a socket cannot be stored in a layer",
    "whiteout-name": "stored as it is, but every client will read this name as a whiteout",
}
_HINTS = {
    errno.EACCES: "run as a user who may read it, or under fakeroot; nothing is left out silently",
    errno.EPERM: "run as a user who may read it, or under fakeroot; nothing is left out silently",
}


def read_tree(
    root: str,
    workers: Crew,
    *,
    skip_xattrs: bool,
    trust_checksum_xattrs: bool | None,
    warn: Callable[[str], None],
    meanwhile: Callable[[], None] = lambda: None,
    exclude: Sequence[str] = (),
    exclude_where: str = "exclude",
    owner: tuple[int, int] | None = None,
    take_instructions: bool = False,
) -> Tree:
    """Walk the directory ROOT, and call MEANWHILE once while that goes on.

    trust_checksum_xattrs: None believes them on FUSE.
    exclude: patterns that compile_pattern takes; exclude_where is for the warning about those that
    match nothing.
    owner: user and group of every entry, in place of their own.
    take_instructions: `user.component` and `user.update-interval` say how to divide the tree, and
    are not written.

    Raises TreeError naming every file (up to ten) that cannot be read; sockets are a warning.
    """
    tree = Tree(
        os.fsencode(root),
        skip_xattrs=skip_xattrs,
        trust_checksums=trust_checksum_xattrs,
        owner=owner,
        exclude=[compile_pattern(pattern) for pattern in exclude],
        take_instructions=take_instructions,
    )
    workers.run_on_all(tree.run, tree.stop, meanwhile)
    problems = tree.problems()
    for warned, what in _WARNINGS.items():
        paths = [path for kind, _, _, path in problems if kind == warned]
        if paths:
            warn(f"{_shown(root, paths[0])}: {what}{_and_others(root, paths[1:])}")
    errors = [problem for problem in problems if problem[0] not in _WARNINGS]
    if errors:
        raise problem_error(root, errors[0], others=[path for _, _, _, path in errors[1:]])
    for number in tree.unused():
        warn(
            f"{exclude_where}: `{exclude[number]}` matches nothing; a pattern starts at the root of"
            " the tree, `**/NAME` is for any depth"
        )
    if owner is None and tree.sole_owner is not None and tree.sole_owner == os.geteuid() != 0:
        warn(
            f"{root}: all of it belongs to user {tree.sole_owner}, who runs this build, and will"
            " in the image; `owner: 0:0` changes that"
        )
    if tree.mode & 0o1002 == 0o002:
        warn(
            f"{root}: everyone may write to it (mode {tree.mode:04o}), and will to the root of the"
            " image"
        )
    return tree


def problem_error(root: str, problem: Problem, *, others: Sequence[bytes] = ()) -> BuildOciError:
    """The error that a problem told by native code stands for; `others` are paths that it holds for
    as well.
    """
    kind, number, call, path = problem
    hint = ""
    if kind == "cancelled":
        return Cancelled("the build was stopped")
    if kind == "changed":
        what, hint = (
            "changed while it was being read",
            "nothing may write to the tree during a build",
        )
    elif kind == "length":
        what = "its content is not as long as the size that the file system tells"
        hint = (
            "files of /proc and /sys are like that: keep them out of the tree, with `exclude` for"
            " instance"
        )
    elif kind == "xattr-name":
        what, hint = (
            "has an extended attribute with “=” in its name, which no tar can hold",
            "remove it, or set skip-xattrs: true",
        )
    elif kind == "xattrs-size":
        what = (
            "has extended attributes of nearly 1 MiB or more, and clients read no more than that of"
            " one file"
        )
        hint = "remove some, keep the file out with `exclude`, or set skip-xattrs: true"
    elif kind == "type":
        what, hint = "is of a type that no layer can hold", "keep it out with `exclude`"
    elif call == "malloc":
        what, hint = "there is not enough memory to read it", MEMORY_HINT
    else:
        what, hint = (
            f"{_CALLS.get(call, call + ' failed')}: {os.strerror(number)}",
            _HINTS.get(number, ""),
        )
    return TreeError(what + _and_others(root, others), where=_shown(root, path), hint=hint)


def _and_others(root: str, paths: Sequence[bytes]) -> str:
    """The end of a message that holds for more than one path."""
    if not paths:
        return ""
    named = ", ".join(_shown(root, path) for path in paths[:9])
    return f" (and so with {len(paths)} more: {named}{', …' if len(paths) > 9 else ''})"


def _shown(root: str, path: bytes) -> str:
    return os.path.join(root, os.fsdecode(path)) if path else root
