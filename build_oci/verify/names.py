"""One layer as `build-oci verify` sees it: what comes of reading its blob, and what its names mean on top of the layers below."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from build_oci._native.lower import Scan
    from build_oci.work.pool import Task

_MEMBERS_AT_ONCE = 4096
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_LONGEST_NAME = 255  # of a component, on every file system
_SHOWN = 300  # bytes of a name
# For the names of one image; each is counted with some 200 bytes for its place in a dict.
_TREE_LIMIT = 1 << 30
_NAME_COST = 200

_OTHER, _LINK, _FOLDER, _HIDING = range(4)  # what is not told apart: files, devices, FIFOs
_KINDS = {stat.S_IFDIR: _FOLDER, stat.S_IFLNK: _LINK}


class Archive:
    """What comes of reading one layer; `scan` is None where the archive was refused, which is one of `problems`."""

    def __init__(self, algorithm: str, memory_limit: int) -> None:
        """ALGORITHM: of the diff_id. MEMORY_LIMIT: bytes that the members may take."""
        from build_oci._native.lower import Scan

        self.done: Task[None]
        self.users = 0  # that still wait for it
        self.scan: Scan | None = Scan(memory_limit=memory_limit)
        self.codec = ""
        self.diff_id = ""  # empty where the stream does not come to its end
        self.ended = False  # by end-of-archive blocks
        self.size = 0
        self.problems: list[str] = []
        self._algorithm = algorithm
        self._content = hashlib.new(algorithm)
        self._tail = b""

    @property
    def held(self) -> int:
        """Bytes of memory."""
        scan = self.scan
        return scan.held if scan is not None else 0

    def feed(self, piece: bytes | memoryview) -> None:
        """The next bytes of the archive."""
        self._content.update(piece)
        self.size += len(piece)
        self._tail = (self._tail + bytes(piece[-1024:]))[-1024:]
        if self.scan is not None:
            try:
                self.scan.feed(piece)
            except ValueError as error:
                self.refuse(str(error))

    def finish(self) -> None:
        """There are no more bytes. ValueError where there should be."""
        self.diff_id = f"{self._algorithm}:{self._content.hexdigest()}"
        self.ended = len(self._tail) == 1024 and not self._tail.strip(b"\0")
        if self.scan is not None:
            self.scan.finish()

    def refuse(self, what: str) -> None:
        """Nothing is said of the names in it; its digest may still be right."""
        self.scan = None
        self.problems.append(what)

    def damaged(self, what: str) -> None:
        """The blob is not what its digest says: what it holds is nobody's word."""
        self.scan, self.codec, self.diff_id, self.problems = None, "", "", [what]


class Tree:
    """The names that the layers so far leave: nested dicts for directories, and what kind anything else is of."""

    def __init__(self) -> None:
        self.incomplete = False  # a layer could not be read, so what is not here may be there all the same
        self._root: dict[bytes, Any] = {}
        self._cost = 0
        self._through_links = False

    def apply(self, scan: Scan, check: Callable[[], None]) -> Iterator[tuple[bool, str]]:
        """Put a layer on top. What is wrong (True) or odd (False) with it. CHECK may raise to stop this."""
        added: dict[bytes, int] = {}
        linked: list[tuple[bytes, bytes]] = []  # to what is not in this layer
        hidden: list[tuple[bytes, bytes]] = []
        for start in range(0, len(scan), _MEMBERS_AT_ONCE):
            check()
            for member in scan.members(start, start + _MEMBERS_AT_ONCE):
                name = member["name"]
                folder, _, last = name.rpartition(b"/")
                if name in added:
                    yield True, f"{_shown(name)} is in it more than once"
                if last.startswith(_WHITEOUT):
                    if not stat.S_ISREG(member["mode"]) or member["size"] or member["hard_link"]:
                        yield True, f"{_shown(name)} is a whiteout, and should be an empty file"
                    yield from self._whiteout(name, folder, last, added, hidden)
                    added[name] = _HIDING
                    continue
                if len(last) > _LONGEST_NAME:
                    yield True, f"{_shown(name)} is longer than any file system takes"
                if added.get(_join(folder, _WHITEOUT + last)) == _HIDING:
                    yield False, f"{_shown(name)} is in it beside its own whiteout, which hides it only in the layers below"
                kind = _KINDS.get(stat.S_IFMT(member["mode"]), _OTHER)
                if member["hard_link"]:
                    target = member["target"] or b""
                    kind = added.get(target, _OTHER)
                    if kind in (_FOLDER, _HIDING):
                        yield True, f"{_shown(name)} is a hard link to {_shown(target)}, which is no file"
                        kind = _OTHER
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
            if added.get(name.rpartition(b"/")[0]) == _OTHER:
                # umoci writes such whiteouts where a file replaces a directory; buildah cannot apply them.
                yield kind != _HIDING, f"{_shown(name)} is inside of what is no directory"
            if kind != _HIDING and name:
                if self._cost > _TREE_LIMIT:
                    self.incomplete = True
                    yield (
                        True,
                        f"with it, the names of the image need more than {_TREE_LIMIT >> 20} MiB of memory: the rest is not looked at",
                    )
                    return
                self._add(name, kind)

    def _whiteout(
        self, name: bytes, folder: bytes, last: bytes, added: dict[bytes, int], hidden: list[tuple[bytes, bytes]]
    ) -> Iterator[tuple[bool, str]]:
        gone = last[len(_WHITEOUT) :]
        if last == _OPAQUE:
            hidden.append((folder, last))
        elif gone in (b"", b".", b".."):
            yield True, f"{_shown(name)} is a whiteout of nothing that has a name"
        elif gone.startswith(_WHITEOUT):
            yield False, f"{_shown(name)} is a whiteout of its own kind, which clients ignore"
        elif _join(folder, gone) in added:
            # By the book it stays, but every client that unpacks in the order of the archive removes it.
            yield True, f"{_shown(name)} is a whiteout of what stands before it in the same layer"
            hidden.append((folder, last))
        elif gone in self._folder(folder):
            hidden.append((folder, last))
        else:
            yield False, f"{_shown(name)} hides nothing: no layer below has that name"

    def _linked(self, name: bytes, target: bytes, added: dict[bytes, int]) -> Iterator[tuple[bool, str]]:
        """The hard link NAME leads out of its layer."""
        folder, _, last = target.rpartition(b"/")
        found = self._folder(folder).get(last)
        if isinstance(found, int):
            return
        what = f"{_shown(name)} is a hard link to {_shown(target)}"
        if found is not None:
            yield True, f"{what}, which is no file"
        elif self.incomplete or self._through_links or self._crosses_link(folder, added):
            yield False, f"{what}, which may be there by way of a symbolic link or in a layer that cannot be read"
        else:
            yield True, f"{what}, which is no file before it"

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
            if node == _LINK or added.get(path[: end - 1]) == _LINK:
                return True
        return False

    def _add(self, name: bytes, kind: int) -> None:
        node = self._root
        *folders, last = name.split(b"/")
        for part in folders:
            below = node.get(part)
            if not isinstance(below, dict):
                # An archive need not name the directories of its files.
                self._through_links = self._through_links or below == _LINK
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


def _shown(name: bytes) -> str:
    return f"“{os.fsdecode(name[:_SHOWN] or b'.')}{'…' if len(name) > _SHOWN else ''}”"
