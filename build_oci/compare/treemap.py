"""The sizes behind the map of a page: an image by layer, by component and by directory, each cut
down to some thousand boxes.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush, heapreplace
from typing import Any

from build_oci.compare.model import Difference, LayerView, Side, What
from build_oci.errors import printable

_MOST_NODES = 200_000  # directories, each layer's counted by itself
_MOST_FILES = 16  # named in one directory
_MOST_BOXES = 2000  # of one map
_MOST_CHILDREN = 60  # of one box
_MOST_LAYERS = 200  # of the outermost: more than an image should have
_DEEPEST = 12


class _Node:
    """A box: its bytes as they are downloaded, and how many of them are new or changed.

    files: a heap of the largest: (size, changed, name).
    """

    __slots__ = ("changed", "children", "entries", "files", "size")

    def __init__(self) -> None:
        self.size = self.changed = self.entries = 0
        self.files: list[tuple[int, int, bytes]] = []
        self.children: dict[Any, _Node] = {}

    def add(self, size: int, changed: int, name: bytes) -> None:
        self.size += size
        self.changed += changed
        self.entries += 1
        item = (size, changed, name)
        if len(self.files) < _MOST_FILES:
            heappush(self.files, item)
        elif item > self.files[0]:
            heapreplace(self.files, item)

    def merge(self, other: _Node) -> None:
        """Add what OTHER has of its own."""
        self.size += other.size
        self.changed += other.changed
        self.entries += other.entries
        self.files = sorted(self.files + other.files)[-_MOST_FILES:]

    def child(self, name: Any) -> _Node:
        found = self.children.get(name)
        if found is None:
            found = self.children[name] = _Node()
        return found


class Maps:
    """Collects what an image holds, entry by entry, in bounded memory."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[int, bytes], _Node] = {}

    def add(self, difference: Difference, ratio: float) -> None:
        """An entry of the new image, whatever became of it.

        RATIO: bytes to download for one byte of its layer's archive.
        """
        entry = difference.new
        if entry is None:
            return
        size = round((512 + entry.size) * ratio)
        directory, _, name = difference.path.rpartition(b"/")
        self._node(entry.layer, directory).add(
            size, 0 if difference.what == What.SAME else size, name
        )

    def _node(self, layer: int, directory: bytes) -> _Node:
        while True:
            node = self._nodes.get((layer, directory))
            if node is not None:
                return node
            if not directory or (
                len(self._nodes) < _MOST_NODES and directory.count(b"/") < _DEEPEST
            ):
                node = self._nodes[layer, directory] = _Node()
                return node
            directory = directory.rpartition(b"/")[0]

    def finish(self, old: Side, new: Side) -> dict[str, Any]:
        """The maps as JSON-able values: by name, each a box {n: name, s: size, c: changed, e:
        entries, k: kind, d: [boxes]}.
        """
        found = {
            "layers": self._map(
                new, lambda layer: (("" if layer.shared else "↓ ") + _layer_name(layer),)
            ),
            "directories": self._map(new, lambda layer: ()),
        }
        if any(layer.components for layer in new.layers):
            found["components"] = self._map(new, lambda layer: (layer.label or "(no component)",))
        return found

    def _map(self, side: Side, place: Callable[[LayerView], tuple[str, ...]]) -> dict[str, Any]:
        root = _Node()
        by_layer: dict[int, list[tuple[bytes, _Node]]] = {}
        for (number, directory), node in self._nodes.items():
            by_layer.setdefault(number, []).append((directory, node))
        for layer in side.layers:
            top = root
            for name in place(layer):
                top = top.child(name)
            if layer.number not in by_layer:
                box = top.child(_unread_name(layer)) if not place(layer) else top
                box.size += layer.size
                box.changed += 0 if layer.shared else layer.size
                continue
            for directory, node in by_layer[layer.number]:
                at = top
                for part in directory.split(b"/") if directory else ():
                    at = at.child(part)
                at.merge(node)
        _sum(root)
        return _pruned(root)


def _layer_name(layer: LayerView) -> str:
    return f"#{layer.number} {layer.label}".rstrip()


def _unread_name(layer: LayerView) -> str:
    return f"({'shared' if layer.shared else 'new'} layer {_layer_name(layer)})"


def _sum(root: _Node) -> None:
    """Let every box count what is in it. Without recursion, though the depth is bounded."""
    order = [root]
    for node in order:
        order += node.children.values()
    for node in reversed(order):
        for child in node.children.values():
            node.size += child.size
            node.changed += child.changed
            node.entries += child.entries


def _pruned(root: _Node) -> dict[str, Any]:
    """ROOT with the boxes that matter: the largest are opened first, until there are enough."""
    whole = _box("", root)
    waiting = [(-root.size, 0, root, whole)]
    boxes = number = 0
    while waiting and boxes < _MOST_BOXES:
        _, _, node, box = heappop(waiting)
        parts: list[tuple[int, str, _Node | None, dict[str, Any]]] = []
        for name, child in node.children.items():
            parts.append(
                (
                    child.size,
                    "",
                    child,
                    _box(_text(name) + ("/" if isinstance(name, bytes) else ""), child),
                )
            )
        parts += [
            (size, "", None, {"n": _text(name) or ".", "s": size, "c": changed})
            for size, changed, name in node.files
        ]
        parts.sort(key=lambda part: (-part[0], part[3]["n"]))
        shown = parts[: _MOST_LAYERS if node is root else _MOST_CHILDREN]
        if not shown:
            continue
        box["d"] = [part[3] for part in shown]
        rest = node.size - sum(part[0] for part in shown)
        if rest > 0:
            changed = max(0, node.changed - sum(part[3]["c"] for part in shown))
            hidden = len(parts) - len(shown)
            name = f"… {hidden:,} more" if hidden else "…"
            box["d"].append({"n": name, "s": rest, "c": min(changed, rest)})
        boxes += len(shown)
        for size, _, child_node, child_box in shown:
            if child_node is not None and (child_node.children or child_node.files):
                number += 1
                heappush(waiting, (-size, number, child_node, child_box))
    return whole


def _box(name: str, node: _Node) -> dict[str, Any]:
    return {"n": name, "s": node.size, "c": node.changed, "e": node.entries}


def _text(name: Any) -> str:
    return printable(name)
