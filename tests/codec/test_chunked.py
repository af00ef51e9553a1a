"""Layers as zstd:chunked (contract: codec-chunked, codec-chunked-checked): the format, read by
plain Python; the archive that a client rebuilds; the same bytes always."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import random
import shutil
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Any, NamedTuple

import clients
import pytest
import trees
import zstandard
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from build_oci.codec.chunked import check, container, encoder
from build_oci.config.load import load_config
from build_oci.pipeline import build

EPOCH = 1_700_000_000
KEY = "io.github.containers.zstd-chunked."
HERE = Path(__file__).parent.parent
GO_PROGRAM = HERE / "support" / "chunked_go"


class Layer(NamedTuple):
    """A layer as its blob and its descriptor have it."""

    blob: bytes
    annotations: dict[str, str]
    diff_id: str
    digest: str

    @property
    def tar(self) -> bytes:
        return plain(self.blob)

    def span(self, key: str) -> bytes:
        offset, size, plain_size, *_ = (
            int(number) for number in self.annotations[KEY + key].split(":")
        )
        assert self.blob[offset - 8 : offset] == b"\x50\x2a\x4d\x18" + struct.pack("<I", size)
        content = plain(self.blob[offset : offset + size])
        assert len(content) == plain_size
        return content

    @property
    def toc(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.span("manifest-position"))
        return document

    @property
    def tar_split(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.span("tarsplit-position").splitlines()]


def plain(data: bytes) -> bytes:
    with zstandard.ZstdDecompressor().stream_reader(
        io.BytesIO(data), read_across_frames=True
    ) as reader:
        return reader.read()


def built(
    root: Path,
    *,
    workers: int = 2,
    epoch: int | None = EPOCH,
    warnings: list[str] | None = None,
    **options: object,
) -> Layer:
    """The layer that the product makes of ROOT."""
    settings = {name.replace("_", "-"): value for name, value in options.items()}
    document = clients.layer_config(root, compression="zstd:chunked", **settings)
    heard: list[str] = [] if warnings is None else warnings
    with tempfile.TemporaryDirectory() as output:
        build(
            load_config(json.dumps(document)),
            output=Path(output),
            workers=workers,
            epoch=epoch,
            warn=heard.append,
        )
        return layer_of(Path(output))


def layer_of(layout: Path) -> Layer:
    manifest = clients.manifest_of(layout)
    (descriptor,) = manifest["layers"]
    (diff_id,) = json.loads(clients.blob(layout, manifest["config"]["digest"]))["rootfs"][
        "diff_ids"
    ]
    assert descriptor["mediaType"] == "application/vnd.oci.image.layer.v1.tar+zstd"
    return Layer(
        clients.blob(layout, descriptor["digest"]),
        descriptor.get("annotations", {}),
        diff_id,
        descriptor["digest"],
    )


def rebuilt(layer: Layer) -> bytes:
    """What a client that has pulled the layer in parts makes of files and tar-split."""
    files: dict[str, bytes] = {}
    entries = layer.toc["entries"]
    for number, entry in enumerate(entries):
        if entry["type"] != "reg" or not entry.get("size"):
            continue
        chunks = [entry]
        while (number := number + 1) < len(entries) and entries[number]["type"] == "chunk":
            chunks.append(entries[number])
            assert chunks[-1]["name"] == entry["name"]
        content = b""
        for chunk, end in zip(
            chunks, [*(chunk["offset"] for chunk in chunks[1:]), entry["endOffset"]], strict=True
        ):
            piece = plain(layer.blob[chunk["offset"] : end])
            assert len(content) == chunk.get("chunkOffset", 0)
            if len(chunks) > 1:
                assert len(piece) == chunk["chunkSize"]
                assert "sha256:" + hashlib.sha256(piece).hexdigest() == chunk["chunkDigest"]
                assert (chunk.get("chunkType") == "zeros") == (
                    len(piece) >= 1024 and not any(piece)
                )
            content += piece
        assert len(content) == entry["size"]
        assert "sha256:" + hashlib.sha256(content).hexdigest() == entry["digest"]
        files[entry["name"]] = content
    archive = b""
    for position, line in enumerate(layer.tar_split):
        assert line["position"] == position
        if line["type"] == 2:
            archive += base64.b64decode(line["payload"])
        elif line.get("size"):
            archive += files[line["name"]]
            assert len(base64.b64decode(line["payload"])) == 8
    return archive


TYPES = {
    b"0": "reg",
    b"1": "hardlink",
    b"2": "symlink",
    b"3": "char",
    b"4": "block",
    b"5": "dir",
    b"6": "fifo",
}


def expected_entries(tar: bytes) -> list[dict[str, Any]]:
    """The TOC's entries as the archive's headers have them, without places and chunks."""
    found = []
    with tarfile.open(
        fileobj=io.BytesIO(tar), encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for member in archive:
            time = Decimal(member.pax_headers.get("mtime", str(int(member.mtime))))
            seconds = int(time.to_integral_value(rounding=ROUND_FLOOR))
            fraction = f"{time - seconds:f}"[2:].rstrip("0")
            moment = (datetime(1970, 1, 1) + timedelta(seconds=seconds)).isoformat()
            values: dict[str, Any] = {
                "type": TYPES[member.type],
                "name": member.name + "/" * member.isdir() if member.name != "." else "./",
                "linkName": member.linkname,
                "mode": member.mode,
                "size": member.size if member.isreg() else 0,
                "uid": member.uid,
                "gid": member.gid,
                "modtime": f"{moment}{'.' + fraction if fraction else ''}Z" if time else None,
                "devMajor": member.devmajor,
                "devMinor": member.devminor,
                "xattrs": {
                    name.removeprefix("SCHILY.xattr."): base64.b64encode(
                        value.encode("utf-8", "surrogateescape")
                    ).decode()
                    for name, value in member.pax_headers.items()
                    if name.startswith("SCHILY.xattr.")
                },
                "digest": "",
            }
            if member.isreg() and member.size:
                content = archive.extractfile(member)
                assert content is not None
                values["digest"] = "sha256:" + hashlib.sha256(content.read()).hexdigest()
            found.append({key: value for key, value in values.items() if value})
    return found


PLACES = ("offset", "endOffset", "chunkSize", "chunkOffset", "chunkDigest", "chunkType")


def assert_sound(layer: Layer) -> None:
    """Everything in the layer says the same."""
    tar = layer.tar
    assert "sha256:" + hashlib.sha256(tar).hexdigest() == layer.diff_id
    assert rebuilt(layer) == tar
    entries = [
        {key: value for key, value in one.items() if key not in PLACES}
        for one in layer.toc["entries"]
        if one["type"] != "chunk"
    ]
    assert entries == expected_entries(tar)
    toc = [int(number) for number in layer.annotations[KEY + "manifest-position"].split(":")]
    tar_split = [int(number) for number in layer.annotations[KEY + "tarsplit-position"].split(":")]
    packed_toc, packed_tar_split = (
        layer.blob[offset : offset + size] for offset, size, *_ in (toc, tar_split)
    )
    assert (
        layer.annotations[KEY + "manifest-checksum"]
        == "sha256:" + hashlib.sha256(packed_toc).hexdigest()
    )
    assert layer.toc["tarSplitDigest"] == "sha256:" + hashlib.sha256(packed_tar_split).hexdigest()
    assert layer.toc["version"] == toc[3] == 1
    assert layer.blob[-72:-64] == b"\x50\x2a\x4d\x18" + struct.pack("<I", 64)
    assert layer.blob[-64:] == struct.pack("<7Q", *toc, *tar_split) + b"GNUlInUx"
    assert layer.blob.startswith(b"\x28\xb5\x2f\xfd")


def large_tree(root: Path) -> None:
    """Files that several blocks hold, and holes over the edges of blocks."""
    rng = random.Random(5)
    root.mkdir()
    block = 4 << 20
    (root / "a-short").write_bytes(b"short")
    (root / "b-two").write_bytes(rng.randbytes(block + 1))
    holes = bytearray(rng.randbytes(3 * block))
    for number in (1, 2):
        at = number * block
        holes[at - 2000 * number : at + 70_000] = bytes(2000 * number + 70_000)
    holes[-500:] = bytes(500)
    (root / "c-holes").write_bytes(holes)
    (root / "d-zeros").write_bytes(b"")
    os.truncate(root / "d-zeros", 2 * block + 77)
    (root / "e-text").write_bytes(b"the same line over and over\n" * 400_000)
    (root / "f-megabyte").write_bytes(rng.randbytes(1 << 20))
    os.link(root / "b-two", root / "z-link")


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


def check_layer(layer: Layer) -> list[str]:
    with tempfile.TemporaryFile() as file:
        file.write(layer.blob)
        file.flush()
        return check.chunked_problems(
            file.fileno(),
            len(layer.blob),
            layer.annotations,
            (layer.diff_id, len(layer.tar)),
            lambda: None,
        )


def resealed(
    layer: Layer,
    toc: Callable[[dict[str, Any]], object] = lambda _: None,
    lines: Callable[[list[Any]], object] = lambda _: None,
) -> Layer:
    """LAYER with its metadata changed, and every digest and position made right again."""
    document, tar_split = layer.toc, layer.tar_split
    lines(tar_split)
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in tar_split).encode()
    packed = zstandard.compress(text)
    document["tarSplitDigest"] = "sha256:" + hashlib.sha256(packed).hexdigest()
    toc(document)
    toc_text = json.dumps(document).encode()
    packed_toc = zstandard.compress(toc_text)
    start = int(layer.annotations[KEY + "manifest-position"].split(":")[0])
    tar_split_at = start + len(packed_toc) + 8
    metadata = container.Metadata(
        "sha256:" + hashlib.sha256(packed_toc).hexdigest(),
        container.Span(start, len(packed_toc), len(toc_text)),
        container.Span(tar_split_at, len(packed), len(text)),
    )
    blob = layer.blob[: start - 8]
    for content in (packed_toc, packed, metadata.footer()):
        blob += container.skippable(len(content)) + content
    return layer._replace(blob=blob, annotations=metadata.annotations())


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
    "is no object": lambda document: document["entries"].append(5),
    "entries that the archive lacks": lambda document: document["entries"].append(
        dict(document["entries"][-1])
    ),
    "has a mode of “./a” that is no number": entry("./a", mode="x"),
    "a time of “./a” that is none": entry("./a", modtime="yesterday"),
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
    bytes_of = bytearray(base64.b64decode(lines[-1]["payload"]))
    bytes_of[-1] ^= 1
    lines[-1]["payload"] = base64.b64encode(bytes_of).decode()


BROKEN_LINES: dict[str, Callable[[list[Any]], Any]] = {
    "give another archive": flip_padding,
    "another checksum of “./a”": change_line(3, payload=base64.b64encode(bytes(8)).decode()),
    "the tar-split names “./x”": change_line(3, name="./x"),
    "another size of “./a”": change_line(3, size=6),
    "neither bytes nor a content": change_line(3, type=7),
    "without headers": change_line(2, payload=""),
    "give a longer archive": change_line(-1, payload=base64.b64encode(bytes(1 << 20)).decode()),
    "a checksum that is not base64": change_line(3, payload="!"),
}


@pytest.mark.parametrize("expected", BROKEN_LINES)
def test_a_broken_tar_split(sound: Layer, expected: str) -> None:
    (problem,) = check_layer(resealed(sound, lines=BROKEN_LINES[expected]))
    assert expected in problem


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


# Parents


def with_layer(layer: Layer, root: Path, annotations: dict[str, str]) -> Path:
    """The layout that `build` made, with other annotations of its layer."""
    layout = root / "parent"
    document = clients.layer_config(root / "tree", compression="zstd:chunked")
    build(load_config(json.dumps(document)), output=layout, workers=2, epoch=EPOCH)
    manifest = clients.manifest_of(layout)
    manifest["layers"][0]["annotations"] = annotations
    data = json.dumps(manifest).encode()
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs" / "sha256" / digest).write_bytes(data)
    index = clients.index_of(layout)
    index["manifests"][0].update(digest=f"sha256:{digest}", size=len(data))
    (layout / "index.json").write_text(json.dumps(index))
    return layout


@pytest.mark.parametrize("holds", [True, False])
def test_annotations_of_a_parent(tmp_path: Path, holds: bool) -> None:
    """Clients pull by the metadata, which the build never sees otherwise: so what does not hold is
    not carried.
    """
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"content")
    layer = built(tmp_path / "tree")
    annotations = dict(layer.annotations, other="kept")
    if not holds:
        annotations[KEY + "manifest-checksum"] = "sha256:" + "0" * 64
    parent = with_layer(layer, tmp_path, annotations)
    warnings: list[str] = []
    image = {"architecture": "amd64", "os": "linux", "parent": {"image": str(parent)}}
    build(
        load_config(json.dumps({"compression": "zstd:chunked", "images": [image]})),
        output=tmp_path / "out",
        workers=2,
        warn=warnings.append,
    )
    (carried,) = clients.manifest_of(tmp_path / "out")["layers"]
    assert carried["digest"] == layer.digest
    assert carried["annotations"] == (annotations if holds else {"other": "kept"})
    assert len(warnings) == (not holds)


def test_a_parent_of_another_codec(tmp_path: Path) -> None:
    """Its members are not known while it streams by, so it becomes plain zstd, and that is said."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"content")
    build(
        load_config(json.dumps(clients.layer_config(tmp_path / "tree", compression="gzip"))),
        output=tmp_path / "parent",
        workers=2,
    )
    (tmp_path / "tree" / "new").write_bytes(b"more")
    document = clients.layer_config(tmp_path / "tree", compression="zstd:chunked")
    document["images"][0]["parent"] = {"image": str(tmp_path / "parent")}
    warnings: list[str] = []
    build(
        load_config(json.dumps(document)), output=tmp_path / "out", workers=2, warn=warnings.append
    )
    below, above = clients.manifest_of(tmp_path / "out")["layers"]
    assert "annotations" not in below
    assert KEY + "manifest-checksum" in above["annotations"]
    assert ["becomes plain zstd" in line for line in warnings] == [True]


# The reader of podman, buildah and CRI-O


@pytest.fixture(scope="session")
def go_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """support/chunked_go, built without a network."""
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None:
        pytest.skip("Go is not installed")
    program = tmp_path_factory.mktemp("go") / "chunked"
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOPROXY": "off",
        "GOFLAGS": "-mod=readonly -buildvcs=false",
    }
    done = subprocess.run(
        [
            go,
            "build",
            "-tags",
            "exclude_graphdriver_btrfs,containers_image_openpgp",
            "-o",
            program,
            ".",
        ],
        cwd=GO_PROGRAM,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"the Go modules are not in the cache: {done.stderr[-300:]}")
    return program


def stored(layer: Layer, folder: Path, name: str) -> tuple[Path, Path]:
    blob, annotations = folder / f"{name}.zst", folder / f"{name}.json"
    blob.write_bytes(layer.blob)
    annotations.write_text(json.dumps(layer.annotations))
    return blob, annotations


def odd_root(root: Path) -> None:
    large_tree(root)
    for number in range(60):
        (root / f"many-{number}").write_bytes(random.Random(number).randbytes(number * 997))
    folder = root / "d"
    for _ in range(20):
        folder /= "a-rather-long-name-of-a-directory"
    folder.mkdir(parents=True)
    (folder / 'quote"back\\slash\nü').write_bytes(b"")
    (folder / "link").symlink_to("../" * 30 + "x" * 120)
    os.utime(folder / "link", ns=(0, 1_234_567_890_123_456_789), follow_symlinks=False)
    if trees.succeeds(lambda: os.setxattr(root / "a-short", "user.odd", b"\0\xff=\n")):
        os.setxattr(root / "d", "user.folder", b"value")


@pytest.mark.clients
@pytest.mark.slow
def test_the_reader_of_podman(tmp_path: Path, go_program: Path) -> None:
    """It takes the layer, whole and with an old one at hand, and rebuilds an archive of the right
    digest.
    """
    clients.need_root()
    odd_root(tmp_path / "root")
    old = built(tmp_path / "root", epoch=None)
    (tmp_path / "root" / "many-7").write_bytes(b"changed")
    new = built(tmp_path / "root", epoch=None)
    (tmp_path / "whole").mkdir()
    done = json.loads(
        clients.run(go_program, "apply", *stored(old, tmp_path, "old"), tmp_path / "whole")
    )
    assert done["diff_id"] == old.diff_id
    assert done["size"] == len(old.tar)
    (tmp_path / "part").mkdir()
    (tmp_path / "base").mkdir()
    arguments = [
        *stored(new, tmp_path, "new"),
        tmp_path / "part",
        *stored(old, tmp_path, "old"),
        tmp_path / "base",
    ]
    done = json.loads(clients.run(go_program, "apply", *arguments))
    assert done["diff_id"] == new.diff_id
    assert done["fetched"] < len(new.blob) // 20
    for path in (tmp_path / "root").rglob("*"):
        copy = tmp_path / "part" / path.relative_to(tmp_path / "root")
        assert os.lstat(copy).st_mode == os.lstat(path).st_mode
        if path.is_file() and not path.is_symlink():
            assert copy.read_bytes() == path.read_bytes()


@pytest.mark.clients
@pytest.mark.slow
def test_the_writer_of_podman(tmp_path: Path, go_program: Path) -> None:
    """Its layer of our archive has our table of contents, chunk by chunk, and passes our check."""
    odd_root(tmp_path / "root")
    ours = built(tmp_path / "root")
    (tmp_path / "layer.tar").write_bytes(ours.tar)
    blob, annotations = tmp_path / "theirs.zst", tmp_path / "theirs.json"
    clients.run(go_program, "write", tmp_path / "layer.tar", blob, annotations)
    theirs = ours._replace(blob=blob.read_bytes(), annotations=json.loads(annotations.read_text()))
    assert check_layer(theirs) == []
    without = [
        [
            {k: v for k, v in one.items() if k not in ("offset", "endOffset")}
            for one in layer.toc["entries"]
        ]
        for layer in (ours, theirs)
    ]
    assert without[0] == without[1]
