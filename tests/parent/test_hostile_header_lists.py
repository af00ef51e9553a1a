"""Header lists and blobs that are not what they should be (contract: parent-header-lists)."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clients
import layouts
import pytest
from header_lists import (
    HEADERS,
    LARGE,
    RECIPE,
    compressed,
    edited,
    headers_of,
    layout,
    list_path,
    lists_of,
    never_decoded,
    relisted,
    root,
)
from previous_images import built, layers_of, put, rewrite

from build_oci.errors import BuildOciError, ParentError

__all__ = ["layout", "never_decoded", "root"]
pytestmark = pytest.mark.once


# What a list may be that is not the one of its layer, from the right one.
LYING: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda right: b"", "is truncated"),
    "no zstd": (lambda right: right, "is not a zstd stream"),
    "cut off": (lambda right: compressed(right)[:-40], "the zstd stream"),
    "one header less": (lambda right: compressed(right[:-512]), "other headers"),
    "half a header": (lambda right: compressed(right[:-100]), "other headers"),
    "none": (lambda right: compressed(b""), "other headers"),
    "twice": (lambda right: compressed(right * 2), "other headers"),
    "an end": (lambda right: compressed(right + bytes(1024)), "zeros, in a list of headers"),
    "a bomb of zeros": (lambda right: compressed(bytes(1 << 28)), "zeros, in a list of headers"),
    "a bomb of members": (lambda right: compressed(right[:512] * (1 << 19)), "memory"),
    "noise": (lambda right: compressed(random.Random(1).randbytes(5000)), "no tar header"),
    "an archive": (lambda right: compressed(layouts.FIRST), "no tar header|no checksum record"),
    "two frames": (
        lambda right: compressed(right[:512]) + compressed(right[512:-512]),
        "other headers",
    ),
    "something behind": (lambda right: compressed(right) + b"behind it", "follows the zstd stream"),
}


@pytest.mark.parametrize("name", LYING)
def test_hostile_lists(
    tmp_path: Path, layout: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """contract: promise-hostile-input. One clear error that names the list, and nothing written."""
    import build_oci.parent.lower as lower

    monkeypatch.setattr(lower, "SLACK", 8 << 20)
    monkeypatch.setattr(lower, "ENTRY_COST", 60)
    make, said = LYING[name]
    right = lists_of(layout)[1]
    assert right is not None
    path = relisted(layout, 1, make(right))
    with pytest.raises(ParentError, match=said) as caught:
        edited(layout, tmp_path)
    assert caught.value.where == str(path)
    assert caught.value.hint
    assert not (tmp_path / "edited").exists()
    # Who does not believe it does not read it.
    monkeypatch.undo()
    assert edited(layout, tmp_path, trust=False, name="untrusted")


def test_a_list_without_a_checksum_record(tmp_path: Path, layout: Path) -> None:
    """Even with its own digest as the recipe: the digest of a content would be made up."""
    data = headers_of(layouts.archive(("x", b"content")))
    path = relisted(layout, 1, compressed(data))

    def change(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        manifest["layers"][1]["annotations"][RECIPE] = f"sha256:{hashlib.sha256(data).hexdigest()}"

    rewrite(layout, change)
    with pytest.raises(ParentError, match="no checksum record") as caught:
        edited(layout, tmp_path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    "told",
    ["", "sha256:", "sha256:../../../etc/passwd", "sha512:" + "0" * 128, "sha256:" + "A" * 64],
)
def test_annotations_that_name_no_list(tmp_path: Path, layout: Path, told: str) -> None:
    def change(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        for layer in manifest["layers"]:
            layer["annotations"][HEADERS] = told

    expected, _ = edited(layout, tmp_path)
    rewrite(layout, change)
    output, _ = edited(layout, tmp_path, name="other")
    assert clients.layer_tars(output) == clients.layer_tars(expected)
    assert all(
        HEADERS not in layer.get("annotations", {})
        for layer in clients.manifest_of(output)["layers"]
    )


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_lists_that_are_no_files(
    tmp_path: Path, layout: Path, make: Callable[[Path], None]
) -> None:
    path = list_path(layout, 2)
    path.unlink()
    make(path)
    with pytest.raises(BuildOciError) as caught:
        edited(layout, tmp_path)
    assert str(path) in caught.value.where


def test_a_lying_media_type_does_not_spare_decoding(
    tmp_path: Path, layout: Path, never_decoded: list[str]
) -> None:
    """An uncompressed layer that is not what its diff_id says is refused, list or not."""
    tars = clients.layer_tars(layout)

    def change(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        plain = put(layout, tars[0] + bytes(512))
        manifest["layers"][0] |= plain
        manifest["layers"][0]["mediaType"] = layouts.LAYER

    rewrite(layout, change)
    with pytest.raises(ParentError, match="its archive has the digest"):
        edited(layout, tmp_path, compression="disabled")


def test_verify_holds_lists_and_recipes_against_the_archives(tmp_path: Path, layout: Path) -> None:
    """contract: cli-verify."""
    assert layouts.found(layout) == ([], [])
    lists = lists_of(layout)
    assert lists[0]
    assert lists[1]
    blob = "blobs/sha256/"
    damaged = list_path(layout, 2)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    other = relisted(layout, 0, compressed(lists[1]))
    problems, notes = layouts.found(layout)
    assert len(problems) == 2
    assert (
        f"{blob}{other.name}: holds other headers than the recipe of its layer stands for"
        in problems
    )
    assert any(line.startswith(f"{blob}{damaged.name}: is damaged") for line in problems)
    assert all("is referred to by nothing" in note for note in notes)

    def change(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        first, second = (manifest["layers"][number]["annotations"] for number in (0, 1))
        first[RECIPE] = second[RECIPE]
        manifest["layers"][2]["annotations"].pop(HEADERS)

    rewrite(layout, change)
    problems, _ = layouts.found(layout)
    layer = layers_of(layout)[0].replace(":", "/")
    assert [line for line in problems if damaged.name not in line] == [
        f"blobs/{layer}: its descriptor tells another recipe ({RECIPE}) than its archive has"
    ]


def test_a_spoilt_blob_among_many_that_are_hashed_together(tmp_path: Path) -> None:
    """contract: parent-verified. Labels after the fact: blobs are hashed side by side."""
    made = layouts.Layout(tmp_path / "many")
    tars = [layouts.archive((f"f{number}", bytes(number * 100))) for number in range(40)]
    made.index(layouts.image(made, tars))
    path = made.path / "blobs" / "sha256" / hashlib.sha256(tars[23]).hexdigest()
    path.write_bytes(tars[23][:-1] + b"x")
    image = {"os": "linux", "architecture": "amd64", "parent": {"image": str(made.path)}}
    with pytest.raises(ParentError, match="is damaged") as caught:
        built({"compression": "disabled", "images": [image]}, tmp_path / "out")
    assert caught.value.where == str(path)


def test_a_spoilt_blob_that_is_the_archive(tmp_path: Path) -> None:
    """contract: parent-verified. It is hashed once, as the archive; what its reader stumbles over
    is told as what it is.
    """
    made = layouts.Layout(tmp_path / "stored")
    tar = layouts.archive(("f", bytes(LARGE)), ("g", b"x"))
    made.index(layouts.image(made, [tar]))
    path = made.path / "blobs" / "sha256" / hashlib.sha256(tar).hexdigest()
    for at in (300, LARGE // 2, LARGE + 1024 + 300, len(tar) - 1):
        path.write_bytes(tar[:at] + bytes([tar[at] ^ 1]) + tar[at + 1 :])
        with pytest.raises(ParentError, match="is damaged") as caught:
            edited(made.path, tmp_path, trust=False, removes=False, compression="disabled")
        assert caught.value.where == str(path)
    path.write_bytes(tar)
    edited(made.path, tmp_path, trust=False, removes=False, compression="disabled")
