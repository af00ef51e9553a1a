"""Images made in memory for tests of compare: members as values, layers as lists of them, and an
oracle of what differs.
"""

from __future__ import annotations

import hashlib
import io
import random
import tarfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import layouts
import oracles
from clients import Document

WORDS = {
    "type": "type",
    "target": "link target",
    "device": "device number",
    "mode": "mode",
    "owner": "owner",
    "mtime": "time",
    "xattrs": "xattr",
}


@dataclass(frozen=True)
class Member:
    """One member of an archive; `kind` is tarfile's type byte."""

    name: str
    kind: bytes = tarfile.REGTYPE
    content: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 1_700_000_000
    target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: dict[str, str] = field(default_factory=dict)

    def but(self, **changes: Any) -> Member:
        return replace(self, **changes)


def directory(name: str) -> Member:
    return Member(name, tarfile.DIRTYPE, mode=0o755)


def packed(members: list[Member], *, form: int = tarfile.PAX_FORMAT) -> bytes:
    """The archive of one layer."""
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.type, info.mode, info.uid, info.gid, info.mtime = (
                member.kind,
                member.mode,
                member.uid,
                member.gid,
                member.mtime,
            )
            info.linkname, (info.devmajor, info.devminor) = member.target, member.device
            info.size = len(member.content)
            info.pax_headers = {
                f"SCHILY.xattr.{name}": value for name, value in member.xattrs.items()
            }
            archive.addfile(info, io.BytesIO(member.content))
    return out.getvalue()


def image(path: Path, stack: list[list[Member]] | list[bytes], **more: Any) -> Path:
    """A layout with one image of these layers, the lowest first."""
    layout = layouts.Layout(path)
    archives = [one if isinstance(one, bytes) else packed(one) for one in stack]
    return layout.index(layouts.image(layout, archives, **more))


def model(stack: list[list[Member]]) -> oracles.Model:
    """What a client unpacks."""
    found: oracles.Model = {b".": oracles.Node(tarfile.DIRTYPE, 0o755, 0, 0, 0)}
    for layer in stack:
        oracles.apply_layer(io.BytesIO(packed(layer)), found)
    return found


def differences(old: oracles.Model, new: oracles.Model) -> dict[str, list[str]]:
    """By path: what became of it, and in what it differs, as the JSON document has it."""
    found: dict[str, list[str]] = {}
    for path in old.keys() | new.keys():
        name = path.decode("utf-8", "surrogateescape")
        left, right = old.get(path), new.get(path)
        if left is None or right is None:
            found[name] = ["removed" if right is None else "added"]
            continue
        words = _words(left, right)
        if words:
            found[name] = ["changed", *words]
    return found


def _words(left: oracles.Node, right: oracles.Node) -> list[str]:
    if left.type != right.type:
        return ["type"]
    values = {
        "content": ((left.size, left.sha256), (right.size, right.sha256)),
        "link target": (left.target, right.target),
        "device number": (left.device, right.device),
        "mode": (left.mode, right.mode) if left.type != tarfile.SYMTYPE else (0, 0),
        "owner": ((left.uid, left.gid), (right.uid, right.gid)),
        "time": (left.mtime, right.mtime),
        "xattr": (left.xattrs, right.xattrs),
    }
    return [word for word, (ours, theirs) in values.items() if ours != theirs]


def told(comparison: Document) -> dict[str, list[str]]:
    """The same from the document of one comparison."""
    return {
        entry["path"]: [entry["what"], *entry["differs"]]
        for entry in comparison["entries"]["listed"]
    }


# ---- random ones


def random_stack(rng: random.Random, layers: int) -> list[list[Member]]:
    """Layers with whiteouts, opaque directories, and names that change their type from one layer to
    the next.
    """
    return [_random_layer(rng) for _ in range(layers)]


def _random_layer(rng: random.Random) -> list[Member]:
    directories = [""]
    members: dict[str, Member] = {}
    for _ in range(rng.randrange(1, 12)):
        parent = rng.choice(directories)
        name = (parent + "/" if parent else "") + rng.choice("abcd")
        if name in members:
            continue
        member = _random_member(rng, name)
        hidden = f"{parent}/.wh.{name[-1]}".lstrip("/")
        # Clients differ about a name that stands beside its own whiteout.
        if member.kind == b"whiteout":
            members.setdefault(hidden, Member(hidden))
            continue
        if hidden in members:
            continue
        members[name] = member
        if member.kind == tarfile.DIRTYPE:
            directories.append(name)
            if rng.random() < 0.15:
                members[f"{name}/.wh..wh..opq"] = Member(f"{name}/.wh..wh..opq")
    # A whiteout that was drawn before the name of the same layer hides it for some clients: the
    # name is left out.
    return [
        one
        for one in members.values()
        if f"{(one.name.rpartition('/')[0] + '/').lstrip('/')}.wh.{one.name[-1]}" not in members
        or ".wh." in one.name
    ]


def _random_member(rng: random.Random, name: str) -> Member:
    kind = rng.choice(
        [tarfile.DIRTYPE] * 4
        + [tarfile.REGTYPE] * 4
        + [tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"whiteout"]
    )
    member = Member(
        name,
        kind,
        mode=rng.choice([0o755, 0o700]),
        uid=rng.choice([0, 0, 1]),
        mtime=rng.choice([1, 1, 2]),
    )
    if kind == tarfile.REGTYPE:
        return member.but(
            content=rng.choice([b"", b"x", b"y", b"long" * 300]),
            xattrs=rng.choice([{}, {}, {"user.a": "b"}]),
        )
    if kind == tarfile.SYMTYPE:
        return member.but(target=rng.choice(["nowhere", "elsewhere"]), mode=0o777)
    if kind == tarfile.CHRTYPE:
        return member.but(device=(1, rng.choice([3, 5])))
    return member


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
