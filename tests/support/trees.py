"""Odd directory trees: generated from a seed or by hypothesis, and put on disk as far as this
machine allows.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import stat
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

from hypothesis import strategies

MIB = 1 << 20
SECOND = 10**9


# What this machine can do


@dataclass(frozen=True)
class Abilities:
    """What a test may put on disk here."""

    root: bool
    devices: bool
    xattrs: frozenset[str]  # of PROBES
    late_mtime: bool  # times that ustar's eleven octal digits cannot hold


def acl(uid: int) -> bytes:
    """A POSIX access list as the kernel stores it, with an entry for the user UID."""
    nobody = 0xFFFFFFFF
    entries = [
        (0x01, 6, nobody),
        (0x02, 7, uid),
        (0x04, 4, nobody),
        (0x10, 7, nobody),
        (0x20, 4, nobody),
    ]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def capability(permitted: int) -> bytes:
    """A version 2 file capability set, effective bit on."""
    return struct.pack("<IIIII", 0x02000001, permitted & 0xFFFFFFFF, 0, permitted >> 32, 0)


PROBES = {
    "user": ("user.probe", b"1"),
    "trusted": ("trusted.probe", b"1"),
    "security": ("security.probe", b"1"),
    # A container's root may set these, and no others of security.
    "capability": ("security.capability", capability(0xFF)),
    "acl": ("system.posix_acl_access", acl(1)),
}


def succeeds(action: Callable[[], object]) -> bool:
    try:
        action()
    except OSError:
        return False
    return True


@cache
def abilities() -> Abilities:
    """Tried out once, in the directory where temporary files go."""
    with tempfile.TemporaryDirectory() as directory:
        probe = os.path.join(directory, "probe")
        Path(probe).touch()
        os.utime(probe, ns=(0, (8**11 + 5) * SECOND))
        return Abilities(
            root=succeeds(lambda: os.chown(probe, 1, 2)),
            devices=succeeds(
                lambda: os.mknod(probe + "-device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
            ),
            xattrs=frozenset(
                kind
                for kind, (name, value) in PROBES.items()
                if succeeds(partial(os.setxattr, probe, name, value))
            ),
            late_mtime=os.stat(probe).st_mtime_ns == (8**11 + 5) * SECOND,
        )


# A tree as a list of what to make


@dataclass
class Item:
    """One name of a tree; `path` is relative to the root, and its directory stands earlier in the
    list.
    """

    path: bytes
    type: int  # S_IFREG, ..., or 0 for a hard link to `target`, a path in the tree
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 1_700_000_000 * SECOND
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    size: int = 0
    content_seed: int = 0
    xattrs: dict[str, bytes] = field(default_factory=dict)

    def content(self) -> bytes:
        """Half noise, half something that compresses."""
        noise = random.Random(self.content_seed).randbytes(self.size // 2)
        return noise + bytes([self.content_seed % 256]) * (self.size - len(noise))


def materialise(items: list[Item], root: str | Path) -> None:
    """Put ITEMS into the directory ROOT, which exists. Owners are left alone without the right to
    change them.
    """
    base = os.fsencode(root)
    can = abilities()
    for item in items:
        path = os.path.join(base, item.path)
        if item.type == 0:
            os.link(os.path.join(base, item.target), path, follow_symlinks=False)
        elif item.type == stat.S_IFDIR:
            if item.path != b".":
                os.mkdir(path)
        elif item.type == stat.S_IFLNK:
            os.symlink(item.target, path)
        elif item.type == stat.S_IFREG:
            Path(os.fsdecode(path)).write_bytes(item.content())
        else:
            os.mknod(path, item.type | 0o600, os.makedev(*item.device))
        if item.type != 0:
            if can.root:
                os.chown(path, item.uid, item.gid, follow_symlinks=False)
            # a symlink's mode cannot be set; chown clears setuid bits and capabilities, so both
            # come after it
            if item.type != stat.S_IFLNK:
                os.chmod(path, item.mode)
            for name, value in item.xattrs.items():
                os.setxattr(path, name, value, follow_symlinks=False)
    for item in reversed(items):
        if item.type != 0:
            # a file system clamps the times it cannot hold, and some refuse them: the tree then
            # just has another time
            with contextlib.suppress(OSError):
                os.utime(os.path.join(base, item.path), ns=(0, item.mtime), follow_symlinks=False)


# Random trees

NAMES = [
    b"a", b"a-b", b"a.b", b"a0", b"A", b"aa", b"z", b" ", b"a b", b" lead", b"-rf", b"--", b"...",
    b"..a", b".hidden",
    b"a\nb", b"a\tb", b"a=b", b"12 path=x", b"back\\slash", b"*", b"'\"", b"\x01\x7f",
    "größe".encode(), "日本語".encode(), "😀".encode(), "e\u0301".encode(), "\u00e9".encode(),
    b"caf\xe9", b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\xaf", b"ok\xe6\x97",
    b"n" * 98, b"n" * 99, b"n" * 100, b"n" * 101, b"n" * 155, b"n" * 156, b"n" * 255,
    "ü".encode() * 50, "ü".encode() * 127, b"\xff" * 101,
]  # fmt: skip
WHITEOUT_NAMES = [b".wh.x", b".wh.", b".wh..wh.plnk"]
SIZES = [0, 0, 1, 10, 511, 512, 513, 1023, 1024, 1025, 4096, 5000, 20000]
LARGE_SIZES = [MIB - 1, MIB, MIB + 1, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1]
FILE_MODES = [0o644, 0o755, 0o600, 0o4755, 0o2755, 0o6711, 0o1644, 0o7777]
DIRECTORY_MODES = [0o755, 0o700, 0o1777, 0o2775, 0o7755]
# the last four of the fractions try the rounding into ustar's field: to even, and up beyond what it
# can hold
SECONDS = [
    0,
    1,
    -1,
    1_700_000_000,
    1_700_000_001,
    1_700_000_000,
    -(2**31),
    2**31,
    2**32,
    8**11 - 1,
    8**11,
]
FRACTIONS = [
    0,
    0,
    1,
    100_000_000,
    123_456_789,
    250_000_000,
    499_999_999,
    500_000_000,
    500_000_001,
    999_999_999,
]
IDS = [0, 0, 0, 1000, 65534, 2097151, 2097152, 2**32 - 2]
TARGETS = [
    b"a", b"../a", b"/usr/lib", b".", b"dangling/\xff\xfe", "größe".encode(), b"t" * 99, b"t" * 100,
    b"t" * 101, b"t/" * 130,
    b"new\nline", b"with space", b"/" + b"u" * 200 + b"\xe9",
]  # fmt: skip
VALUES = [
    b"",
    b"text",
    b"\x00",
    b"\x00\xff\x80",
    "größe".encode(),
    b"a=b\n12 c=d\n",
    b"v" * 300,
    bytes(range(256)),
]
CAPABILITIES = [capability(0xFF), capability(1 << 39 | 0x80C3), capability(2**41 - 1)]
DIGEST = hashlib.sha256(b"not what the file holds").hexdigest().encode()
CHECKSUMS = [
    DIGEST,
    DIGEST,
    DIGEST.upper(),
    DIGEST[:-1],
    DIGEST + b"0",
    DIGEST + b"\n",
    b"g" * 64,
    b"",
    b"\xff" * 64,
]
XATTRS: dict[str, list[tuple[str, list[bytes]]]] = {
    "user": [
        ("user.a", VALUES),
        ("user.Z", VALUES),
        ("user.a.b", VALUES),
        ("user.größe", VALUES),
        ("user.checksum.sha256", CHECKSUMS),
        ("user.checksum.sha512", VALUES),
        ("user.overlay.opaque", [b"y"]),
        ("user.overlayed", VALUES),
    ],
    "trusted": [
        ("trusted.a", VALUES),
        ("trusted.overlay.opaque", [b"y"]),
        ("trusted.overlay", VALUES),
    ],
    "capability": [("security.capability", CAPABILITIES)],
    "security": [("security.other", VALUES)],
    "acl": [("system.posix_acl_access", [acl(7), acl(0xFFFE)])],
}
SPECIAL = [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK]
DEVICES = [(1, 3), (0, 0), (4095, 1048575), (8, 256)]


def random_xattrs(rng: random.Random, kind: int) -> dict[str, bytes]:
    """Attributes that the kernel allows on something of the type KIND."""
    can = abilities()
    allowed = can.xattrs & {"trusted"}
    if kind in (stat.S_IFREG, stat.S_IFDIR):
        allowed = can.xattrs
    if rng.random() < 0.6:
        return {}
    names = [pair for space in sorted(allowed) for pair in XATTRS[space]]
    return {
        name: rng.choice(values)
        for name, values in rng.sample(names, min(len(names), rng.randint(1, 4)))
    }


def random_item(rng: random.Random, path: bytes, kind: int, *, large: bool) -> Item:
    """Something of the type KIND with random metadata."""
    modes = DIRECTORY_MODES if kind == stat.S_IFDIR else FILE_MODES
    item = Item(path, kind, mode=rng.choice(modes), uid=rng.choice(IDS), gid=rng.choice(IDS))
    item.mtime = rng.choice(SECONDS) * SECOND + rng.choice(FRACTIONS)
    item.xattrs = random_xattrs(rng, kind)
    if kind == stat.S_IFREG:
        item.size, item.content_seed = (
            rng.choice(LARGE_SIZES if large else SIZES),
            rng.randrange(1 << 16),
        )
    elif kind == stat.S_IFLNK:
        item.target = rng.choice(TARGETS)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        item.device = rng.choice(DEVICES)
    return item


def random_tree(
    rng: random.Random, count: int, *, large: int = 0, whiteout_names: bool = False
) -> list[Item]:
    """About COUNT names, the first LARGE files of them around 1 and 4 MiB. The same RNG gives the
    same tree on the same kind of machine.

    `whiteout_names` allows files that are called like whiteouts.
    """
    can = abilities()
    kinds = (
        [stat.S_IFREG] * 8
        + [stat.S_IFDIR] * 5
        + [stat.S_IFLNK] * 3
        + [0] * 3
        + (SPECIAL if can.devices else SPECIAL[:2])
    )
    names = NAMES + (WHITEOUT_NAMES if whiteout_names else [])
    items = [random_item(rng, b".", stat.S_IFDIR, large=False)]
    directories, taken = [b""], {b"."}
    files: list[bytes] = []
    for _ in range(count):
        name = rng.choice(names)
        if rng.random() < 0.3:
            name = b"%s%d" % (name[:200], rng.randrange(1000))
        path = rng.choice(directories) + name
        kind = rng.choice(kinds)
        if path in taken or (kind == 0 and not files):
            continue
        taken.add(path)
        if kind == 0:
            items.append(Item(path, 0, target=rng.choice(files)))
            continue
        items.append(random_item(rng, path, kind, large=len(files) < large))
        if kind == stat.S_IFREG:
            files.append(path)
        # well below PATH_MAX, which counts the directory of the test too
        elif kind == stat.S_IFDIR and len(path) < 1500:
            directories.append(path + b"/")
    return items


def trees(
    max_count: int = 25, *, whiteout_names: bool = True
) -> strategies.SearchStrategy[list[Item]]:
    """Hypothesis' own choice of random_tree, so that what fails shrinks."""
    return strategies.builds(
        lambda rng, count: random_tree(rng, count, whiteout_names=whiteout_names),
        strategies.randoms(use_true_random=False),
        strategies.integers(0, max_count),
    )
