"""Building again with what an earlier build made: which layers are its, and what the image holds
(contract: previous-blobs)."""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clients
import pytest
import trees
from previous_images import EPOCH, assert_holds, built, config_of, layers_of, root, trust

from build_oci.errors import ParentError

__all__ = ["root", "trust"]


# Nothing changed


@pytest.mark.parametrize("compression", ["disabled", "zstd", "gzip"])
@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("epoch", [EPOCH, None])
def test_an_unchanged_tree_is_carried(
    root: Path,
    tmp_path: Path,
    trust: dict[str, Any],
    compression: str,
    split: bool,
    epoch: int | None,
) -> None:
    """contract: previous-same.
    "A layer whose entries all equal a layer of `previous` is that layer", for layers of a split and
    single ones."""
    first, second, third = tmp_path / "1", tmp_path / "2", tmp_path / "3"
    built(
        config_of(root, {"image": first, "optional": True}, split=split, compression=compression),
        first,
        epoch=epoch,
    )
    image = built(
        config_of(root, {"image": first, **trust}, split=split, compression=compression),
        second,
        epoch=epoch,
    )
    assert all(layer.reused for layer in image.layers)
    assert len(image.layers) == (7 if epoch is None else 6 if split else 1) or not split
    assert layers_of(second) == layers_of(first)
    for digest in layers_of(first):
        name = "blobs/" + digest.replace(":", "/")
        assert (first / name).stat().st_ino == (second / name).stat().st_ino, (
            "carried as a hard link"
        )
    # From the second on nothing at all differs; and the layout that is written may be the previous
    # one itself.
    built(
        config_of(root, {"image": second, **trust}, split=split, compression=compression),
        third,
        epoch=epoch,
    )
    if epoch is not None:
        assert (third / "index.json").read_bytes() == (second / "index.json").read_bytes()
    again = built(
        config_of(root, {"image": third, **trust}, split=split, compression=compression),
        third,
        epoch=epoch,
    )
    assert all(layer.reused for layer in again.layers)
    assert_holds(third, root, epoch)
    assert sorted(path.name for path in third.iterdir()) == ["blobs", "index.json", "oci-layout"]


def test_only_where_it_is_used_does_the_image_tell_recipes(root: Path, tmp_path: Path) -> None:
    """contract: layout-documents. An image that uses the original's keys alone has the documents
    that the original writes.
    """
    built(config_of(root, split=False), tmp_path / "1")
    assert "annotations" not in clients.manifest_of(tmp_path / "1")["layers"][0]
    built(
        config_of(root, {"image": tmp_path / "none", "optional": True}, split=False), tmp_path / "2"
    )
    (layer,) = clients.manifest_of(tmp_path / "2")["layers"]
    assert list(layer["annotations"]) == ["io.build-oci.recipe", "io.build-oci.headers"]
    assert layers_of(tmp_path / "1") == layers_of(tmp_path / "2")
    built(config_of(root), tmp_path / "3")
    assert all(
        "io.build-oci.recipe" in layer["annotations"]
        for layer in clients.manifest_of(tmp_path / "3")["layers"]
    )


@pytest.mark.platform
@pytest.mark.parametrize("compression", ["disabled", "zstd", "gzip"])
@pytest.mark.parametrize("split", [True, False])
def test_what_is_told_is_held_against_the_tree(
    root: Path,
    tmp_path: Path,
    compression: str,
    split: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """contract: previous-blobs. A layer that is what the image tells is not read as a stranger's:
    its bytes are compared with those that packing would give.
    """

    def unwanted(**options: Any) -> None:
        raise AssertionError

    first = tmp_path / "first"
    built(
        config_of(root, {"image": first, "optional": True}, split=split, compression=compression),
        first,
    )
    monkeypatch.setattr("build_oci.previous.image.TarReader", unwanted)
    image = built(
        config_of(root, {"image": first}, split=split, compression=compression),
        tmp_path / "second",
    )
    assert all(layer.reused for layer in image.layers)


def test_large_windows_are_read_one_at_a_time(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that reads two layers would wait for the second's window for ever, where there is
    room for one.
    """
    first = tmp_path / "first"
    built(config_of(root, compression="zstd"), first)
    monkeypatch.setattr("build_oci.codec.zstd.SMALL_WINDOW", 1 << 10)
    monkeypatch.setattr("build_oci.work.crew.LARGE_WINDOWS", 8 << 20)
    image = built(config_of(root, {"image": first}, compression="zstd"), tmp_path / "second")
    assert all(layer.reused for layer in image.layers)


def test_an_image_without_recipes_is_read(
    root: Path, tmp_path: Path, trust: dict[str, Any]
) -> None:
    """One of an earlier release, of the original's keys, or whose annotations a registry
    dropped.
    """
    for compression in ("disabled", "zstd"):
        first = tmp_path / f"first-{compression}"
        built(config_of(root, split=False, compression=compression), first)
        image = built(
            config_of(root, {"image": first, **trust}, split=False, compression=compression),
            tmp_path / f"then-{compression}",
        )
        assert [layer.reused for layer in image.layers] == [True]
        other = built(
            config_of(root / "b", {"image": first, **trust}, split=False, compression=compression),
            tmp_path / "other",
        )
        assert [layer.reused for layer in other.layers] == [False]


@pytest.mark.platform
@pytest.mark.parametrize("before", ["disabled", "zstd", "gzip", "zstd:chunked"])
@pytest.mark.parametrize("after", ["disabled", "zstd", "gzip", "zstd:chunked"])
@pytest.mark.parametrize("recipes", [True, False])
def test_another_codec(
    root: Path, tmp_path: Path, trust: dict[str, Any], before: str, after: str, recipes: bool
) -> None:
    """A layer in another codec is recompressed; the bytes are those that packing gives."""
    previous = {"image": tmp_path / "none", "optional": True} if recipes else None
    built(config_of(root, previous, split=False, compression=before), tmp_path / "first")
    image = built(
        config_of(root, {"image": tmp_path / "first", **trust}, split=False, compression=after),
        tmp_path / "second",
    )
    assert [layer.reused for layer in image.layers] == [True]
    built(config_of(root, split=False, compression=after), tmp_path / "fresh")
    assert layers_of(tmp_path / "second") == layers_of(tmp_path / "fresh")
    assert_holds(tmp_path / "second", root, EPOCH)


def test_upon_a_parent(root: Path, tmp_path: Path, trust: dict[str, Any]) -> None:
    before = tmp_path / "before"
    shutil.copytree(root, before, symlinks=True)
    (before / "gone").write_text("gone")
    (before / "c" / "file0").write_text("other")
    parent = tmp_path / "parent"
    built(config_of(before, split=False), parent)
    for split in (True, False):
        first, second = tmp_path / f"first-{split}", tmp_path / f"second-{split}"
        built(
            config_of(root, {"image": first, "optional": True}, split=split, parent=parent), first
        )
        image = built(
            config_of(root, {"image": first, **trust}, split=split, parent=parent), second
        )
        assert [layer.reused for layer in image.layers] == [True] * len(image.layers)
        assert layers_of(first) == layers_of(second)
        assert_holds(second, root, EPOCH)


def test_no_file_is_read_where_every_digest_is_known(
    root: Path, tmp_path: Path, trust: dict[str, Any]
) -> None:
    """contract: previous-same. "where every digest is known (`user.checksum.sha256`), no file of it
    is read".
    """
    import hashlib

    for path in root.rglob("*"):
        if stat.S_ISREG(path.lstat().st_mode):
            try:
                os.setxattr(
                    path,
                    "user.checksum.sha256",
                    hashlib.sha256(path.read_bytes()).hexdigest().encode(),
                )
            except OSError:
                pytest.skip("no extended attributes here")
    first, second = tmp_path / "first", tmp_path / "second"
    believing = {"trust-checksum-xattrs": True}
    built(config_of(root, {"image": first, "optional": True}) | believing, first)
    # Whoever opens one of them reads something else, and finds that it is too short.
    for path in root.rglob("file*"):
        os.truncate(path, 0)
        os.truncate(path, 3000 * (int(path.name[-1]) + 1))
    image = built(config_of(root, {"image": first, **trust}) | believing, second)
    assert all(layer.reused for layer in image.layers)
    assert layers_of(first) == layers_of(second)


@pytest.mark.parametrize("compression", ["disabled", "zstd"])
def test_no_blob_is_read_that_its_file_system_vouches_for(
    root: Path, tmp_path: Path, compression: str
) -> None:
    """contract: previous-blobs. Where `trust-checksum-xattrs` believes the attribute of a blob,
    `trust` does not read it; `auto` believes it on FUSE only, and without `trust` all is read.
    """
    first = tmp_path / "first"
    config = config_of(root, {"image": first, "optional": True}, compression=compression)
    built(config, first)
    layers = layers_of(first)
    blob = first / "blobs" / layers[0].replace(":", "/")
    try:
        os.setxattr(blob, "user.checksum.sha256", layers[0].removeprefix("sha256:").encode())
    except OSError:
        pytest.skip("no extended attributes here")
    blob.write_bytes(bytes(blob.stat().st_size))
    trusting = config_of(root, {"image": first, "trust": True}, compression=compression)
    image = built(trusting | {"trust-checksum-xattrs": True}, tmp_path / "second")
    assert all(layer.reused for layer in image.layers)
    assert layers_of(tmp_path / "second") == layers
    for number, other in enumerate([trusting, trusting | {"trust-checksum-xattrs": False}, config]):
        with pytest.raises(ParentError, match=r"damaged|no tar header|zstd stream"):
            built(other, tmp_path / f"other-{number}")
    with pytest.raises(ParentError, match=r"damaged|no tar header|zstd stream"):
        built(config | {"trust-checksum-xattrs": True}, tmp_path / "verified")
    os.setxattr(blob, "user.checksum.sha256", b"0" * 64)
    with pytest.raises(ParentError, match="damaged"):
        built(trusting | {"trust-checksum-xattrs": True}, tmp_path / "lied")


# Something changed


def _paths(root: Path, of: Callable[[int], bool]) -> list[Path]:
    return sorted(path for path in root.rglob("*") if of(path.lstat().st_mode))


def _rewritten(root: Path, rng: random.Random) -> None:
    path = rng.choice([path for path in _paths(root, stat.S_ISREG) if path.lstat().st_size])
    status = path.lstat()
    path.write_bytes(rng.randbytes(status.st_size))
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))


def _resized(root: Path, rng: random.Random) -> None:
    rng.choice(_paths(root, stat.S_ISREG)).write_bytes(
        rng.randbytes(rng.choice([0, 1, 511, 512, 513, 70_000, 1_200_000]))
    )


def _chmod(root: Path, rng: random.Random) -> None:
    path = rng.choice(_paths(root, lambda mode: not stat.S_ISLNK(mode)))
    path.chmod(stat.S_IMODE(path.stat().st_mode) ^ 0o050)


def _chown(root: Path, rng: random.Random) -> None:
    if trees.abilities().root:
        os.chown(
            rng.choice(_paths(root, lambda mode: True)),
            rng.randrange(1, 1 << 22),
            7,
            follow_symlinks=False,
        )


def _touched(root: Path, rng: random.Random) -> None:
    path = rng.choice(_paths(root, lambda mode: True))
    os.utime(path, ns=(0, rng.randrange(1 << 60)), follow_symlinks=False)


def _relinked(root: Path, rng: random.Random) -> None:
    path = rng.choice(_paths(root, stat.S_ISLNK))
    path.unlink()
    path.symlink_to("x" * rng.randrange(1, 150))


def _retyped(root: Path, rng: random.Random) -> None:
    path = rng.choice(_paths(root, stat.S_ISREG))
    path.unlink()
    os.mkfifo(path)


def _xattr(root: Path, rng: random.Random) -> None:
    try:
        os.setxattr(
            rng.choice(_paths(root, stat.S_ISREG)), "user.note", rng.randbytes(rng.randrange(300))
        )
    except OSError:
        _touched(root, rng)


def _added(root: Path, rng: random.Random) -> None:
    directory = rng.choice(_paths(root, stat.S_ISDIR))
    (directory / f"new{rng.randrange(1000)}").write_bytes(rng.randbytes(rng.randrange(2000)))


def _removed(root: Path, rng: random.Random) -> None:
    rng.choice(_paths(root, lambda mode: stat.S_ISREG(mode) or stat.S_ISLNK(mode))).unlink()


def _renamed(root: Path, rng: random.Random) -> None:
    path = rng.choice(_paths(root, stat.S_ISREG))
    path.rename(path.with_name(f"renamed{rng.randrange(1000)}"))


def _hard_linked(root: Path, rng: random.Random) -> None:
    path, other = rng.choice(_paths(root, stat.S_ISREG)), rng.choice(_paths(root, stat.S_ISDIR))
    os.link(path, other / f"hard{rng.randrange(100_000)}")


def _unlinked(root: Path, rng: random.Random) -> None:
    path = rng.choice(_paths(root, stat.S_ISREG))
    content, mode = path.read_bytes(), path.stat().st_mode
    path.unlink()
    path.write_bytes(content)
    path.chmod(stat.S_IMODE(mode))


def _nothing(root: Path, rng: random.Random) -> None:
    pass


CHANGES = [
    _rewritten, _resized, _chmod, _chown, _touched, _relinked, _retyped, _xattr, _added, _removed,
    _renamed, _hard_linked, _unlinked, _nothing,
]  # fmt: skip


@pytest.mark.platform
@pytest.mark.parametrize("seed", range(6))
def test_series_of_builds(root: Path, tmp_path: Path, seed: int) -> None:
    """contract: previous-same. `previous` "changes how long a build takes and where components lie,
    never what the image unpacks to".

    Each build has the layers, byte for byte, that it has with the same plan and without the
    previous image.
    """
    rng = random.Random(seed)
    epoch = EPOCH if seed % 2 else None
    split, trust = seed % 3 > 0, {"trust": True} if seed % 4 > 1 else {}
    previous, reused = tmp_path / "none", 0
    for number in range(10):
        for _ in range(rng.randrange(1, 3)):
            try:
                rng.choice(CHANGES)(root, rng)
            except (FileExistsError, IndexError):
                continue
        output, alone = tmp_path / str(number), tmp_path / f"{number}-alone"
        plan = tmp_path / f"plan-{number}"
        config = config_of(root, {"image": previous, "optional": True, **trust}, split=split)
        fresh = config_of(
            root,
            {"plan": tmp_path / f"plan-{number - 1}", "optional": True} if split else None,
            split=split,
        )
        if split:
            config["images"][0]["split"]["plan"] = os.fspath(plan)
        image = built(config, output, epoch=epoch)
        reused += sum(layer.reused for layer in image.layers)
        assert_holds(output, root, epoch)
        built(fresh, alone, epoch=epoch)
        assert layers_of(output) == layers_of(alone)
        for layer in image.layers:
            assert layer.reused == (
                layer.digest in (layers_of(previous) if previous.exists() else [])
            )
        previous = output
    assert reused or not split
