"""Parents that clients read in different ways: with the new layer applied, every client has the
tree (contract: diff-in-doubt).
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from pathlib import Path

import clients
import oracles
import pytest
from archives import END, header, padded, pax
from parents import EPOCH, built, hand_made, image_of, top_layer
from test_clients import as_buildah_mounts, as_umoci_unpacks, assert_same_tree, changed

from build_oci.errors import ParentError

ROOT = header(b"./", b"5", mode=0o755, mtime=EPOCH)
GOOD, EVIL = b"good", b"evil"


def folder(name: bytes) -> bytes:
    return header(name, b"5", mode=0o755, mtime=EPOCH)


def file(name: bytes, content: bytes = GOOD) -> bytes:
    return header(name, size=len(content), mtime=EPOCH) + padded(content)


def link(name: bytes, target: bytes) -> bytes:
    return header(name, b"2", link=target, mode=0o777, mtime=EPOCH)


LOWER = (
    ROOT
    + link(b"lib", b"usr/lib")
    + folder(b"usr")
    + folder(b"usr/lib")
    + file(b"usr/lib/foo")
    + file(b"usr/lib/gone")
)


def make_tree(root: Path, names: dict[str, bytes | str | None]) -> Path:
    """A directory of files (bytes), symbolic links (str) and directories (None), all with the time
    EPOCH.
    """
    root.mkdir()
    for name, value in names.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, bytes):
            path.write_bytes(value)
            path.chmod(0o644)
        elif isinstance(value, str):
            path.symlink_to(value)
        else:
            path.mkdir(exist_ok=True)
    for at, folders, files in os.walk(root, topdown=False):
        for name in folders + files:
            os.utime(Path(at, name), ns=(0, EPOCH * 10**9), follow_symlinks=False)
            if not (Path(at) / name).is_symlink() and (Path(at) / name).is_dir():
                (Path(at) / name).chmod(0o755)
    root.chmod(0o755)
    os.utime(root, (0, EPOCH))
    return root


MERGED: dict[str, bytes | str | None] = {"lib": "usr/lib", "usr/lib/foo": GOOD}
# name: the layers, the tree, and what the new layer must hold at least
CASES: dict[str, tuple[list[bytes], dict[str, bytes | str | None], set[str]]] = {
    "through a link": (
        [LOWER, file(b"lib/foo", EVIL) + file(b"lib/new")],
        {**MERGED, "usr/lib/gone": GOOD},
        {"./lib", "usr/lib/foo", "usr/lib/.wh.new"},
    ),
    "through a link, and the tree has a directory": (
        [LOWER, file(b"lib/foo", EVIL)],
        {"lib/foo": EVIL, "usr/lib/foo": GOOD, "usr/lib/gone": GOOD},
        {"lib", "lib/foo", "usr/lib/foo"},
    ),
    "through links of links": (
        [LOWER + link(b"a", b"/b/."), link(b"b", b"usr/../lib"), file(b"a/foo", EVIL)],
        {"a": "/b/.", "b": "usr/../lib", **MERGED, "usr/lib/gone": GOOD},
        {"usr/lib/foo"},
    ),
    "a directory through a link": (
        [
            LOWER + folder(b"usr/lib/d") + file(b"usr/lib/d/f"),
            folder(b"lib/d") + file(b"lib/d/f", EVIL) + file(b"lib/d/g"),
        ],
        {**MERGED, "usr/lib/gone": GOOD, "usr/lib/d/f": GOOD},
        {"usr/lib/d", "usr/lib/d/f", "usr/lib/d/.wh.g"},
    ),
    "a whiteout through a link": (
        [LOWER, file(b"lib/.wh.foo", b"")],
        {**MERGED, "usr/lib/gone": GOOD},
        {"./lib", "usr/lib/foo"},
    ),
    "an opaque whiteout through a link": (
        [LOWER, file(b"lib/.wh..wh..opq", b"")],
        {**MERGED, "usr/lib/gone": GOOD},
        {"./lib", "usr/lib/foo"},
    ),
    "a whiteout through a file": (
        [ROOT + file(b"a") + file(b"b"), file(b"a/.wh.x", b"")],
        {"a": GOOD, "b": GOOD},
        {"./a"},
    ),
    "a whiteout behind its file": (
        [ROOT + folder(b"d") + file(b"d/e") + file(b"d/f") + file(b"d/.wh.f", b"")],
        {"d/e": GOOD, "d/f": GOOD},
        {"d/f"},
    ),
    "a whiteout behind what is in it": (
        [ROOT + folder(b"p"), file(b"p/d/f") + file(b"p/.wh.d", b"")],
        {"p/d/f": GOOD},
        {"p/d", "p/d/f"},
    ),
    "a directory without an entry": (
        [LOWER, file(b"usr/lib/bar")],
        {**MERGED, "usr/lib/gone": GOOD, "usr/lib/bar": GOOD},
        {"usr", "usr/lib"},
    ),
    "a whiteout in a directory without an entry": (
        [LOWER, file(b"usr/lib/.wh.gone", b"")],
        MERGED,
        {"usr", "usr/lib"},
    ),
    "libarchive's attributes alone": (
        [ROOT + pax((b"LIBARCHIVE.xattr.user.a", b"dg")) + file(b"f")],
        {"f": GOOD},
        {"./f"},
    ),
    "a link that claims other metadata": (
        [ROOT + file(b"f") + header(b"g", b"1", link=b"f", mode=0o4755, uid=7, mtime=EPOCH + 5)],
        {"f": GOOD, "g": "f"},
        {"./f", "./g"},
    ),
    "a name twice": ([ROOT + file(b"f", EVIL) + file(b"f")], {"f": GOOD}, {"./f"}),
    "an overlay's opaque directory": (
        [LOWER, pax((b"SCHILY.xattr.trusted.overlay.opaque", b"y")) + folder(b"usr/lib")],
        {**MERGED, "usr/lib/gone": GOOD},
        {"usr/lib", "usr/lib/foo"},
    ),
}


# What containers/storage says of a parent that it cannot apply, whatever stands on top of it.
REFUSED = {
    ("vfs", "a whiteout through a file"): "not a directory",
    # It makes a device where the same layer has put a file or a directory.
    ("overlay", "a whiteout behind its file"): "file exists",
    ("overlay", "a whiteout behind what is in it"): "file exists",
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path, set[str]]:
    """A layout on top of the parent, the tree, and the names that the new layer must hold."""
    layers, names, needed = CASES[request.param]
    tree = make_tree(tmp_path / "tree", names)
    if request.param == "a link that claims other metadata":
        (tree / "g").unlink()
        os.link(tree / "f", tree / "g")
        os.utime(tree, (0, EPOCH))
    if request.param == "libarchive's attributes alone":
        try:
            os.setxattr(tree / "f", "user.a", b"v")
        except OSError:
            pytest.skip("no user.* extended attributes here")
    parent = hand_made(tmp_path / "parent", *(layer + END for layer in layers))
    return built(tmp_path / "layout", image_of(tree, parent), compression="gzip"), tree, needed


def test_layer_holds_what_is_in_doubt(case: tuple[Path, Path, set[str]]) -> None:
    """contract: diff-in-doubt. Such a member "never counts as equal: the new layer holds the tree's
    entry".
    """
    layout, _, needed = case
    assert needed <= set(top_layer(layout))


@pytest.mark.clients
def test_umoci_has_the_tree(case: tuple[Path, Path, set[str]], tmp_path: Path) -> None:
    layout, tree, _ = case
    if os.geteuid() != 0:
        pytest.skip("needs root")
    unpacked = clients.umoci_unpack(layout, tmp_path / "bundle")
    assert_same_tree(unpacked, changed(oracles.tree_model(tree), as_umoci_unpacks))


@pytest.mark.clients
@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_buildah_has_the_tree(
    case: tuple[Path, Path, set[str]], driver: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    layout, tree, _ = case
    if "a name twice" in request.node.name:
        pytest.skip("containers/storage refuses an archive that has a name twice")
    if says := REFUSED.get((driver, request.node.callspec.params["case"])):
        clients.need_root()
        if driver == "overlay":
            clients.need_overlay(tmp_path)
        with (
            pytest.raises(AssertionError, match=says),
            clients.buildah_mount(tmp_path / "parent", tmp_path, driver=driver),
        ):
            pass
        return
    with clients.buildah_mount(layout, tmp_path, driver=driver) as unpacked:
        expected = changed(oracles.tree_model(tree), as_buildah_mounts)
        if driver == "overlay":  # the root is its own
            expected[b"."] = oracles.tree_model(unpacked)[b"."]
        assert_same_tree(unpacked, expected, root_time=False)


def test_honest_parent_is_unchanged(tmp_path: Path) -> None:
    """No doubt without a reason: nothing of an ordinary parent is written anew."""
    layers = [
        LOWER,
        ROOT
        + folder(b"usr")
        + folder(b"usr/lib")
        + file(b"usr/lib/bar")
        + file(b"usr/lib/.wh.gone", b""),
    ]
    parent = hand_made(tmp_path / "parent", *(layer + END for layer in layers))
    tree = make_tree(tmp_path / "tree", {**MERGED, "usr/lib/bar": GOOD})
    assert top_layer(built(tmp_path / "layout", image_of(tree, parent))) == ["."]


def test_trust(tmp_path: Path) -> None:
    """contract: diff-content-digest.
    A lying record is an error that names the member; `parent.trust` believes it, and without a
    layer nobody looks."""
    tree = make_tree(tmp_path / "tree", {"f": GOOD})
    lying = (
        ROOT
        + pax((b"freedesktopsdk.checksum.sha256", hashlib.sha256(GOOD).hexdigest().encode()))
        + file(b"f", EVIL)
        + END
    )
    parent = hand_made(tmp_path / "parent", lying)
    with pytest.raises(ParentError, match="'f': a lying record"):
        built(tmp_path / "refused", image_of(tree, parent))
    assert top_layer(built(tmp_path / "trusted", image_of(tree, parent, trust=True))) == ["."]
    built(tmp_path / "carried", image_of(None, parent))


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ([ROOT + file(b"d/.wh.", b"")], "a whiteout of nothing that has a name"),
        ([ROOT + file(b"d/.wh...", b"")], "a whiteout of nothing that has a name"),
        ([ROOT + folder(b"d") + link(b"d", b"x")], "twice, once as a directory"),
        (
            [
                ROOT + link(b"lib", b"u"),
                folder(b"u"),
                link(b"u/x", b"a") + link(b"lib/x", b"b") + file(b"u/x/f"),
            ],
            "where another link may be",
        ),
        (
            [
                ROOT
                + b"".join(link(b"l%d" % n, b"l%d/l%d" % (n + 1, n + 1)) for n in range(30))
                + folder(b"l30"),
                file(b"l0/f"),
            ],
            "symbolic links of the layers below",
        ),
    ],
)
def test_refused(tmp_path: Path, layers: list[bytes], says: str) -> None:
    """What no client reads as we do, or what leads to no end of places, is refused in one error."""
    parent = hand_made(tmp_path / "parent", *(layer + END for layer in layers))
    with pytest.raises(ParentError, match=says):
        built(tmp_path / "layout", image_of(make_tree(tmp_path / "tree", {}), parent))


def by_tarfile(path: Path, tree: Path) -> bytes:
    """The tree as Python's tarfile archives it, with the times that os.stat() has: doubles."""

    def owned(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uname = member.gname = ""
        if member.issym():
            member.mode = 0o644
        return member

    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(tree, ".", filter=owned)
    return path.read_bytes()


TIMES = [
    1_700_000_000_123_456_789,
    1_712_345_678_999_999_999,
    1_699_999_999_000_000_001,
    1_720_000_000_500_000_000,
]


def test_float_times(tmp_path: Path) -> None:
    """contract: diff-precision. "Times are compared to the precision that the parent's writer had",
    "modes of symlinks not at all".
    """
    tree = make_tree(tmp_path / "tree", {"a": GOOD, "b": GOOD, "c": "a", "d": None})
    for name, time in zip(("a", "b", "c", "d"), TIMES, strict=True):
        os.utime(tree / name, ns=(0, time), follow_symlinks=False)
    parent = hand_made(tmp_path / "parent", by_tarfile(tmp_path / "tar", tree))
    assert top_layer(built(tmp_path / "same", image_of(tree, parent))) == ["."]
    os.utime(tree / "a", ns=(0, TIMES[0] + 1000))
    assert top_layer(built(tmp_path / "other", image_of(tree, parent))) == [".", "./a"]
