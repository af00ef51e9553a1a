"""Plain-Python twins of what the native code does: slow, short, and built on the standard library's
own tarfile.

`write_expected_tar` is the layer that a directory must become (contract: layer-tar). `tree_model`
and `apply_layer` read a directory and a layer into the same in-memory model, and `compare` lists
where two models differ.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import IO, BinaryIO

CHECKSUM = "user.checksum.sha256"
BLOCK = tarfile.BLOCKSIZE
SECOND = 10**9


# What is read from the file system


def text(name: bytes) -> str:
    """NAME as tarfile wants it, whatever the locale of this process."""
    return name.decode("utf-8", "surrogateescape")


def is_excluded(name: str) -> bool:
    """Whether the extended attribute NAME is left out (contract: xattr-left-out)."""
    return name in (CHECKSUM, "security.selinux", "system.nfs4_acl") or name.startswith(
        ("trusted.overlay.", "user.overlay.")
    )


def xattrs_of(path: bytes) -> dict[str, bytes]:
    """Every extended attribute of PATH itself, sorted by the bytes of its name."""
    names = sorted(os.listxattr(path, follow_symlinks=False), key=os.fsencode)
    return {
        text(os.fsencode(name)): os.getxattr(path, name, follow_symlinks=False) for name in names
    }


def sha256_of(source: IO[bytes]) -> str:
    """The lower-case hexadecimal SHA-256 of what is left in SOURCE."""
    digest = hashlib.sha256()
    while block := source.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def file_sha256(path: bytes) -> str:
    with open(path, "rb") as source:
        return sha256_of(source)


def walk_order(root: str | bytes | Path) -> Iterator[tuple[bytes, bytes]]:
    """(emitted name, path) of everything in ROOT, in order, sockets included; no closing slashes
    (contract: layer-order).
    """
    waiting = [(b".", os.path.join(os.fsencode(root), b""))]
    while waiting:
        name, path = waiting.pop()
        yield name, path
        directories = []
        for entry in sorted(os.listdir(path)):
            below = os.path.join(path, entry)
            if stat.S_ISDIR(os.lstat(below).st_mode):
                directories.append((entry if name == b"." else name + b"/" + entry, below))
            else:
                yield name + b"/" + entry, below
        waiting += reversed(directories)


# The layer that a tree must become


class ExactTime(float):
    """A time in nanoseconds that tarfile takes for its float, without a float's loss."""

    nanoseconds: int

    def __new__(cls, nanoseconds: int) -> ExactTime:
        self = super().__new__(cls, nanoseconds / SECOND)
        self.nanoseconds = nanoseconds
        return self

    def __str__(self) -> str:
        seconds, fraction = divmod(abs(self.nanoseconds), SECOND)
        return f"{'-' if self.nanoseconds < 0 else ''}{seconds}.{fraction:09}".rstrip("0")

    def __round__(self, ndigits: int | None = None) -> int:  # type: ignore[override]
        seconds, fraction = divmod(self.nanoseconds, SECOND)
        return seconds + (2 * fraction > SECOND or (2 * fraction == SECOND and seconds % 2 == 1))


def tar_time(nanoseconds: int) -> int | float:
    return ExactTime(nanoseconds) if nanoseconds % SECOND else nanoseconds // SECOND


TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


def write_expected_tar(
    root: str | bytes | Path,
    out: BinaryIO,
    *,
    epoch: int | None = None,
    skip_xattrs: bool = False,
    trust_checksum_xattrs: bool = False,
    hardlinks: str = "preserve",
) -> None:
    """Write the layer of ROOT without a parent to OUT; the options are those of the configuration
    (contract: layer-tar, xattr-bytes, hardlink-first-name)."""
    first_names: dict[tuple[int, int], bytes] = {}
    for name, path in walk_order(root):
        status = os.lstat(path)
        if stat.S_ISSOCK(status.st_mode):
            continue
        member = tarfile.TarInfo(text(name))
        member.type = TYPES[stat.S_IFMT(status.st_mode)]
        member.mode = stat.S_IMODE(status.st_mode)
        member.uid, member.gid = status.st_uid, status.st_gid
        member.mtime = tar_time(status.st_mtime_ns) if epoch is None else epoch
        if member.ischr() or member.isblk():
            member.devmajor, member.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        if member.issym():
            member.linkname = text(os.readlink(path))
        if member.isreg() and hardlinks == "preserve":
            first = first_names.setdefault((status.st_dev, status.st_ino), name)
            if first != name:
                # a further name of a file that is already there: neither content nor attributes of
                # its own
                member.type, member.linkname = tarfile.LNKTYPE, text(first)
        xattrs = {} if skip_xattrs or member.islnk() else xattrs_of(path)
        records = {}
        if member.isreg():
            member.size = status.st_size
            known = text(xattrs.get(CHECKSUM, b""))
            trusted = trust_checksum_xattrs and re.fullmatch("[0-9a-f]{64}", known)
            records["freedesktopsdk.checksum.sha256"] = known if trusted else file_sha256(path)
        member.pax_headers = records | {
            f"SCHILY.xattr.{key}": text(value)
            for key, value in xattrs.items()
            if not is_excluded(key)
        }
        out.write(member.tobuf(tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"))
        if member.isreg():
            with open(path, "rb") as source:
                while block := source.read(1 << 20):
                    out.write(block)
            out.write(bytes(-status.st_size % BLOCK))
    out.write(bytes(2 * BLOCK))


def expected_tar(
    root: str | bytes | Path,
    *,
    epoch: int | None = None,
    skip_xattrs: bool = False,
    trust_checksum_xattrs: bool = False,
    hardlinks: str = "preserve",
) -> bytes:
    """The same as bytes, for trees that fit."""
    out = io.BytesIO()
    write_expected_tar(
        root,
        out,
        epoch=epoch,
        skip_xattrs=skip_xattrs,
        trust_checksum_xattrs=trust_checksum_xattrs,
        hardlinks=hardlinks,
    )
    return out.getvalue()


# One model for a directory on disk and for a stack of layers


@dataclass(eq=False)
class Node:
    """One inode. Names that are hard links of each other share the same Node."""

    type: bytes  # tarfile's type byte
    mode: int
    uid: int
    gid: int
    mtime: int  # nanoseconds
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    size: int = 0
    sha256: str = ""
    xattrs: dict[str, bytes] = field(default_factory=dict)


FIELDS = ("type", "mode", "uid", "gid", "mtime", "target", "device", "size", "sha256", "xattrs")

# path without a leading "./" or closing slash -> its inode; the root is b"."
Model = dict[bytes, Node]


def normalised(name: str) -> bytes:
    """The model's key for a tar member's or hard link target's name: `./a`, `/a`, `a/` are all
    `a`.
    """
    parts = [
        part
        for part in name.encode("utf-8", "surrogateescape").split(b"/")
        if part not in (b"", b".")
    ]
    if b".." in parts:
        raise ValueError(f"{name!r} leaves the layer")
    return b"/".join(parts) or b"."


def tree_model(root: str | bytes | Path) -> Model:
    """The model of the directory ROOT; sockets and the attributes that no layer carries are left
    out.
    """
    model: Model = {}
    inodes: dict[tuple[int, int], Node] = {}
    for name, path in walk_order(root):
        status = os.lstat(path)
        if stat.S_ISSOCK(status.st_mode):
            continue
        kind = TYPES[stat.S_IFMT(status.st_mode)]
        node = Node(
            kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns
        )
        if kind == tarfile.REGTYPE:
            shared = inodes.setdefault((status.st_dev, status.st_ino), node)
            if shared is not node:
                model[normalised(text(name))] = shared
                continue
            node.size, node.sha256 = status.st_size, file_sha256(path)
        elif kind == tarfile.SYMTYPE:
            node.target = os.readlink(path)
        elif kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
            node.device = (os.major(status.st_rdev), os.minor(status.st_rdev))
        node.xattrs = {key: value for key, value in xattrs_of(path).items() if not is_excluded(key)}
        model[normalised(text(name))] = node
    return model


def member_time(member: tarfile.TarInfo) -> int:
    """The modification time of a tar member in nanoseconds, from the pax record itself, since
    tarfile's float rounds it.
    """
    return int(Decimal(member.pax_headers.get("mtime", member.mtime)) * SECOND)


def remove(model: Model, path: bytes, *, itself: bool = True) -> None:
    """Take PATH and everything below it out of MODEL; without `itself` only what is below."""
    prefix = b"" if path == b"." else path + b"/"
    for key in [key for key in model if key != b"." and key.startswith(prefix)]:
        del model[key]
    if itself:
        model.pop(path, None)


def apply_layer(stream: IO[bytes], target: Model) -> Model:
    """Apply the uncompressed layer STREAM onto TARGET, in place, as the image-spec's "Applying
    Changesets" has it, and return it.

    Whiteouts touch only what was in TARGET before, the opaque ones first, wherever in the layer
    they stand. A missing parent directory and a hard link to nowhere raise KeyError.
    """
    opaque: list[bytes] = []
    whiteouts: list[bytes] = []
    members: list[tuple[bytes, Node | bytes]] = []
    with tarfile.open(
        fileobj=stream, mode="r|", encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for member in archive:
            path = normalised(member.name)
            directory, _, base = path.rpartition(b"/")
            if base == b".wh..wh..opq":
                opaque.append(directory or b".")
            elif base.startswith(b".wh."):
                whiteouts.append((directory + b"/" if directory else b"") + base[4:])
            elif member.islnk():
                members.append((path, normalised(member.linkname)))
            else:
                members.append((path, member_node(archive, member)))
    for path in opaque:
        remove(target, path, itself=False)
    for path in whiteouts:
        remove(target, path)
    for path, node in members:
        if path != b"." and target[path.rpartition(b"/")[0] or b"."].type != tarfile.DIRTYPE:
            raise KeyError(f"{path!r} lies below something that is no directory")
        new = target[node] if isinstance(node, bytes) else node
        old = target.get(path, new)
        if old.type == tarfile.DIRTYPE != new.type:
            remove(target, path)
        target[path] = new
    return target


def member_node(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Node:
    """The Node of a tar member that is no hard link."""
    prefix = "SCHILY.xattr."
    xattrs = {
        key[len(prefix) :]: value
        for key, value in member.pax_headers.items()
        if key.startswith(prefix)
    }
    kind = tarfile.REGTYPE if member.isreg() else member.type
    node = Node(kind, member.mode, member.uid, member.gid, member_time(member))
    node.xattrs = {
        key: value.encode("utf-8", "surrogateescape")
        for key, value in xattrs.items()
        if not is_excluded(key)
    }
    if member.isreg():
        content = archive.extractfile(member)
        assert content is not None
        node.size, node.sha256 = member.size, sha256_of(content)
    elif member.issym():
        node.target = member.linkname.encode("utf-8", "surrogateescape")
    elif member.ischr() or member.isblk():
        node.device = (member.devmajor, member.devminor)
    return node


def links_of(model: Model) -> dict[bytes, list[bytes]]:
    """For each path the sorted names of its inode."""
    names: dict[int, list[bytes]] = {}
    for path in sorted(model):
        names.setdefault(id(model[path]), []).append(path)
    return {path: names[id(node)] for path, node in model.items()}


def compare(left: Model, right: Model, *, ignore: Iterable[str] = ()) -> list[str]:
    """One readable line for every difference between two models; empty when they are equal.

    `ignore` names fields of Node, or "links", that are not compared.
    """
    differences = [f"{path!r}: only on the left" for path in sorted(left.keys() - right.keys())]
    differences += [f"{path!r}: only on the right" for path in sorted(right.keys() - left.keys())]
    left_links, right_links = links_of(left), links_of(right)
    for path in sorted(left.keys() & right.keys()):
        pairs = [
            (name, getattr(left[path], name), getattr(right[path], name))
            for name in FIELDS
            if name not in ignore
        ]
        if "links" not in ignore:
            pairs.append(("links", left_links[path], right_links[path]))
        differences += [
            f"{path!r}: {name}: {ours!r} != {theirs!r}"
            for name, ours, theirs in pairs
            if ours != theirs
        ]
    return differences
