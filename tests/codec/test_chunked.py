"""Layers as zstd:chunked (contract: codec-chunked, codec-chunked-checked): the format, read by
plain Python; the archive that a client rebuilds; the same bytes always."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clients
import pytest
import trees
import zstandard
from archives import sealed
from chunked_layers import (
    EPOCH,
    KEY,
    Layer,
    assert_sound,
    built,
    check_layer,
    large_tree,
    plain,
    resealed,
)
from fuzz_chunked import ESTARGZ
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from build_oci.codec.chunked import container, encoder
from build_oci.config.load import load_config
from build_oci.pipeline import build

pytestmark = pytest.mark.once


@examples(max_examples=40, deadline=None)
@given(items=trees.trees(), epoch=st.sampled_from([None, 0, EPOCH]), workers=st.integers(1, 3))
def test_odd_trees(items: list[trees.Item], epoch: int | None, workers: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        trees.materialise(items, directory)
        warnings: list[str] = []
        layer = built(Path(directory), workers=workers, epoch=epoch, warnings=warnings)
        if any("plain zstd" in line for line in warnings):
            assert not layer.annotations
            return
        assert_sound(layer)


def test_files_of_several_blocks(tmp_path: Path) -> None:
    large_tree(tmp_path / "root")
    layer = built(tmp_path / "root")
    assert_sound(layer)
    kinds = {entry["name"]: entry.get("chunkType") for entry in layer.toc["entries"]}
    assert kinds["./d-zeros"] is None  # one chunk has no chunk's keys
    holes = [entry for entry in layer.toc["entries"] if entry.get("chunkType") == "zeros"]
    assert [(hole["name"], hole["chunkOffset"], hole["chunkSize"]) for hole in holes] == [
        ("./c-holes", (4 << 20) - 2000, 72_000),
        ("./c-holes", (8 << 20) - 4000, 74_000),
    ]
    others = [built(tmp_path / "root", workers=workers) for workers in (1, 5)]
    assert [other.digest for other in others] == [layer.digest] * 2
    assert check_layer(layer) == []


def test_levels(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "text").write_bytes(
        b"".join(b"%d lines\n" % number for number in range(30_000))
    )
    sizes = []
    for level in (1, 3, 9, 19):
        layer = built(tmp_path / "root", compression_level=level)
        assert_sound(layer)
        sizes.append(len(layer.blob))
    assert len(set(sizes)) == 4
    assert min(sizes) == sizes[-1]


def test_what_cannot_be_said(tmp_path: Path) -> None:
    """A name that is no UTF-8 makes a plain layer, and a warning that names it."""
    root = tmp_path / "root"
    root.mkdir()
    (root / os.fsdecode(b"caf\xe9")).write_bytes(b"x")
    warnings: list[str] = []
    layer = built(root, warnings=warnings)
    assert not layer.annotations
    assert "sha256:" + hashlib.sha256(layer.tar).hexdigest() == layer.diff_id
    (warning,) = warnings
    assert "is written as plain zstd, because a name is not UTF-8: /caf" in warning


def test_a_whiteout_with_a_content(tmp_path: Path) -> None:
    """A client makes no file of it that it could build the archive from again."""
    root = tmp_path / "root"
    root.mkdir()
    (root / ".wh.empty").write_bytes(b"")
    assert built(root).annotations
    (root / ".wh.full").write_bytes(b"x")
    warnings: list[str] = []
    assert not built(root, warnings=warnings).annotations
    assert any("because a whiteout has a content: /.wh.full" in line for line in warnings)


SPLIT = {"components": [{"paths": {"first": ["d/a"], "second": ["d/b", "e/b"]}}]}


def split_layers(root: Path, warnings: list[str]) -> list[Layer]:
    """The layers of ROOT by component, with the times that the files have."""
    document = clients.layer_config(root, compression="zstd:chunked")
    document["images"][0]["split"] = SPLIT
    with tempfile.TemporaryDirectory() as output:
        build(
            load_config(json.dumps(document)), output=Path(output), workers=2, warn=warnings.append
        )
        manifest = clients.manifest_of(Path(output))
        config = json.loads(clients.blob(Path(output), manifest["config"]["digest"]))
        return [
            Layer(
                clients.blob(Path(output), one["digest"]), one.get("annotations", {}), diff_id, ""
            )
            for one, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True)
        ]


def test_split(tmp_path: Path) -> None:
    """contract: split-directories. Layers whose directories have another time than the tree's; and
    one that cannot be said is named by its components.
    """
    for name in ("d/a", "e/b"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "d" / "b").write_bytes(b"")
    warnings: list[str] = []
    layers = split_layers(tmp_path, warnings)
    assert len(layers) == 3
    for layer in layers:
        assert_sound(layer)
    assert warnings == []
    (tmp_path / "d" / "b").unlink()
    (tmp_path / "d" / "b").symlink_to(os.fsdecode(b"caf\xe9"))
    made = [
        KEY + "manifest-position" in one.annotations for one in split_layers(tmp_path, warnings)
    ]
    assert made.count(False) == 1
    (warning,) = warnings
    assert "of 3 (second): its layer is written as plain zstd, because" in warning


@pytest.mark.parametrize("limit", [300, 600])
def test_a_table_of_contents_that_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """Seen before packing where the headers alone are too much, else while packing."""
    root = tmp_path / "root"
    root.mkdir()
    for name in "abc":
        (root / name).write_bytes(b"x")
    monkeypatch.setattr(encoder, "TOC_LIMIT", limit)
    warnings: list[str] = []
    layer = built(root, warnings=warnings)
    assert not layer.annotations
    assert "sha256:" + hashlib.sha256(layer.tar).hexdigest() == layer.diff_id
    assert ["table of contents is larger" in line for line in warnings] == [True]


def test_metadata_wait_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they are many; the bytes are the same."""
    large_tree(tmp_path / "root")
    layer = built(tmp_path / "root")
    monkeypatch.setattr(encoder, "_SPOOL", 100)
    assert built(tmp_path / "root").digest == layer.digest


def test_an_empty_tree(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    assert_sound(built(tmp_path / "root"))


# The check of foreign layers


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Layer:
    root = tmp_path_factory.mktemp("sound") / "root"
    root.mkdir()
    (root / "a").write_bytes(b"first")
    (root / "b").write_bytes(random.Random(1).randbytes(300_000) + bytes(5000) + b"end")
    (root / "link").symlink_to("a")
    (root / "empty").write_bytes(b"")
    return built(root)


def entry(name: str, /, **changes: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        next(one for one in document["entries"] if one["name"] == name).update(changes)

    return change


def of_chunks(key: str, new: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        chunk = next(one for one in document["entries"] if one["type"] == "chunk")
        chunk[key] = new(chunk[key])

    return change


def of_last_chunk(**changes: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        [*_, chunk] = (one for one in document["entries"] if one["type"] == "chunk")
        chunk.update(changes)

    return change


def remove_last(document: dict[str, Any]) -> None:
    document["entries"].pop()


BROKEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "says the mode of “./a” is “2048”": entry("./a", mode=0o4000),
    "says the uid of “./a”": entry("./a", uid=12345),
    "says the size of “./a”": entry("./a", size=4),
    "says the modtime of “./a”": entry("./a", modtime="2001-01-01T00:00:00Z"),
    "says the name": entry("./a", name="./c"),
    "says the linkName of “./link”": entry("./link", linkName="b"),
    "says the xattrs of “./a”": entry("./a", xattrs={"user.x": "eA=="}),
    "says the type of “./link”": entry("./link", type="reg"),
    "“./a” is not what its digest says": entry("./a", digest="sha256:" + "0" * 64),
    "has no digest of “./a”": entry("./a", digest=""),
    "do not follow each other": of_chunks("chunkOffset", lambda place: place + 1),
    "of “./b” is not what its digest says": of_chunks(
        "chunkDigest", lambda _: "sha256:" + "1" * 64
    ),
    "of “./b” is not of its size": of_chunks("chunkSize", lambda size: size - 1),
    "chunks of “./b” do not": of_chunks("offset", lambda offset: 1 << 40),
    "is of another file": of_chunks("name", lambda _: "./a"),
    "lacks “./link”": remove_last,
    "only 1 is known": lambda document: document.update(version=2),
    "tar-split is not what its digest says": lambda document: document.update(
        tarSplitDigest="sha256:" + "2" * 64
    ),
    "has chunks of “./link”, no file": lambda document: document["entries"].insert(
        next(at for at, one in enumerate(document["entries"]) if one["name"] == "./link") + 1,
        {"type": "chunk", "name": "./link"},
    ),
    "has a digest of “./link” that is no string": entry("./link", digest=1),
    "has a chunkOffset of “./link” that is no number": entry("./link", chunkOffset=None),
    "has a mode of “./a” that is no number": entry("./a", mode=True),
    "has a size of “./a” that is no number": entry("./a", size=1 << 63),
    "a key of “./a” twice": entry("./a", MODE=0o644),
    "has the version “True”": lambda document: document.update(version=True),
    "tarSplitDigest that is no string": lambda document: document.update(tarSplitDigest=None),
    "without a name": entry("./a", xattrs={"": "eA=="}),
    "chunks of “./b” do not follow": of_last_chunk(endOffset=1),
    "ends behind that one's offset": entry("./link", offset=1),
    "is no object": lambda document: document["entries"].append(5),
    "entries that the archive lacks": lambda document: document["entries"].append(
        dict(document["entries"][-1])
    ),
    "a time of “./a” that is none": entry("./a", modtime="yesterday"),
    "says the modtime of “./link” is “-6": entry("./link", modtime="0001-01-01T00:00:00+23:59"),
    "says the modtime of “./link” is “2": entry("./link", modtime="9999-12-31T23:59:59-23:59"),
    "a time of “./link” that is none": entry("./link", modtime="2001-01-01T00:00:00.٣Z"),
    "xattrs of “./a”": entry("./a", xattrs=[1]),
}


@pytest.mark.parametrize("expected", BROKEN)
def test_a_broken_table_of_contents(sound: Layer, expected: str) -> None:
    assert check_layer(sound) == []
    assert check_layer(resealed(sound)) == []
    (problem,) = check_layer(resealed(sound, BROKEN[expected]))
    assert expected in problem


def change_line(number: int, **changes: Any) -> Callable[[list[Any]], None]:
    return lambda lines: lines[number].update(changes)


def flip_padding(lines: list[Any]) -> None:
    """Of the content of `./a`, which no reader looks at."""
    bytes_of = bytearray(base64.b64decode(lines[4]["payload"]))
    bytes_of[0] ^= 1
    lines[4]["payload"] = base64.b64encode(bytes_of).decode()


def split_line(lines: list[Any]) -> None:
    """The headers of `./a` in two lines, which give the same archive."""
    data = base64.b64decode(lines[2]["payload"])
    pieces = (data[:100], data[100:])
    lines[2:3] = [{"type": 2, "payload": base64.b64encode(one).decode()} for one in pieces]


def of_headers(change: Callable[[bytearray], object]) -> Callable[[list[Any]], None]:
    """CHANGE the headers of `./a`."""

    def changed(lines: list[Any]) -> None:
        data = bytearray(base64.b64decode(lines[2]["payload"]))
        change(data)
        lines[2]["payload"] = base64.b64encode(data).decode()

    return changed


def shorten_padding(lines: list[Any]) -> None:
    """Behind `./a`."""
    lines[4]["payload"] = base64.b64encode(bytes(506)).decode()


BROKEN_LINES: dict[str, Callable[[list[Any]], Any]] = {
    "give another archive": flip_padding,
    "another checksum of “./a”": change_line(3, payload=base64.b64encode(bytes(8)).decode()),
    "the tar-split names “./x”": change_line(3, name="./x"),
    "another size of “./a”": change_line(3, size=6),
    "neither bytes nor a content": change_line(3, type=7),
    "without headers": change_line(2, payload=""),
    "give a longer archive": change_line(-1, payload=base64.b64encode(bytes(1 << 20)).decode()),
    "another checksum of “./a": change_line(3, payload=None),
    "that is cut off": split_line,
    "whose checksum does not hold": of_headers(lambda data: data.__setitem__(-400, 1)),
    "lacks some of the padding": shorten_padding,
    "without its content": lambda lines: lines.__delitem__(slice(3, None)),
    "a position of “./a” that is no number": change_line(3, position=1.5),
    "has a line with a key of “./a” twice": change_line(3, SIZE=5),
    "is no object": lambda lines: lines.insert(3, 5),
    "a checksum that is not base64": change_line(3, payload="!"),
}


@pytest.mark.parametrize("expected", BROKEN_LINES)
def test_a_broken_tar_split(sound: Layer, expected: str) -> None:
    (problem,) = check_layer(resealed(sound, lines=BROKEN_LINES[expected]))
    assert expected in problem


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("./a/", "is that of a directory"),
        ("./d/.", "is that of a directory"),
        ("./.wh.a", "whiteout “./.wh.a” has a content"),
    ],
)
def test_a_name_that_no_client_reads_a_content_from(sound: Layer, name: str, expected: str) -> None:
    def rename(headers: bytearray) -> None:
        at = len(headers) - 512
        headers[at : at + 100] = name.encode().ljust(100, b"\0")
        headers[at:] = sealed(bytes(headers[at:]))

    def lines(tar_split: list[Any]) -> None:
        of_headers(rename)(tar_split)
        change_line(3, name=name)(tar_split)

    (problem,) = check_layer(resealed(sound, entry("./a", name=name), lines))
    assert expected in problem


@pytest.mark.parametrize("spelling", ["./a", "a", "./a/"])
def test_a_name_that_stands_twice(sound: Layer, spelling: str) -> None:
    """Clients take no such layer, whatever the archive."""

    def lines(tar_split: list[Any]) -> None:
        headers = bytearray(base64.b64decode(tar_split[2]["payload"]))
        at = len(headers) - 512
        headers[at : at + 100] = spelling.encode().ljust(100, b"\0")
        headers[at : at + 512] = sealed(bytes(headers[at : at + 512]))
        payload = base64.b64encode(bytes(507) + headers).decode()
        tar_split[4:4] = [
            {"type": 2, "payload": payload, "position": 4},
            {**tar_split[3], "name": spelling},
        ]

    def toc(document: dict[str, Any]) -> None:
        first = next(one for one in document["entries"] if one["name"] == "./a")
        document["entries"].insert(
            document["entries"].index(first) + 1, {**first, "name": spelling}
        )

    (problem,) = check_layer(resealed(sound, toc, lines))
    assert f"the name “{spelling}” stands twice" in problem


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (
            "manifest-checksum",
            "sha256:" + "0" * 64,
            "table of contents is not what its digest says",
        ),
        ("manifest-checksum", "md5:0", "is no SHA-256 digest"),
        ("manifest-checksum", None, "but no io.github"),
        ("manifest-position", "1:2:3", "is not 4 numbers"),
        ("manifest-position", "1:2:3:2", "names the type 2"),
        ("manifest-position", "99999999:20:30:1", "outside of the blob"),
        ("manifest-position", "8:200000000:30:1", "larger than the 150 MiB"),
        ("manifest-position", "20:20:30:1", "not in a skippable frame"),
        ("tarsplit-position", "-1:2:3", "is not 3 numbers"),
        ("tarsplit-position", "0:2:3", "outside of the blob"),
    ],
)
def test_broken_annotations(sound: Layer, key: str, value: str | None, expected: str) -> None:
    annotations = {**sound.annotations, KEY + key: value}
    changed = {name: text for name, text in annotations.items() if text is not None}
    (problem,) = check_layer(sound._replace(annotations=changed))
    assert expected in problem


def test_annotations_of_two_formats(sound: Layer) -> None:
    """Clients take neither."""
    annotations = {**sound.annotations, ESTARGZ: "sha256:" + "0" * 64}
    (problem,) = check_layer(sound._replace(annotations=annotations))
    assert ESTARGZ in problem


@examples(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False))
def test_damaged_metadata(rng: random.Random) -> None:
    """Whatever stands there ends in a problem or in nothing wrong, never in another exception."""
    layer = small_layer()

    def damaged(text: bytes) -> bytes:
        data = bytearray(text)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            data[at : at + rng.randint(0, 3)] = rng.choice(
                [b"", b"{", b"[", b'"', b"\xff", b"9" * 30, b"null", b"]", b"-1", b"\\"]
            )
        return bytes(data)

    toc_text, text = layer.span("manifest-position"), layer.span("tarsplit-position")
    packed = zstandard.compress(damaged(text) if rng.random() < 0.5 else text)
    start = int(layer.annotations[KEY + "manifest-position"].split(":")[0])
    toc_text = damaged(toc_text) if rng.random() < 0.7 else toc_text
    packed_toc = zstandard.compress(toc_text)
    text = plain(packed)
    metadata = container.Metadata(
        "sha256:" + hashlib.sha256(packed_toc).hexdigest(),
        container.Span(start, len(packed_toc), len(toc_text)),
        container.Span(start + len(packed_toc) + 8, len(packed), len(text)),
    )
    blob = (
        layer.blob[: start - 8]
        + container.skippable(len(packed_toc))
        + packed_toc
        + container.skippable(len(packed))
        + packed
    )
    problems = check_layer(layer._replace(blob=blob, annotations=metadata.annotations()))
    assert len(problems) <= 1


_LAYERS: list[Layer] = []


def small_layer() -> Layer:
    if not _LAYERS:
        with tempfile.TemporaryDirectory() as directory:
            root = Path(directory)
            (root / "a").write_bytes(b"first")
            (root / "b").symlink_to("a")
            _LAYERS.append(built(root))
    return _LAYERS[0]
