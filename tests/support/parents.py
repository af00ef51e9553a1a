"""Images upon parents: built in-process, parents made by hand, trees that change."""

from __future__ import annotations

import copy
import dataclasses
import gzip
import hashlib
import io
import json
import os
import random
import stat
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import clients
import oracles
import pytest
import trees
import zstandard
from oracles import SECOND
from test_clients import changed
from test_layer_tar import DIR, REG, tar_of

from build_oci.config.load import load_config
from build_oci.pipeline import build

EPOCH = 1_700_000_000
COMPRESSIONS = ["zstd", "gzip", "disabled"]

LOOKALIKES = [b".wh", b".whx", b"wh.a", b".WH.a", b"a.wh.b", b".wh-a", b"-.wh.a"]


def image_of(
    layer: Path | None, parent: Path | None = None, **parent_settings: object
) -> clients.Document:
    image: clients.Document = {"os": "linux", "architecture": "amd64"}
    if layer:
        image["layer"] = os.fspath(layer)
    if parent:
        image["parent"] = {"image": os.fspath(parent), **parent_settings}
    return {**image, "index-annotations": {"org.opencontainers.image.ref.name": "latest"}}


def built(output: Path, *images: clients.Document, epoch: int | None = None, **top: Any) -> Path:
    """The layout OUTPUT with IMAGES; TOP are top-level keys with `_` for `-`."""
    document = {**{name.replace("_", "-"): value for name, value in top.items()}, "images": images}
    build(load_config(json.dumps(document)), output=output, workers=2, epoch=epoch, sync=False)
    return output


def model_of(layout: Path, image: int = 0) -> oracles.Model:
    """All layers of an image, applied in order."""
    # Not every builder writes an entry for the root.
    model: oracles.Model = {b".": oracles.Node(tarfile.DIRTYPE, 0o755, 0, 0, 0)}
    for tar in clients.layer_tars(layout, image):
        oracles.apply_layer(io.BytesIO(tar), model)
    for node in model.values():
        node.mode &= 0o7777  # Go's archive/tar once wrote the type into the mode too
    return model


def names_in(tar: bytes) -> list[str]:
    with tarfile.open(
        fileobj=io.BytesIO(tar), errors="surrogateescape", encoding="utf-8"
    ) as archive:
        return [member.name for member in archive.getmembers()]


def top_layer(layout: Path) -> list[str]:
    """The names in the uppermost layer, as they stand there."""
    return names_in(clients.layer_tars(layout, only=slice(-1, None))[0])


def put(
    layout: Path, data: bytes, media_type: str, *, algorithm: str = "sha256", **more: object
) -> clients.Document:
    """Store a blob; its descriptor."""
    hexadecimal = hashlib.new(algorithm, data).hexdigest()
    path = layout / "blobs" / algorithm / hexadecimal
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return {
        "mediaType": media_type,
        "digest": f"{algorithm}:{hexadecimal}",
        "size": len(data),
        **more,
    }


def put_manifest(
    layout: Path,
    layers: Sequence[clients.Document],
    diff_ids: Sequence[str],
    *,
    algorithm: str = "sha256",
    **more: object,
) -> clients.Document:
    """Store the config and the manifest of an image; its descriptor, with MORE."""
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    ).encode()
    descriptor = put(
        layout, config, "application/vnd.oci.image.config.v1+json", algorithm=algorithm
    )
    manifest = json.dumps({"schemaVersion": 2, "config": descriptor, "layers": layers}).encode()
    return put(
        layout, manifest, "application/vnd.oci.image.manifest.v1+json", algorithm=algorithm, **more
    )


def put_index(layout: Path, *manifests: clients.Document) -> Path:
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    return layout


def diff_id(tar: bytes) -> str:
    return f"sha256:{hashlib.sha256(tar).hexdigest()}"


def hand_made(layout: Path, *tars: bytes) -> Path:
    """An image of plain layers."""
    layers = [put(layout, tar, "application/vnd.oci.image.layer.v1.tar") for tar in tars]
    return put_index(layout, put_manifest(layout, layers, [diff_id(tar) for tar in tars]))


Names = dict[bytes, trees.Item]  # hard links are the same Item under several names


def names_of(items: Sequence[trees.Item]) -> Names:
    names: Names = {}
    for item in items:
        names[item.path] = names[item.target] if item.type == 0 else copy.deepcopy(item)
    return names


def items_of(names: Names) -> list[trees.Item]:
    """What materialise() makes NAMES of: directories before what is in them, each file before its
    links.
    """
    first: dict[int, bytes] = {}
    items = []
    for path in sorted(names, key=lambda path: [] if path == b"." else path.split(b"/")):
        written = first.setdefault(id(names[path]), path)
        whole = written == path
        items.append(
            dataclasses.replace(names[path], path=path)
            if whole
            else trees.Item(path, 0, target=written)
        )
    return items


def random_kind(rng: random.Random) -> int:
    special = trees.SPECIAL if trees.abilities().devices else trees.SPECIAL[:2]
    return rng.choice(
        [
            stat.S_IFREG,
            stat.S_IFREG,
            stat.S_IFREG,
            stat.S_IFDIR,
            stat.S_IFDIR,
            stat.S_IFLNK,
            *special,
        ]
    )


def change_one_thing(rng: random.Random, item: trees.Item) -> None:
    what = rng.choice(["mode", "owner", "mtime", "xattrs", "content"])
    if what == "mode":
        item.mode ^= 0o040
    elif what == "owner":
        item.uid = 7 if item.uid != 7 else 8
    elif what == "mtime":
        # by nanoseconds only where both sides have a fraction: else they would be told apart by
        # nothing
        item.mtime += (
            1 if 0 < item.mtime % SECOND < SECOND - 1 else rng.choice([1, -1, 60]) * SECOND
        )
    elif what == "xattrs":
        item.xattrs = trees.random_xattrs(rng, item.type)
    elif item.type == stat.S_IFLNK:
        item.target = (
            bytes([item.target[0] ^ 1 if item.target[0] not in b"./" else ord("x")])
            + item.target[1:]
        )
    else:
        item.content_seed += 1
        item.device = (item.device[0], item.device[1] ^ 1)


def change(rng: random.Random, names: Names, times: int) -> None:
    """Do TIMES random things to NAMES: take away, add, put another type in place, change one field,
    link and unlink.
    """
    for _ in range(times):
        path = rng.choice(sorted(names))
        action = rng.choice(
            ["remove", "replace", "add", "add", "change", "change", "change", "link", "unlink"]
        )
        if action in ("remove", "replace") and path != b".":
            for below in [name for name in names if name.startswith(path + b"/")]:
                del names[below]
            del names[path]
            if action == "replace":
                names[path] = trees.random_item(rng, path, random_kind(rng), large=False)
        elif action in ("add", "link"):
            directory = rng.choice(
                sorted(name for name, item in names.items() if item.type == stat.S_IFDIR)
            )
            name = (b"" if directory == b"." else directory + b"/") + rng.choice(
                trees.NAMES + LOOKALIKES
            )
            files = sorted(name for name, item in names.items() if item.type == stat.S_IFREG)
            if name in names and names[name].type == stat.S_IFDIR:
                continue
            if action == "add":
                names[name] = trees.random_item(rng, name, random_kind(rng), large=False)
            elif files:
                names[name] = names[rng.choice(files)]
        elif action == "unlink":
            names[path] = copy.deepcopy(names[path])
        elif action == "change":
            change_one_thing(rng, names[path])


def on_disk(names: Names, root: Path) -> Path:
    root.mkdir()
    trees.materialise(items_of(names), root)
    return root


def expected_model(
    tree: Path, *, epoch: int | None = None, hardlinks: str = "preserve", skip_xattrs: bool = False
) -> oracles.Model:
    """The model of the directory TREE as a build with these settings stores it."""

    def stored(node: oracles.Node) -> oracles.Node:
        mtime = node.mtime if epoch is None else epoch * SECOND
        return dataclasses.replace(node, mtime=mtime, xattrs={} if skip_xattrs else node.xattrs)

    model = oracles.tree_model(tree)
    return (
        {path: stored(node) for path, node in model.items()}
        if hardlinks == "copy"
        else changed(model, stored)
    )


def assert_is(found: oracles.Model, expected: oracles.Model) -> None:
    """Equal in everything; a time that agrees "to the second if either side has only seconds"
    counts as equal.
    """
    for path in found.keys() & expected.keys():
        ours, theirs = found[path].mtime, expected[path].mtime
        if ours // SECOND == theirs // SECOND and (ours % SECOND == 0 or theirs % SECOND == 0):
            found[path].mtime = theirs
    differences = oracles.compare(found, expected)
    assert differences == [], "\n".join(differences)


def round_trip(
    items: list[trees.Item],
    rng: random.Random,
    times: int,
    options: Sequence[dict[str, Any]],
    epoch: int | None,
) -> None:
    """A parent, and images each upon the former and each of a tree changed TIMES; OPTIONS are the
    settings of each build.
    """
    names = names_of(items)
    with tempfile.TemporaryDirectory() as directory:
        former = None
        for number, settings_ in enumerate(options):
            if number:
                change(rng, names, times)
            tree = on_disk(names, Path(directory) / f"tree-{number}")
            layout = Path(directory) / f"layout-{number}"
            # what user.checksum.sha256 claims in these trees is not true
            former = built(
                layout,
                image_of(tree, former),
                epoch=epoch,
                trust_checksum_xattrs=False,
                **settings_,
            )
            model_options = {
                name: value for name, value in settings_.items() if name != "compression"
            }
            assert_is(model_of(former), expected_model(tree, epoch=epoch, **model_options))
            assert len(clients.layer_tars(former)) == number + 1


def replace_content(path: Path, content: bytes) -> None:
    """Other content of the same size under the same mtime."""
    status = path.stat()
    assert status.st_size == len(content)
    path.write_bytes(content)
    os.utime(path, ns=(0, status.st_mtime_ns))


LAYER = "application/vnd.oci.image.layer.v1.tar"

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "+gzip": gzip.compress,
    "+zstd": zstandard.ZstdCompressor().compress,
}

Entries = list[tuple[str, bytes, str]]

BASE: Entries = [("d/", DIR, ""), ("d/a", REG, ""), ("d/b", REG, ""), ("./c", REG, "")]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "d" / "e").mkdir(parents=True)
    for name in ("a", "d/b", "d/e/c"):
        (tree / name).write_bytes(name.encode().ljust(512))
        os.utime(tree / name, ns=(0, EPOCH * SECOND))
    (tree / "link").symlink_to("d/b")
    os.link(tree / "a", tree / "d" / "linked")
    return tree


TAR = tar_of(*BASE).getvalue()

DEEP = b"a/" * 32000
