"""Building again with what an earlier build made: which layers are its, what the image holds, and
what is said of it (contract: previous-blobs)."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clients
import oracles
import pytest
import trees
from conftest import Build

from build_oci.config.load import load_config
from build_oci.image.result import BuiltImage
from build_oci.pipeline import build

EPOCH = 1_700_000_000
LETTERS = [{"paths": {letter: [f"{letter}/**"] for letter in "abcdef"}}]


def config_of(
    layer: Path,
    previous: dict[str, Any] | None = None,
    *,
    split: bool = True,
    compression: str = "disabled",
    parent: Path | None = None,
) -> dict[str, Any]:
    image: dict[str, Any] = {"os": "linux", "architecture": "amd64", "layer": os.fspath(layer)}
    if split:
        image["split"] = {"components": LETTERS, "unclaimed": "ignore", "max-layers": 9}
    if previous is not None:
        image["previous"] = {
            key: os.fspath(value) if isinstance(value, Path) else value
            for key, value in previous.items()
        }
    if parent is not None:
        image["parent"] = {"image": os.fspath(parent)}
    return {"compression": compression, "images": [image]}


def built(
    config: dict[str, Any],
    output: Path,
    *,
    epoch: int | None = EPOCH,
    warnings: list[str] | None = None,
    explained: list[str] | None = None,
) -> BuiltImage:
    warned: list[str] = [] if warnings is None else warnings
    said: list[str] = [] if explained is None else explained
    found = build(
        load_config(json.dumps(config)),
        output=output,
        workers=2,
        epoch=epoch,
        warn=warned.append,
        explain=said.append,
        sync=False,
    )
    return found.images[0]


def layers_of(layout: Path) -> list[str]:
    return [layer["digest"] for layer in clients.manifest_of(layout)["layers"]]


def assert_holds(layout: Path, root: Path, epoch: int | None) -> None:
    """The layers, applied in order, are the tree ROOT."""
    model: oracles.Model = {}
    for tar in clients.layer_tars(layout):
        oracles.apply_layer(io.BytesIO(tar), model)
    expected = oracles.tree_model(root)
    for node in expected.values():
        node.mtime = node.mtime if epoch is None else epoch * oracles.SECOND
    assert oracles.compare(model, expected) == []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six components of a few files each."""
    root = tmp_path / "root"
    rng = random.Random(0)
    for letter in "abcdef":
        (root / letter / "deep").mkdir(parents=True)
        for number in range(3):
            (root / letter / f"file{number}").write_bytes(rng.randbytes(3000) * (number + 1))
        (root / letter / "deep" / "link").symlink_to("../file0")
    os.link(root / "a" / "file0", root / "a" / "hard")
    (root / "b" / "large").write_bytes(rng.randbytes(3 << 20))
    return root


@pytest.fixture(params=[{}, {"trust": True}], ids=["verified", "trusted"])
def trust(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.param
    return found


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
    assert list(layer["annotations"]) == ["io.build-oci.recipe"]
    assert layers_of(tmp_path / "1") == layers_of(tmp_path / "2")
    built(config_of(root), tmp_path / "3")
    assert all(
        "io.build-oci.recipe" in layer["annotations"]
        for layer in clients.manifest_of(tmp_path / "3")["layers"]
    )


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


@pytest.mark.parametrize("before", ["disabled", "zstd", "gzip"])
@pytest.mark.parametrize("after", ["disabled", "zstd", "gzip"])
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


# What is told


def test_why_a_layer_is_not_used_again(root: Path, tmp_path: Path, trust: dict[str, Any]) -> None:
    """contract: previous-told. "why a layer was not (the first entry that differs and in what)"."""
    first = tmp_path / "first"
    built(config_of(root), first)
    (root / "a" / "file1").write_bytes(b"changed")
    (root / "c" / "file2").chmod(0o711)
    (root / "d" / "deep" / "new\nline").write_bytes(b"")
    (root / "f" / "file0").unlink()
    said: list[str] = []
    image = built(config_of(root, {"image": first, **trust}), tmp_path / "second", explained=said)
    found = {
        layer.components[0]: str(layer.difference) if not layer.reused else "reused"
        for layer in image.layers
    }
    assert found == {
        "a": "content of a/file1",
        "b": "reused",
        "c": "mode of c/file2",
        "d": "d/deep/new\\x0aline is new",
        "e": "reused",
        "f": "f/file0 is gone",
    }
    assert sum("not in the previous image: mode of c/file2" in line for line in said) == 1
    assert sum(line.endswith(": that of the previous image") for line in said) == 2


def test_why_where_nothing_is_split(root: Path, tmp_path: Path) -> None:
    built(config_of(root, split=False, compression="zstd"), tmp_path / "first")
    (root / "e" / "file1").chmod(0o711)
    image = built(
        config_of(root, {"image": tmp_path / "first"}, split=False, compression="zstd"),
        tmp_path / "second",
    )
    assert [str(layer.difference) for layer in image.layers] == ["mode of e/file1"]


def test_why_a_new_component_is_new(root: Path, tmp_path: Path) -> None:
    shutil.move(root / "f", tmp_path / "f")
    built(config_of(root), tmp_path / "first")
    shutil.move(tmp_path / "f", root / "f")
    said: list[str] = []
    image = built(
        config_of(root, {"image": tmp_path / "first"}), tmp_path / "second", explained=said
    )
    assert {
        layer.components: layer.difference for layer in image.layers if "f" in layer.components
    } == {("f",): None}
    assert any(line.endswith("no layer there is like it") for line in said)


def test_summary_and_metrics(root: Path, tmp_path: Path, build: Build) -> None:
    first = build(config_of(root))
    (root / "a" / "file1").write_bytes(b"changed")
    done = build(
        config_of(root, {"image": first.output}),
        args=["-v", "--metrics", os.fspath(tmp_path / "metrics")],
    )
    assert "6 layers of 7 reused" in done.stderr
    assert "not in the previous image: content of a/file1" in done.stderr
    (image,) = json.loads((tmp_path / "metrics").read_bytes())["images"]
    told = {
        "".join(layer["components"]): (layer["reused"], layer["difference"])
        for layer in image["layers"]
    }
    assert told.pop("a") == (False, {"what": "content", "path": "a/file1"})
    assert all(value == (True, None) for value in told.values())
    assert "previous" in image["stages"]


def test_the_plan_learns_what_changed(root: Path, tmp_path: Path) -> None:
    """contract: split-plan.
    "it keeps for each component how many builds it has seen and in how many it changed", by a plan
    file or an image."""

    def learnt(build: BuiltImage) -> dict[str, tuple[int, int]]:
        assert build.plan is not None
        return {
            name: (history.builds, history.changes) for name, history in build.plan.history.items()
        }

    first = built(config_of(root), tmp_path / "0")
    assert set(learnt(first).values()) == {(0, 0)}
    assert all(history.digest for history in first.plan.history.values()) if first.plan else False
    for number in (1, 2):
        (root / "c" / "file0").write_bytes(b"%d" % number)
        built(config_of(root, {"image": tmp_path / f"{number - 1}"}), tmp_path / f"{number}")
    again = built(config_of(root, {"image": tmp_path / "2"}), tmp_path / "3")
    found = learnt(again)
    assert found.pop("c") == (2, 2)
    assert set(found.values()) == {(2, 0)}
    # A plan file says the same, whether its build knew the contents before it planned or only
    # after.
    for previous in (
        {"image": tmp_path / "2"},
        {"image": tmp_path / "2", "trust": True},
        {"plan": tmp_path / "plan"},
    ):
        config = config_of(root, previous)
        config["images"][0]["split"]["plan"] = os.fspath(tmp_path / "plan")
        assert learnt(built(config, tmp_path / "4")) == learnt(again)


def test_what_a_component_digest_covers(root: Path, tmp_path: Path) -> None:
    """All that is in a component but times."""
    seen = {"as it was": built(config_of(root), tmp_path / "first").plan}
    os.utime(root / "a" / "file1", (0, 0))
    changes: list[Callable[[], object]] = [
        lambda: (root / "a" / "file1").write_bytes(b"x" * 6000),
        lambda: (root / "a" / "file1").chmod(0o700),
        lambda: (root / "a" / "file1").rename(root / "a" / "renamed"),
        lambda: (root / "a" / "deep" / "link").unlink(),
        lambda: (root / "a" / "deep" / "link").symlink_to("elsewhere"),
    ]
    before = seen["as it was"]
    assert before is not None
    for number, change in enumerate([lambda: None, *changes]):
        change()
        after = built(config_of(root), tmp_path / f"{number}").plan
        assert after is not None
        assert (after.history["a"].digest == before.history["a"].digest) == (number == 0)
        assert after.history["b"].digest == before.history["b"].digest
        before = after
