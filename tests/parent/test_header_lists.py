"""Header lists: the names of a layer, read without decoding it (contract: parent-header-lists)."""

from __future__ import annotations

import hashlib
import io
import os
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clients
import layouts
import parents
import pytest
import zstandard
from previous_images import EPOCH, built, config_of, layers_of, put, rewrite

from build_oci.errors import BuildOciError, ParentError
from build_oci.oci.archive_source import ArchiveSource

pytestmark = pytest.mark.once

RECIPE = "io.build-oci.recipe"
HEADERS = "io.build-oci.headers"
LARGE = 1 << 20
NO_LIST = "decoded, because no header list of it is here"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """What becomes four layers, one of them small."""
    root, rng = tmp_path / "root", random.Random(7)
    for letter, size in (("a", LARGE), ("b", LARGE), ("c", 3 * LARGE), ("d", 10)):
        (root / letter / "deep").mkdir(parents=True)
        (root / letter / "large").write_bytes(rng.randbytes(size))
        (root / letter / "deep" / ("n" * 150)).write_bytes(rng.randbytes(300))
        os.link(root / letter / "large", root / letter / "linked")
        (root / letter / "symlink").symlink_to("large")
        os.mkfifo(root / letter / "fifo")
        (root / letter / "empty").touch()
    os.setxattr(root / "a" / "empty", "user.note", bytes(range(256)) * 8)
    return root


@pytest.fixture
def layout(root: Path, tmp_path: Path) -> Path:
    built(config_of(root, compression="zstd"), tmp_path / "layout")
    return tmp_path / "layout"


def headers_of(tar: bytes) -> bytes:
    """The twin: the archive without contents and padding, as tarfile sees it."""
    with tarfile.open(
        fileobj=io.BytesIO(tar), errors="surrogateescape", encoding="utf-8"
    ) as opened:
        return b"".join(tar[one.offset : one.offset_data] for one in opened.getmembers())


def essence(layout: Path) -> tuple[Any, list[str]]:
    """What an image is but for what its descriptors tell of the archives."""
    return clients.manifest_of(layout)["config"], layers_of(layout)


def lists_of(layout: Path) -> list[bytes | None]:
    """The header list of each layer, decompressed."""
    found: list[bytes | None] = []
    for layer in clients.manifest_of(layout)["layers"]:
        named = layer.get("annotations", {}).get(HEADERS)
        found.append(
            zstandard.ZstdDecompressor().decompressobj().decompress(clients.blob(layout, named))
            if named
            else None
        )
    return found


def edited(
    parent: Path | str,
    tmp_path: Path,
    *,
    trust: bool = True,
    name: str = "edited",
    removes: bool = True,
    **more: Any,
) -> tuple[Path, list[str]]:
    """PARENT with one file changed, and what `-v` says."""
    overlay = tmp_path / "overlay"
    (overlay / "a").mkdir(parents=True, exist_ok=True)
    (overlay / "a" / "large").write_bytes(b"changed")
    image = {
        "os": "linux",
        "architecture": "amd64",
        "parent": {"image": str(parent), "trust": trust, "config": "inherit"},
        "layers": [{"add": str(overlay)} | ({"remove": ["/d/empty"]} if removes else {})],
    }
    said: list[str] = []
    output = tmp_path / name
    built({"compression": "zstd", "images": [image], **more}, output, explained=said)
    return output, said


def relisted(layout: Path, number: int, data: bytes) -> Path:
    """Let DATA be the header list of layer NUMBER; where it is."""
    digest: str = put(layout, data)["digest"]

    def change(manifest: dict[str, Any], config: dict[str, Any]) -> None:
        manifest["layers"][number]["annotations"][HEADERS] = digest

    rewrite(layout, change)
    return layout / "blobs" / digest.replace(":", "/")


def list_path(layout: Path, number: int) -> Path:
    digest: str = clients.manifest_of(layout)["layers"][number]["annotations"][HEADERS]
    return layout / "blobs" / digest.replace(":", "/")


@pytest.mark.parametrize("compression", ["zstd", "gzip", "disabled", ["gzip", "zstd:chunked"]])
@pytest.mark.parametrize("epoch", [None, EPOCH])
def test_a_list_is_the_headers_of_the_archive(
    root: Path, tmp_path: Path, compression: str | list[str], epoch: int | None
) -> None:
    """And its digest is the recipe; a small layer has none."""
    output = tmp_path / "out"
    built(config_of(root, compression=compression), output, epoch=epoch)
    for image in range(len(clients.index_of(output)["manifests"])):
        layers = clients.manifest_of(output, image)["layers"]
        assert len(layers) == (5 if epoch is None else 4)
        for layer, tar in zip(layers, clients.layer_tars(output, image), strict=True):
            recipe = layer["annotations"][RECIPE]
            headers = headers_of(tar)
            assert recipe == f"sha256:{hashlib.sha256(headers).hexdigest()}"
            assert (HEADERS in layer["annotations"]) is (len(tar) >= LARGE)
    for tar, found in zip(clients.layer_tars(output), lists_of(output), strict=True):
        assert found == (headers_of(tar) if len(tar) >= LARGE else None)


def test_a_layer_that_is_used_again_has_the_same_list(
    root: Path, tmp_path: Path, layout: Path
) -> None:
    """contract: previous-same."""
    config = config_of(root, {"image": layout}, compression="zstd")
    built(config, tmp_path / "again")
    assert clients.manifest_of(tmp_path / "again") == clients.manifest_of(layout)
    assert lists_of(tmp_path / "again") == lists_of(layout) != [None] * 4


def test_an_image_that_records_nothing_has_no_list(root: Path, tmp_path: Path) -> None:
    """contract: layout-documents."""
    built(config_of(root, split=False), tmp_path / "out")
    assert "annotations" not in clients.manifest_of(tmp_path / "out")["layers"][0]
    assert len(list((tmp_path / "out" / "blobs" / "sha256").iterdir())) == 3


@pytest.fixture
def never_decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The layers that are decoded nevertheless, by the first bytes of what is read."""
    import build_oci.parent.layers as module
    from build_oci.parent.archive import read_archive

    read: list[str] = []

    def watched(codec: str, blob: Any, path: Path, *args: Any, **more: Any) -> None:
        read.append(path.name)
        read_archive(codec, blob, path, *args, **more)

    monkeypatch.setattr(module, "read_archive", watched)
    return read


@pytest.mark.parametrize("compression", ["zstd", "gzip", "disabled", "zstd:chunked"])
def test_a_late_edit_with_and_without_lists(
    root: Path, tmp_path: Path, never_decoded: list[str], compression: str
) -> None:
    """One image, whether the lists were there or not; the large layers are decoded only where they
    were not. A late edit of that one reads the lists as well.
    """
    layout = tmp_path / "layout"
    built(config_of(root, compression=compression), layout)
    small = layers_of(layout)[3].removeprefix("sha256:")
    first, said = edited(layout, tmp_path, compression=compression)
    assert never_decoded == ([small] if compression != "disabled" else [])
    assert not [line for line in said if NO_LIST in line and small not in line]
    never_decoded.clear()
    decoded, said = edited(layout, tmp_path, trust=False, name="decoded", compression=compression)
    assert len(never_decoded) == 4
    assert essence(first) == essence(decoded)
    assert not any(lists_of(decoded))  # claims of an image that is not trusted go
    assert lists_of(first)[:4] == lists_of(layout)
    (tmp_path / "overlay" / "a" / "new").write_bytes(b"new")
    never_decoded.clear()
    second, _ = edited(first, tmp_path, name="second", removes=False, compression=compression)
    assert len(never_decoded) == (2 if compression != "disabled" else 0)
    assert lists_of(second)[:4] == lists_of(layout)
    assert parents.top_layer(second)[-1] == "a/new"
    assert layouts.found(second) == ([], [])


def test_a_copy_without_lists_is_decoded(
    tmp_path: Path, layout: Path, never_decoded: list[str]
) -> None:
    expected, _ = edited(layout, tmp_path)
    for number in range(3):
        list_path(layout, number).unlink()
    never_decoded.clear()
    copied, said = edited(layout, tmp_path, name="copied")
    assert len(never_decoded) == 4
    assert len([line for line in said if NO_LIST in line]) == 4
    # An annotation that names a blob which is not there goes.
    layers = clients.manifest_of(copied)["layers"]
    assert all(HEADERS not in layer.get("annotations", {}) for layer in layers)
    assert all(RECIPE in layer["annotations"] for layer in layers[:4])
    assert clients.layer_tars(copied) == clients.layer_tars(expected)
    assert layouts.found(layout) == ([], [])


def test_a_tree_upon_a_trusted_parent(
    root: Path, tmp_path: Path, layout: Path, never_decoded: list[str]
) -> None:
    """An ordinary `layer`, and a `split` one, with the lists of the parent's layers and without."""
    (root / "b" / "large").write_bytes(b"changed")
    (root / "c" / "linked").unlink()
    for split in (False, True):
        found = []
        for trust in (True, False):
            config = config_of(root, compression="zstd", parent=layout, split=split)
            config["images"][0]["parent"]["trust"] = trust
            never_decoded.clear()
            built(config, tmp_path / f"{split}-{trust}")
            assert len(never_decoded) == (1 if trust else 4)
            found.append(essence(tmp_path / f"{split}-{trust}"))
        assert found[0] == found[1]


def test_parts_are_compared_by_their_lists(
    root: Path, tmp_path: Path, never_decoded: list[str]
) -> None:
    """contract: late-edits. And `trust` of a part changes nothing of the image or the warnings."""
    parts = []
    for number in range(3):
        parts.append(tmp_path / f"part-{number}")
        (root / "d" / f"of-{number}").write_bytes(b"x" * LARGE)
        built(config_of(root, compression="zstd"), parts[-1])
        shutil.rmtree(root / "abc"[number])
    found = []
    for trust in (True, False):
        items = [{"image": str(part), "trust": trust} for part in parts]
        image = {"os": "linux", "architecture": "amd64", "layers": items}
        warned: list[str] = []
        never_decoded.clear()
        built({"images": [image]}, tmp_path / str(trust), warnings=warned)
        assert len(never_decoded) == (0 if trust else sum(len(layers_of(part)) for part in parts))
        found.append((warned, essence(tmp_path / str(trust))))
    assert found[0] == found[1]
    assert len(found[0][0]) == 3
    assert " names of it hide what " in found[0][0][0]


def test_claims_of_a_parent_that_is_not_trusted_go(tmp_path: Path, layout: Path) -> None:
    """contract: parent-header-lists. In the new image they would count as what this build found:
    `trust` would believe them, and `verify` would refuse the image.
    """
    parent = {"image": str(layout), "config": "inherit"}
    images = [
        {
            "os": "linux",
            "architecture": "amd64",
            "parent": parent,
            "config": {"Labels": {"a": "b"}},
        },
        {"os": "linux", "architecture": "amd64", "layers": [{"image": str(layout)}]},
    ]
    for number, image in enumerate(images):
        output = tmp_path / f"out{number}"
        built({"images": [image]}, output)
        layers = clients.manifest_of(output)["layers"]
        assert [layer["digest"] for layer in layers] == [
            layer["digest"] for layer in clients.manifest_of(layout)["layers"]
        ]
        for layer in layers:
            assert not {HEADERS, RECIPE} & layer.get("annotations", {}).keys()
        assert layouts.found(output) == ([], [])


def test_labels_keep_the_lists(tmp_path: Path, layout: Path) -> None:
    image = {
        "os": "linux",
        "architecture": "amd64",
        "parent": {"image": str(layout), "config": "inherit", "trust": True},
        "config": {"Labels": {"a": "b"}},
    }
    built({"images": [image]}, tmp_path / "out")
    assert clients.manifest_of(tmp_path / "out")["layers"] == clients.manifest_of(layout)["layers"]
    assert lists_of(tmp_path / "out") == lists_of(layout)
    built({"compression": "gzip", "images": [image]}, tmp_path / "gzip")
    for layer in clients.manifest_of(tmp_path / "gzip")["layers"]:
        assert HEADERS not in layer.get("annotations", {})
    list_path(layout, 1).write_bytes(b"damaged")
    with pytest.raises(ParentError, match="is damaged") as caught:
        built({"images": [image]}, tmp_path / "bad")
    assert caught.value.where == str(list_path(layout, 1))
    assert caught.value.hint


def test_archives_hold_the_lists(tmp_path: Path, layout: Path, never_decoded: list[str]) -> None:
    """contract: parent-archive, output-archive."""
    image = {
        "os": "linux",
        "architecture": "amd64",
        "parent": {"image": str(layout), "config": "inherit", "trust": True},
    }
    archive = tmp_path / "image.tar"
    built({"images": [image]}, f"oci-archive:{archive}")
    assert all(
        ArchiveSource(archive).has_blob(f"sha256:{list_path(layout, number).name}")
        for number in range(3)
    )
    expected, _ = edited(layout, tmp_path)
    never_decoded.clear()
    found, _ = edited(archive, tmp_path, name="of-archive")
    assert len(never_decoded) == 1
    assert lists_of(found)[:4] == lists_of(expected)[:4]
    assert clients.manifest_of(found)["layers"] == clients.manifest_of(expected)["layers"]


def compressed(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


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


def test_prune_keeps_the_lists(tmp_path: Path, layout: Path, root: Path) -> None:
    """contract: cli-prune."""
    (layout / "blobs" / "sha256" / ("0" * 64)).write_bytes(b"")
    clients.run_build(
        config_of(root, compression="zstd"),
        layout,
        args=["--prune"],
        env={"SOURCE_DATE_EPOCH": str(EPOCH)},
        cwd=tmp_path,
    )
    assert not (layout / "blobs" / "sha256" / ("0" * 64)).exists()
    assert [found is not None for found in lists_of(layout)] == [True] * 3 + [False]


def test_merge_keeps_the_lists(tmp_path: Path, layout: Path) -> None:
    """contract: output-merge. One that a copy lacks is not missed."""
    from build_oci.merge import merge

    gone = list_path(layout, 1)
    lists = lists_of(layout)
    merge([str(layout)], tmp_path / "merged", sync=False)
    assert lists_of(tmp_path / "merged") == lists
    gone.unlink()
    merge([str(layout)], tmp_path / "again", sync=False)
    assert list_path(tmp_path / "again", 0).exists()
    assert not (tmp_path / "again" / "blobs" / "sha256" / gone.name).exists()


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
