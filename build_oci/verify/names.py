"""What the names in the layers of an image mean on top of each other."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from build_oci.oci.untrusted import ENTRY_COST
from build_oci.verify.findings import Finding

if TYPE_CHECKING:
    from build_oci._native.lower import Member, TarReader

_MEMBERS_AT_ONCE = 4096
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_LONGEST_NAME = 255  # of a component, on every file system
_SHOWN = 300  # bytes of a name
# For the names of one image, beside 400 bytes for each member; each is counted with some 200 bytes
# for its place in a dict.
_TREE_SLACK = 64 << 20
_NAME_COST = 200

# OTHER: files, devices and FIFOs, which are not told apart.
OTHER, LINK, _FOLDER, _HIDING = range(4)
_KINDS = {stat.S_IFDIR: _FOLDER, stat.S_IFLNK: LINK}


def members(reader: TarReader) -> Iterator[Member]:
    """The members of READER in the order of the archive, a batch of them in memory."""
    for start in range(0, len(reader), _MEMBERS_AT_ONCE):
        yield from reader.members(start, start + _MEMBERS_AT_ONCE)


class Tree:
    """The names that the layers so far leave: nested dicts for directories, and what kind anything
    else is of.
    """

    def __init__(self) -> None:
        self.incomplete = (
            False  # a layer could not be read, so what is not here may be there all the same
        )
        self._root: dict[bytes, Any] = {}
        self._cost = 0
        self._members = 0
        self._through_links = False

    def apply(self, reader: TarReader, check: Callable[[], None]) -> Iterator[Finding]:
        """Put a layer on top; yields what is wrong or odd with it. CHECK may raise to stop this."""
        added: dict[bytes, int] = {}
        self._members += len(reader)
        linked: list[tuple[bytes, bytes]] = []  # to what is not in this layer
        hidden: list[tuple[bytes, bytes]] = []
        for start in range(0, len(reader), _MEMBERS_AT_ONCE):
            check()
            for member in reader.members(start, start + _MEMBERS_AT_ONCE):
                name = member["name"]
                folder, _, last = name.rpartition(b"/")
                if name in added:
                    yield Finding(True, f"{show_name(name)} is in it more than once")
                if last.startswith(_WHITEOUT):
                    if not stat.S_ISREG(member["mode"]) or member["size"] or member["hard_link"]:
                        yield Finding(
                            True, f"{show_name(name)} is a whiteout, and should be an empty file"
                        )
                    yield from self._whiteout(name, folder, last, added, hidden)
                    added[name] = _HIDING
                    continue
                if len(last) > _LONGEST_NAME:
                    yield Finding(True, f"{show_name(name)} is longer than any file system takes")
                if added.get(_join(folder, _WHITEOUT + last)) == _HIDING:
                    yield Finding(
                        False,
                        f"{show_name(name)} is in it beside its own whiteout, which hides it only"
                        " in the layers below",
                    )
                kind = _KINDS.get(stat.S_IFMT(member["mode"]), OTHER)
                if member["hard_link"]:
                    target = member["target"] or b""
                    kind = added.get(target, OTHER)
                    if kind in (_FOLDER, _HIDING):
                        yield Finding(
                            True,
                            f"{show_name(name)} is a hard link to {show_name(target)}, which is no"
                            " file",
                        )
                        kind = OTHER
                    elif target not in added:
                        linked.append((name, target))
                added[name] = kind
        # Whiteouts hide what is below, never what stands beside them.
        for folder, last in hidden:
            if last == _OPAQUE:
                self._folder(folder).clear()
            else:
                self._folder(folder).pop(last[len(_WHITEOUT) :], None)
        for name, target in linked:
            yield from self._linked(name, target, added)
        for number, (name, kind) in enumerate(added.items()):
            if number % _MEMBERS_AT_ONCE == 0:
                check()
            if added.get(name.rpartition(b"/")[0]) == OTHER:
                # umoci writes such whiteouts where a file replaces a directory; buildah cannot
                # apply them.
                yield Finding(
                    kind != _HIDING, f"{show_name(name)} is inside of what is no directory"
                )
            if kind != _HIDING and name:
                if self._cost > _TREE_SLACK + ENTRY_COST * self._members:
                    self.incomplete = True
                    yield Finding(
                        True,
                        "with it, the names of the image need more memory than so many may have:"
                        " the rest is not looked at",
                    )
                    return
                self._add(name, kind)

    def look(self, path: bytes) -> dict[bytes, Any] | int | None:
        """What PATH is: a dict of names for a directory, LINK for a symbolic link, OTHER for
        anything else, None for nothing.
        """
        folder, _, last = path.rpartition(b"/")
        return self._folder(folder).get(last) if path else self._root

    def _whiteout(
        self,
        name: bytes,
        folder: bytes,
        last: bytes,
        added: dict[bytes, int],
        hidden: list[tuple[bytes, bytes]],
    ) -> Iterator[Finding]:
        gone = last[len(_WHITEOUT) :]
        if last == _OPAQUE:
            hidden.append((folder, last))
        elif gone in (b"", b".", b".."):
            yield Finding(True, f"{show_name(name)} is a whiteout of nothing that has a name")
        elif gone.startswith(_WHITEOUT):
            yield Finding(
                False, f"{show_name(name)} is a whiteout of its own kind, which clients ignore"
            )
        elif _join(folder, gone) in added:
            # The image-spec allows it, and what it hides stays; clients that unpack in the order of
            # the archive remove it.
            yield Finding(
                False,
                f"{show_name(name)} is a whiteout of what stands before it in the same layer, which"
                " some clients remove",
            )
            hidden.append((folder, last))
        elif gone in self._folder(folder):
            hidden.append((folder, last))
        else:
            yield Finding(False, f"{show_name(name)} hides nothing: no layer below has that name")

    def _linked(self, name: bytes, target: bytes, added: dict[bytes, int]) -> Iterator[Finding]:
        """The hard link NAME leads out of its layer."""
        folder, _, last = target.rpartition(b"/")
        found = self._folder(folder).get(last)
        if isinstance(found, int):
            return
        what = f"{show_name(name)} is a hard link to {show_name(target)}"
        if found is not None:
            yield Finding(True, f"{what}, which is no file")
        elif self.incomplete or self._through_links or self._crosses_link(folder, added):
            yield Finding(
                False,
                f"{what}, which may be there by way of a symbolic link or in a layer that cannot be"
                " read",
            )
        else:
            yield Finding(True, f"{what}, which is no file before it")

    def _folder(self, path: bytes) -> dict[bytes, Any]:
        """What is in the directory PATH; a dict of no tree where there is none."""
        node: Any = self._root
        for part in path.split(b"/") if path else ():
            node = node.get(part)
            if not isinstance(node, dict):
                return {}
        return node  # type: ignore[no-any-return]

    def _crosses_link(self, path: bytes, added: dict[bytes, int]) -> bool:
        """Is PATH, or a directory that it leads through, a symbolic link?"""
        node: Any = self._root
        end = 0
        for part in path.split(b"/") if path else ():
            end += len(part) + 1
            node = node.get(part) if isinstance(node, dict) else None
            if node == LINK or added.get(path[: end - 1]) == LINK:
                return True
        return False

    def _add(self, name: bytes, kind: int) -> None:
        node = self._root
        *folders, last = name.split(b"/")
        for part in folders:
            below = node.get(part)
            if not isinstance(below, dict):
                # An archive need not name the directories of its files.
                self._through_links = self._through_links or below == LINK
                self._cost += _NAME_COST + len(part)
                below = node[part] = {}
            node = below
        if last not in node:
            self._cost += _NAME_COST + len(last)
        if kind != _FOLDER:
            node[last] = kind
        elif not isinstance(node.get(last), dict):
            node[last] = {}


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def show_name(name: bytes) -> str:
    """NAME for a message."""
    return f"“{os.fsdecode(name[:_SHOWN] or b'.')}{'…' if len(name) > _SHOWN else ''}”"
