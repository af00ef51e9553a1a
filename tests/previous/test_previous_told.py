"""What is said of layers that are used again, and of those that are not
(contract: previous-blobs).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clients
import pytest
from conftest import Build
from previous_images import built, config_of, root, trust

from build_oci.image.result import BuiltImage

__all__ = ["root", "trust"]


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


def test_why_is_read_from_a_header_list(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a trusted image; the rest of the layer is not looked at, and its blob may be spoilt. A
    list that is damaged is told, and one that is gone is not missed.
    """
    first = tmp_path / "first"
    built(config_of(root, compression="zstd"), first)
    layer = clients.manifest_of(first)["layers"][1]
    blob, listed = (
        first / "blobs" / digest.replace(":", "/")
        for digest in (layer["digest"], layer["annotations"]["io.build-oci.headers"])
    )
    found: list[str] = []

    def look(trust: bool) -> None:
        config = config_of(root, {"image": first, "trust": trust}, compression="zstd")
        image = built(config, tmp_path / f"out{len(found)}")
        found.extend(str(one.difference) for one in image.layers if "b" in one.components)

    (root / "b" / "large").write_bytes(b"changed")
    right = blob.read_bytes()
    look(trust=True)
    blob.write_bytes(right[:1000])
    look(trust=True)
    look(trust=False)
    listed.write_bytes(b"damaged")
    look(trust=True)
    listed.unlink()
    look(trust=True)
    blob.write_bytes(right)
    look(trust=True)
    cut, damaged = found.pop(4), found.pop(3)
    assert found == ["content of b/large"] * 2 + [cut, "content of b/large"]
    for said in (cut, damaged):
        assert said.startswith("its previous layer cannot be compared: ")
    assert blob.name in cut
    assert listed.name in damaged


CHANGES: dict[str, Callable[[Path], object]] = {
    "content of b/file1": lambda b: (b / "file1").write_bytes(b"changed"),
    "mode of b/large": lambda b: (b / "large").chmod(0o711),
    "xattr of b/large": lambda b: os.setxattr(b / "large", "user.note", b"x"),
    "b/large is gone": lambda b: (b / "large").unlink(),
    "b/deep/new is new": lambda b: (b / "deep" / "new").touch(),
    "b/deep/link is gone": lambda b: (b / "deep" / "link").unlink(),
    "target of b/deep/link": lambda b: point_elsewhere(b / "deep" / "link"),
}


def point_elsewhere(link: Path) -> None:
    link.unlink()
    link.symlink_to("elsewhere")


@pytest.mark.parametrize("difference", CHANGES)
def test_a_header_list_tells_what_the_layer_tells(
    root: Path, tmp_path: Path, difference: str, trust: dict[str, Any]
) -> None:
    first = tmp_path / "first"
    built(config_of(root, compression="zstd"), first)
    CHANGES[difference](root / "b")
    config = config_of(root, {"image": first, **trust}, compression="zstd")
    image = built(config, tmp_path / "second")
    assert [str(one.difference) for one in image.layers if not one.reused] == [difference]


@pytest.mark.parametrize("asked", [True, False])
def test_why_is_looked_for_where_somebody_asks(
    root: Path, tmp_path: Path, build: Build, asked: bool
) -> None:
    first = tmp_path / "first"
    built(config_of(root), first)
    (root / "a" / "file1").write_bytes(b"changed")
    config = config_of(root, {"image": first})
    image = built(config, tmp_path / "second", differences=asked)
    assert [str(layer.difference) for layer in image.layers if not layer.reused] == [
        "content of a/file1" if asked else "None"
    ]
    # The command asks where --metrics are to tell it.
    build(config, args=["--metrics", os.fspath(tmp_path / "metrics")])
    assert b'"difference": {' in (tmp_path / "metrics").read_bytes()


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
