"""contract: cli-verify. `build-oci verify` recomputes everything and lists every mismatch; for
layouts of any builder.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import archives
import clients
import pytest
import zstandard
from clients import Document
from layouts import (
    CONFIG,
    FIRST,
    FIRST_DIGEST,
    INDEX,
    LAYER,
    MANIFEST,
    SECOND,
    ZEROS,
    Layout,
    archive,
    image,
    set_to,
)

from build_oci._native.lower import Scan
from build_oci.cli.command import main
from build_oci.config.load import load_config
from build_oci.errors import UsageError
from build_oci.pipeline import build
from build_oci.verify import layers, names
from build_oci.verify.verifier import verify

ONLY = archive(("only", b"only"))


def found(layout: Path) -> tuple[list[str], list[str]]:
    """The mismatches and the notes, without the path of LAYOUT."""
    problems: list[str] = []
    notes: list[str] = []
    verified = verify(str(layout), workers=2, problem=problems.append, note=notes.append)
    assert verified.mismatches == len(problems)
    return [line.replace(f"{layout}/", "") for line in problems], [
        line.replace(f"{layout}/", "") for line in notes
    ]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


def test_nothing_is_wrong(layout: Layout) -> None:
    path = layout.index(image(layout, [FIRST, SECOND]))
    assert found(path) == ([], [])
    verified = verify(str(path), workers=1, problem=pytest.fail, note=pytest.fail)
    assert verified == (0, 1, 2, 7, len(FIRST) + len(SECOND), 0)


@pytest.mark.parametrize("compression", ["zstd", "gzip", "disabled"])
def test_ours(compression: str, tmp_path: Path, odd_tree: Path) -> None:
    def built(output: Path, **image: Any) -> Path:
        document = {
            "compression": compression,
            "images": (
                [{"architecture": "amd64", "os": "linux", "layer": str(odd_tree)} | image] * 2
            ),
        }
        build(load_config(json.dumps(document)), output=output, workers=2)
        return output

    parent = built(tmp_path / "parent")
    assert found(parent)[0] == []
    next(path for path in odd_tree.iterdir() if path.is_file() and not path.is_symlink()).unlink()
    (odd_tree / "new").write_text("new")
    assert found(built(tmp_path / "child", parent={"image": str(parent)})) == ([], [])


DOCUMENTS: list[tuple[Document, str]] = [
    ({"config": set_to("architecture", None)}, "has no “architecture”"),
    ({"config": set_to("os", "")}, "has no “os”"),
    (
        {"config": set_to("architecture", "arm64")},
        "architecture is “arm64”, but the descriptor of its manifest says “amd64”",
    ),
    ({"config": set_to("rootfs.type", "tar")}, "rootfs.type is not “layers”"),
    (
        {"config": set_to("rootfs.diff_ids", [ZEROS])},
        "names 1 diff_id, but the manifest has 2 layers",
    ),
    ({"config": set_to("rootfs", None)}, "names no diff_ids, but the manifest has 2 layers"),
    ({"config": set_to("rootfs.diff_ids.1", ZEROS)}, f"rootfs.diff_ids[1] says {ZEROS}"),
    ({"config": set_to("rootfs.diff_ids.1", "md5:1")}, "“md5:1” is no digest"),
    ({"config": set_to("history", [{}])}, "history tells of 1 layer, but the manifest has 2"),
    (
        {"config": set_to("history", [{}, {}, {"empty_layer": False}])},
        "history tells of 3 layers, but the manifest has 2",
    ),
    ({"config": set_to("history", {"a": 1})}, "history is no list"),
    ({"manifest": set_to("schemaVersion", 1)}, "schemaVersion is 1, not 2"),
    (
        {"manifest": set_to("mediaType", INDEX)},
        f"mediaType is “{INDEX}”, but its descriptor says “{MANIFEST}”",
    ),
    ({"manifest": set_to("layers", None)}, "has no list “layers”"),
    (
        {"manifest": set_to("layers.0.size", 17)},
        f"has {len(FIRST)} bytes, but its descriptor says 17",
    ),
    ({"manifest": set_to("layers.0.digest", ZEROS)}, "is missing"),
    (
        {"manifest": set_to("layers.0.digest", "sha256:../../../etc/passwd")},
        "layers[0]: “sha256:../../../etc/passwd” is no digest",
    ),
    (
        {"manifest": set_to("layers.0.mediaType", "text/plain")},
        "“text/plain” is no media type of a layer",
    ),
    (
        {"manifest": set_to("layers.0.mediaType", LAYER + "+zstd")},
        f"is not compressed, but its media type is {LAYER}+zstd",
    ),
    ({"manifest": set_to("config.digest", ZEROS)}, "is missing"),
    ({"manifest": set_to("config", None)}, "config: is no descriptor"),
    ({"config": set_to("history.0", "text")}, "history[0] is no object"),
    ({"config": set_to("rootfs.diff_ids.0", 3)}, "rootfs.diff_ids[0]: “3” is no digest"),
    (
        {"config": set_to("variant", "v8"), "descriptor": set_to("platform.variant", "v7")},
        "variant is “v8”, but the descriptor",
    ),
    (
        {"manifest": set_to("manifests", [])},
        "is a manifest and has “manifests” as if it were an index",
    ),
    ({"manifest": set_to("config.size", 1)}, "bytes, but its descriptor says 1"),
    ({"manifest": set_to("config.mediaType", "")}, "config: its descriptor has no mediaType"),
    ({"manifest": set_to("config.data", "?")}, "config: its data is not base64"),
    (
        {"manifest": set_to("config.data", "e30=")},
        "config: its data is not what its digest and size say",
    ),
    ({"manifest": set_to("subject", {"digest": "x"})}, "subject: “x” is no digest"),
    ({"descriptor": set_to("size", 1)}, "but its descriptor says 1"),
    ({"descriptor": set_to("mediaType", "text/plain")}, "but its descriptor says “text/plain”"),
    (
        {"descriptor": set_to("platform.os", "windows")},
        "os is “linux”, but the descriptor of its manifest says “windows”",
    ),
]


@pytest.mark.parametrize(("changes", "says"), DOCUMENTS, ids=[says for _, says in DOCUMENTS])
def test_damaged_documents(changes: Document, says: str, layout: Layout) -> None:
    problems, _ = found(layout.index(image(layout, [FIRST, SECOND], **changes)))
    assert [problem for problem in problems if says in problem], problems
    assert all(problem.startswith("blobs/sha256/") for problem in problems)


LAYERS: list[tuple[bytes, str]] = [
    (archive(("a", b"1"), ("a", b"2")), "“a” is in it more than once"),
    (archive((".", None), ("./", None)), "“.” is in it more than once"),
    (archive(("d", None), ("./d/", None)), "“d” is in it more than once"),
    (archive(("b", "nowhere")), "“b” is a hard link to “nowhere”, which is no file before it"),
    (archive(("b", "a"), ("a", b"1")), "“b” is a hard link to “a”, which is no file before it"),
    (archive(("d", None), ("b", "d")), "“b” is a hard link to “d”, which is no file"),
    (archive((".wh.gone", b"content")), "“.wh.gone” is a whiteout, and should be an empty file"),
    (archive((".wh.gone", None)), "“.wh.gone” is a whiteout, and should be an empty file"),
    (archive((".wh.", b"")), "“.wh.” is a whiteout of nothing that has a name"),
    (archive(("etc/.wh...", b"")), "“etc/.wh...” is a whiteout of nothing that has a name"),
    (archive((".wh.gone", b""), ("link", "nothing")), "“link” is a hard link to “nothing”"),
    (archive(("../up", b"x")), "../up"),
    (FIRST[:700], "at byte"),
    (b"no archive at all" * 100, "at byte 0"),
    (
        archive(("etc", "gone"), (".wh.gone", b"")),
        "“etc” is a hard link to “gone”, which is no file before it",
    ),
    (archive(("b", "etc")), "“b” is a hard link to “etc”, which is no file"),
    (
        archive((".wh.gone", b""), ("b", ".wh.gone")),
        "“b” is a hard link to “.wh.gone”, which is no file",
    ),
    (archive(("f", b""), ("f/g", b"")), "“f/g” is inside of what is no directory"),
    (archive(("n" * 256, b"")), "no file system takes more than 255"),
]


@pytest.mark.parametrize(("data", "says"), LAYERS, ids=[says for _, says in LAYERS])
def test_damaged_layers(data: bytes, says: str, layout: Layout) -> None:
    problems, _ = found(layout.index(image(layout, [FIRST, data])))
    assert len(problems) == 1
    assert problems[0].startswith(f"blobs/sha256/{hashlib.sha256(data).hexdigest()}: ")
    assert says in problems[0]


def test_what_is_odd_but_allowed(layout: Layout) -> None:
    data = archive(
        (".wh.never-there", b""), ("etc/.wh..wh..opq", b""), ("d/.wh..wh.plnk", b""), end=False
    )
    layout.blob(b"stray", "text/plain")
    problems, notes = found(layout.index(image(layout, [FIRST, data])))
    assert problems == []
    assert [note.split(": ", 1)[1] for note in notes] == [
        "has no end-of-archive blocks",
        "“.wh.never-there” hides nothing: no layer below has that name",
        "“d/.wh..wh.plnk” is a whiteout of its own kind, which clients ignore",
        "is referred to by nothing",
    ]


def test_what_stands_behind_its_whiteout(layout: Layout) -> None:
    """The image-spec allows a whiteout behind its sibling; some clients remove the sibling, so it
    is told.
    """
    problems, notes = found(
        layout.index(image(layout, [FIRST, archive(("new", b""), (".wh.new", b""))]))
    )
    assert problems == []
    assert any(
        "“.wh.new” is a whiteout of what stands before it in the same layer" in note
        for note in notes
    )


@pytest.mark.parametrize(
    ("where", "key", "value", "what"),
    [
        ("manifest", "annotations", ["a"], "its annotations are no object"),
        ("manifest", "annotations", {"a": 1}, "its annotation “a” is no string"),
        ("config", "created", "yesterday", "created is “yesterday”, which is no time"),
        ("config", "history.0.created", 7, "history[0].created is 7, which is no time"),
        (
            "config",
            "config",
            {"Cmd": "/bin/sh"},
            "config.Cmd must be a list of strings: clients cannot read the image",
        ),
        (
            "config",
            "config",
            {"labels": {}},
            "config.labels is no name that clients know; did you mean `Labels`?",
        ),
        ("config", "config", [], "config is not a mapping: clients cannot read the image"),
        ("config", "author", 5, "author must be a string: clients cannot read the image"),
        (
            "config",
            "os.features",
            ["win32k", 1],
            "os.features must be a list of strings: clients cannot read the image",
        ),
        (
            "config",
            "history.0.empty_layer",
            0,
            "history[0].empty_layer must be true or false: clients cannot read the image",
        ),
        (
            "config",
            "history.0.created_by",
            ["make"],
            "history[0].created_by must be a string: clients cannot read the image",
        ),
        ("descriptor", "platform.os", "", "manifests[0]: platform.os is missing"),
        (
            "descriptor",
            "platform.variant",
            8,
            "platform.variant must be a string: clients cannot read the image",
        ),
        (
            "descriptor",
            "urls",
            "x",
            "urls must be a list of strings: clients cannot read the image",
        ),
        ("manifest", "config.mediaType", "text", "“text” is no media type"),
        (
            "manifest",
            "config.mediaType",
            "application/vnd.oci.empty.v1+json",
            "has an empty config and no artifactType",
        ),
    ],
)
def test_documents_that_clients_cannot_load(
    layout: Layout, where: str, key: str, value: Any, what: str
) -> None:
    def change(document: Document) -> None:
        if key in ("os.features", "author"):
            document[key] = value
        else:
            set_to(key, value)(document)

    (problem,) = [
        problem
        for problem in found(layout.index(image(layout, [FIRST], **{where: change})))[0]
        if "says" not in problem
    ]
    assert problem.endswith(f": {what}")


def test_annotations_of_an_index(layout: Layout) -> None:
    assert found(layout.index(image(layout, [FIRST]), annotations=["x"]))[0] == [
        "index.json: its annotations are no object"
    ]


def test_unreferenced_blob_that_is_not_what_its_name_says(layout: Layout) -> None:
    path = layout.index(image(layout, [FIRST]))
    (path / "blobs" / "sha256" / ("0" * 64)).write_bytes(b"x")
    (problem,) = found(path)[0]
    assert "is damaged" in problem


def test_no_layout(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no OCI layout here") as caught:
        verify(str(tmp_path), workers=1, problem=pytest.fail, note=pytest.fail)
    assert "build-oci verify DIR" in caught.value.hint


def test_what_a_layer_below_hides_is_gone(layout: Layout) -> None:
    """A hard link may lead into any layer below, but not to what one in between has hidden."""
    linked = archive(("again", "gone"))
    assert found(layout.index(image(layout, [FIRST, linked])))[0] == []
    problems, _ = found(layout.index(image(layout, [FIRST, SECOND, linked])))
    assert [problem.split(": ", 1)[1] for problem in problems] == [
        "“again” is a hard link to “gone”, which is no file before it"
    ]
    opaque = archive(("etc/.wh..wh..opq", b""))
    assert (
        len(found(layout.index(image(layout, [FIRST, opaque, archive(("again", "etc/a"))])))[0])
        == 1
    )


def test_everything_is_listed_at_once(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    (layout.path / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}')
    good = image(layout, [FIRST])
    bad = image(layout, [archive(("a", b""), ("a", b"")), SECOND], config=set_to("history", [{}]))
    layout.index(good, bad, {"digest": "nonsense"}, good | {"digest": ZEROS}, schemaVersion=1)
    assert main(["verify", str(layout.path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    expected = (
        "imageLayoutVersion",
        "schemaVersion",
        "history tells",
        "more than once",
        "hard link to “etc/a”",
        "“nonsense”",
        "is missing",
    )
    assert len(err.splitlines()) == len(expected)
    for says in expected:
        assert (
            sum(says in line and line.startswith("build-oci: error: ") for line in err.splitlines())
            == 1
        ), says


def test_nested_indexes_artifacts_and_docker_types(layout: Layout) -> None:
    def docker(document: Document) -> None:
        document["mediaType"] = "application/vnd.docker.distribution.manifest.v2+json"
        document["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
        document["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar"

    one = image(
        layout,
        [FIRST],
        manifest=docker,
        descriptor=set_to("mediaType", "application/vnd.docker.distribution.manifest.v2+json"),
    )
    artifact = layout.document(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": layout.blob(b"{}", "application/vnd.example+json"),
            "layers": [layout.blob(b"text", "text/plain")],
        },
        MANIFEST,
    )
    inner = layout.document(
        {"schemaVersion": 2, "mediaType": INDEX, "manifests": [one, artifact]}, INDEX
    )
    problems, notes = found(layout.index(inner))
    assert problems == []
    assert [note.split(": ")[1] for note in notes] == [
        "is no image but an artifact of the type “application/vnd.example+json”"
    ]
    deep = inner
    for _ in range(10):
        deep = layout.document({"schemaVersion": 2, "mediaType": INDEX, "manifests": [deep]}, INDEX)
    assert "is an index within an index" in found(layout.index(deep))[0][0]


def test_an_image_for_many_platforms_that_is_here_in_part(layout: Layout) -> None:
    """`docker save` keeps the index of such an image and what it has of it. What the layout itself
    lists, and what an image has in part, must be there.
    """

    def listing(*manifests: Document) -> Document:
        content = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests)}
        return layout.document(content, INDEX)

    def remove(*descriptors: Document) -> None:
        for descriptor in descriptors:
            (layout.path / "blobs" / descriptor["digest"].replace(":", "/")).unlink()

    def parts(descriptor: Document) -> list[Document]:
        path = layout.path / "blobs" / descriptor["digest"].replace(":", "/")
        manifest = json.loads(path.read_text())
        return [manifest["config"], *manifest["layers"]]

    arm = set_to("architecture", "arm64"), set_to("platform.architecture", "arm64")
    here = image(layout, [FIRST])
    gone = image(layout, [SECOND], config=arm[0], descriptor=arm[1])
    hollow = image(layout, [ONLY], config=set_to("variant", "v7"))
    index = listing(here, gone, hollow)
    remove(gone, *parts(gone), *parts(hollow))
    problems, notes = found(layout.index(index))
    assert problems == []
    assert [note.split(": ", 1)[1] for note in notes] == [
        "lists 1 manifest that the layout does not hold",
        "is here without its config and its layers",
    ]
    assert ["is missing" in problem for problem in found(layout.index(index, gone))[0]] == [True]
    assert len(found(layout.index(hollow))[0]) == 2
    nothing = listing(gone)
    (problem,) = found(layout.index(nothing))[0]
    assert problem.endswith("is an index, and nothing that it lists is here")
    remove(parts(here)[1])
    (problem,) = found(layout.index(index))[0]
    assert FIRST_DIGEST in problem
    assert problem.endswith("is missing")


def test_hostile_files(layout: Layout) -> None:
    """A FIFO, a directory or a loop in a blob's place neither stops nor misleads."""
    descriptor = image(layout, [FIRST, SECOND])
    path = layout.index(descriptor)
    blob = path / "blobs" / "sha256" / hashlib.sha256(FIRST).hexdigest()
    for make, says in (
        (os.mkfifo, "is no regular file"),
        (os.mkdir, "is no regular file"),
        (lambda at: os.symlink(at, at), "cannot be opened"),
    ):
        blob.unlink() if not blob.is_dir() else blob.rmdir()
        make(blob)
        assert found(path)[0][0].split(": ", 1)[1].startswith(says)
    deep: Any = []
    for _ in range(800):
        deep = [deep]
    for changes in (
        {"config": set_to("rootfs.diff_ids.0", deep)},
        {"manifest": set_to("subject", deep)},
        {"config": set_to("os", deep)},
    ):
        assert len(found(layout.index(image(layout, [SECOND], **changes)))[0]) >= 1
    for text in ("[]", "{", "NaN", '{"manifests": 3}', "\xff"):
        (path / "index.json").write_bytes(text.encode("latin-1"))
        assert len(found(path)[0]) >= 1


def test_one_damage_hides_no_other(layout: Layout) -> None:
    """Whatever is wrong with a document or a blob, all the others are still looked at."""
    bad = archive(("a", b""), ("a", b""))
    damaged = hashlib.sha256(bad).hexdigest()
    for changes in (
        {"manifest": set_to("config", None)},
        {"manifest": set_to("config.digest", ZEROS)},
        {"manifest": set_to("layers.0.digest", "sha256:no")},
        {"manifest": set_to("layers.0.digest", ZEROS)},
        {"manifest": set_to("layers.0.mediaType", "text/plain")},
        {"config": set_to("rootfs.diff_ids", [])},
        {"manifest": set_to("layers.1.size", 1)},
        {"descriptor": set_to("size", 1)},
        {"descriptor": set_to("mediaType", "text/plain")},
    ):
        problems, _ = found(layout.index(image(layout, [FIRST, bad], **changes)))
        assert len(problems) >= 2, changes
        assert f"blobs/sha256/{damaged}: “a” is in it more than once" in problems, changes


def test_a_damaged_blob(layout: Layout) -> None:
    """Where the digest is wrong, that is all there is to say; where it is right, a broken archive
    still has a diff_id.
    """
    path = layout.index(image(layout, [FIRST, SECOND]))
    digest = hashlib.sha256(SECOND).hexdigest()
    blob = path / "blobs" / "sha256" / digest
    blob.write_bytes(b"\0" * 700 + SECOND[700:])
    assert found(path)[0] == [
        f"blobs/sha256/{digest}: is damaged: its content has the digest"
        f" sha256:{hashlib.sha256(blob.read_bytes()).hexdigest()}"
    ]
    blob.write_bytes(SECOND[:-1])
    assert [problem.split(": ")[1][:10] for problem in found(path)[0]] == [
        f"has {len(SECOND) - 1} "[:10],
        "is damaged",
    ]
    blob.write_bytes(b"")
    assert [problem.split(": ")[1][:10] for problem in found(path)[0]] == [
        "has 0 byte",
        "is damaged",
    ]
    large = b"\x1f\x8b" + os.urandom(3 << 20)
    descriptor = layout.blob(large, LAYER + "+gzip")
    blob = path / "blobs" / descriptor["digest"].replace(":", "/")
    blob.write_bytes(large[:-1] + b"?!"[large[-1] == ord("?") :][:1])
    (path / "blobs" / "sha256" / digest).write_bytes(SECOND)
    (problem,) = found(
        layout.index(image(layout, [FIRST], manifest=set_to("layers.0", descriptor)))
    )[0]
    assert "is damaged" in problem
    blob.unlink()
    for broken, what in (
        (FIRST[:700], "the archive is truncated"),
        (b"no archive" * 100, "this is no tar header"),
    ):
        problems, _ = found(
            layout.index(image(layout, [broken], config=set_to("rootfs.diff_ids", [ZEROS])))
        )
        assert [
            says in problem for says, problem in zip((what, f"says {ZEROS}"), problems, strict=True)
        ] == [True, True]


def test_what_several_images_share(layout: Layout) -> None:
    """A blob is read once, but every descriptor of it counts, and so does what lies below it in
    each image.
    """
    linked = archive(("again", "gone"))
    other = image(layout, [linked])
    problems, _ = found(
        layout.index(
            image(layout, [FIRST, linked]),
            image(layout, [FIRST, linked, FIRST]),
            other,
            image(layout, [linked] * 2),
        )
    )
    where = f"blobs/sha256/{hashlib.sha256(linked).hexdigest()}"
    assert problems == [f"{where}: “again” is a hard link to “gone”, which is no file before it"]
    good = image(layout, [FIRST])
    wrong = [
        good | {"size": 1},
        good | {"mediaType": INDEX},
        good | {"platform": {"architecture": "arm64", "os": "linux"}},
    ]
    problems = []
    wrong += [
        image(layout, [FIRST], manifest=set_to(f"layers.0.{key}", value))
        for key, value in (("size", 1), ("mediaType", LAYER + "+gzip"))
    ]
    verified = verify(
        str(layout.index(good, good, *wrong)),
        workers=3,
        problem=problems.append,
        note=lambda _: None,
    )
    expected = (
        f"has {good['size']} bytes",
        f"but its descriptor says “{INDEX}”",
        "“arm64”",
        f"has {len(FIRST)} bytes",
        "is not compressed",
    )
    assert len(problems) == len(expected)
    for says in expected:
        assert sum(says in problem for problem in problems) == 1, says
    assert (verified.images, verified.layers) == (3, 1)


def test_an_index_that_multiplies(layout: Layout) -> None:
    """Seven indexes, each with a hundred times the next: read once each."""
    inner = image(layout, [FIRST])
    for _ in range(7):
        inner = layout.document(
            {"schemaVersion": 2, "mediaType": INDEX, "manifests": [inner] * 100}, INDEX
        )
    assert found(layout.index(inner)) == ([], [])


def test_artifacts_in_the_clothes_of_images(layout: Layout) -> None:
    """What BuildKit and cosign put beside an image is no image, but its blobs are verified."""
    statement = layout.blob(
        b'{"_type":"https://in-toto.io/Statement/v0.1"}', "application/vnd.in-toto+json"
    )
    clothes: tuple[tuple[str, Document], ...] = (
        ("unknown", {"vnd.docker.reference.type": "attestation-manifest"}),
        ("unknown", {}),
        ("", {}),
    )
    for platform, marks in clothes:
        config = {
            "architecture": platform,
            "os": platform,
            "rootfs": {"type": "layers", "diff_ids": [statement["digest"]]},
        }
        for size in (statement["size"], 1):
            document = {
                "schemaVersion": 2,
                "config": layout.document(config, CONFIG),
                "layers": [statement | {"size": size}],
            }
            index = layout.index(
                image(layout, [FIRST]), layout.document(document, MANIFEST, annotations=marks)
            )
            problems, notes = found(index)
            assert [problem.split(": ")[1] for problem in problems] == (
                [] if size > 1 else ["has 45 bytes, but its descriptor says 1"]
            )
            assert [note.split(": ")[1] for note in notes if "artifact" in note] == [
                f"is no image but an artifact of the type “{CONFIG}”"
            ]


def test_what_the_image_format_allows(layout: Layout, tmp_path: Path) -> None:
    """Other types in the index, a subject that is elsewhere, layers that may not be distributed,
    skippable frames, sha512, a symlink.
    """
    skippable = b"\x5a\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
    packed = layout.blob(skippable + zstandard.compress(FIRST), LAYER + "+zstd")
    odd = archives.header(b"\x1f\x8bname") + archives.END
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    more = [
        layout.blob(odd, LAYER),
        {"mediaType": foreign, "digest": ZEROS, "size": 1},
        layout.blob(b"secret", LAYER + "+gzip+encrypted"),
    ]

    def manifest(document: Document) -> None:
        document["layers"] = [packed, *more]
        document["subject"] = {"mediaType": MANIFEST, "digest": ZEROS, "size": 1}
        document["config"]["data"] = base64.b64encode(
            (layout.path / "blobs" / document["config"]["digest"].replace(":", "/")).read_bytes()
        ).decode()

    def config(document: Document) -> None:
        document["rootfs"]["diff_ids"] = [
            "sha512:" + hashlib.sha512(FIRST).hexdigest(),
            "sha256:" + hashlib.sha256(odd).hexdigest(),
            ZEROS,
            ZEROS,
        ]
        document["history"] = None

    xml = layout.blob(b"<xml/>", "application/xml")
    other = set_to("rootfs.diff_ids", ["sha512:" + hashlib.sha512(odd).hexdigest()])
    path = layout.index(
        xml,
        image(layout, [FIRST], manifest=manifest, config=config),
        image(layout, [odd], config=other),
    )
    long = hashlib.sha512(b"{}").hexdigest()
    (path / "blobs" / "sha512").mkdir()
    (path / "blobs" / "sha512" / long).write_bytes(b"{}")
    blob = path / "blobs" / packed["digest"].replace(":", "/")
    blob.symlink_to(blob.rename(tmp_path / "elsewhere"))
    problems, notes = found(path)
    assert problems == []
    assert [note.split(": ", 1)[1] for note in notes if FIRST_DIGEST not in note] == [
        "is no image but of the type “application/xml”",
        "is missing, as layers that may not be distributed are",
        "is encrypted",
        "is referred to by nothing",
    ]
    (path / "blobs" / xml["digest"].replace(":", "/")).write_bytes(b"<XML/>")
    wrong = set_to("rootfs.diff_ids", ["sha512:" + "0" * 128])
    layout.index(xml, xml | {"mediaType": ""}, image(layout, [FIRST], config=wrong))
    problems, _ = found(path)
    assert problems[0] == "index.json: manifests[1]: its descriptor has no mediaType"
    assert problems[1].startswith(f"blobs/{xml['digest'].replace(':', '/')}: is damaged")
    assert f"has the digest sha512:{hashlib.sha512(FIRST).hexdigest()}, but" in problems[2]
    assert len(problems) == 3


def test_names_by_way_of_others(layout: Layout) -> None:
    """Directories that no archive names, symbolic links on the way to a target, and whiteouts of
    either.
    """

    def after(*layers: bytes) -> tuple[list[str], list[str]]:
        problems, notes = found(layout.index(image(layout, list(layers))))
        return [line.split(": ", 1)[1] for line in problems], [
            line.split(": ", 1)[1] for line in notes if "referred" not in line
        ]

    deep = archive(("a/b/c", b""))
    assert after(deep, archive(("x", "a/b/c"))) == ([], [])
    assert after(deep, archive((".wh.a", b"")), archive(("x", "a/b/c"))) == (
        ["“x” is a hard link to “a/b/c”, which is no file before it"],
        [],
    )
    assert after(deep, archive(("a", b"")), archive(("x", "a/b/c"))) == (
        ["“x” is a hard link to “a/b/c”, which is no file before it"],
        [],
    )
    assert after(deep, archive((".wh.a", b""), ("a/b/c", b""))) == ([], [])
    assert after(deep, archive(("a", b""), ("a/.wh.b", b""))) == (
        [],
        ["“a/.wh.b” is inside of what is no directory"],
    )
    beside = "“a” is in it beside its own whiteout, which hides it only in the layers below"
    assert after(deep, archive((".wh.a", b""), ("a", b""))) == ([], [beside])
    maybe = (
        "“x” is a hard link to “{}”, which may be there by way of a symbolic link or in a layer"
        " that cannot be read"
    )
    link = io.BytesIO()
    with tarfile.open(fileobj=link, mode="w") as tar:
        info = tarfile.TarInfo("lib")
        info.type, info.linkname = tarfile.SYMTYPE, "a/b"
        tar.addfile(info)
    assert after(deep, link.getvalue(), archive(("x", "lib/c"))) == ([], [maybe.format("lib/c")])
    assert after(deep, link.getvalue(), archive(("lib/d", b"")), archive(("x", "a/b/d"))) == (
        [],
        [maybe.format("a/b/d")],
    )
    assert after(link.getvalue(), archive(("x", "lib"))) == ([], [])
    broken = b"no archive" * 100
    assert after(broken, archive(("x", "a"))) == (
        ["at byte 0: this is no tar header: its checksum does not hold"],
        [maybe.format("a")],
    )


def test_memory_is_bounded(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "/".join(letter * 240 for letter in "xyz")
    many = archive(*((f"{long}/{number:0100}", b"") for number in range(600)))
    deep = archive(("d/" * 30_000 + "f", b""), ("e/" * 30_000 + "f", b""))
    path = layout.index(
        *(image(layout, [many, FIRST, many[:-512], deep][:count]) for count in (1, 2, 3)),
        image(layout, [deep]),
    )
    monkeypatch.setattr(layers, "_SCANS_KEPT", 0)  # archives are read again for the next image
    assert found(path) == ([], [])
    monkeypatch.setattr(names, "_TREE_SLACK", 1 << 16)
    assert {problem.split(": ", 1)[1] for problem in found(path)[0]} == {
        "with it, the names of the image need more memory than so many may have: the rest is not"
        " looked at"
    }
    monkeypatch.setattr(layers, "_SCANS_SLACK", 1 << 16)
    assert [
        problem
        for problem in found(path)[0]
        if problem.endswith("need more memory than so many may have")
    ]
    # Neither of two takes that much.
    pair = [
        archive(*((f"{letter}/{long}/{number}", b"") for number in range(600))) for letter in "ab"
    ]
    scan = Scan()
    scan.feed(pair[0])
    monkeypatch.setattr(layers, "_SCANS_SLACK", scan.held * 3 // 2 - 400 * 900)
    monkeypatch.setattr(layers, "_SCANS_KEPT", scan.held * 2)
    monkeypatch.setattr(names, "_TREE_SLACK", 1 << 30)
    assert len(found(layout.index(image(layout, pair)))[0]) == 1


def test_hostile_names_are_escaped_and_cut(layout: Layout) -> None:
    name = "a\n\x1b[2J" + "/b" * 5000
    (problem,) = found(layout.index(image(layout, [archive((name, b""), (name, b""))])))[0]
    assert "“a\\x0a\\x1b[2J/b/" in problem
    assert len(problem) < 600


def test_a_build_does_not_load_it() -> None:
    code = (
        "import sys, build_oci.cli.command, build_oci.pipeline;"
        " sys.exit(any(name.startswith('build_oci.verify') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_usage(
    tmp_path: Path,
    layout: Layout,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["verify", str(tmp_path / "nowhere")]) == 2
    assert (
        capsys.readouterr().err
        == f"build-oci: error: {tmp_path}/nowhere: is no directory\nhint: name the directory that"
        " holds index.json\n"
    )
    monkeypatch.chdir(layout.index(image(layout, [FIRST])))
    assert main(["verify"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["verify", "-v", "-j", "1"]) == 0
    assert (
        capsys.readouterr().err
        == "build-oci: .: nothing is wrong: 1 image, 1 layer, 4 entries, 10.2 kB\n"
    )
    for wrong in (
        ["verify", "a", "b"],
        ["verify", "--nonsense"],
        ["verify", ""],
        ["verify", "-j", "0"],
    ):
        assert main(wrong) == 2
    shutil.rmtree(layout.path / "blobs")
    assert main(["verify", "-q"]) == 1


@pytest.mark.clients
def test_images_of_other_tools(tmp_path: Path, debian_tree: Path) -> None:
    """skopeo, umoci and buildah write nothing that is found wrong."""
    clients.need_root()
    skopeo, umoci, buildah = (clients.need(tool) for tool in ("skopeo", "umoci", "buildah"))
    source = tmp_path / "etc"
    shutil.copytree(debian_tree / "etc", source, symlinks=True)
    made = tmp_path / "umoci"
    clients.run(umoci, "init", "--layout", made)
    clients.run(umoci, "new", "--image", f"{made}:x")
    clients.run(umoci, "insert", "--image", f"{made}:x", source, "/etc")
    clients.run(umoci, "insert", "--image", f"{made}:x", "--whiteout", "/etc/passwd")
    clients.run(umoci, "insert", "--image", f"{made}:x", "--opaque", source / "apt", "/etc/apt")
    clients.run(umoci, "unpack", "--image", f"{made}:x", tmp_path / "bundle")
    shutil.rmtree(tmp_path / "bundle" / "rootfs" / "etc" / "apt")
    (tmp_path / "bundle" / "rootfs" / "etc" / "apt").write_text("a file now")
    os.link(
        tmp_path / "bundle" / "rootfs" / "etc" / "hostname",
        tmp_path / "bundle" / "rootfs" / "etc" / "linked",
    )
    clients.run(umoci, "repack", "--image", f"{made}:y", tmp_path / "bundle")
    assert found(made)[0] == []
    for target in ("dir", "oci"):
        clients.run(skopeo, "copy", f"oci:{made}:x", f"{target}:{tmp_path / target}")
    clients.run(skopeo, "copy", f"dir:{tmp_path / 'dir'}", f"oci:{tmp_path / 'again'}:x")
    assert found(tmp_path / "oci")[0] == found(tmp_path / "again")[0] == []
    store = [
        buildah,
        "--storage-driver",
        "vfs",
        "--root",
        str(tmp_path / "root"),
        "--runroot",
        str(tmp_path / "run"),
    ]
    container = clients.run(*store, "from", "scratch").strip()
    clients.run(*store, "copy", "-q", container, str(source), "/etc")
    clients.run(*store, "commit", "-q", container, f"oci:{tmp_path / 'buildah'}")
    assert found(tmp_path / "buildah")[0] == []
    for kind in ("oci", "docker"):
        clients.run(*store, "commit", "-q", "--format", kind, container, f"localhost/{kind}")
        clients.run(
            *store, "manifest", "create", f"list-{kind}", f"containers-storage:localhost/{kind}"
        )
        clients.run(
            *store,
            "manifest",
            "push",
            "-q",
            "--all",
            f"list-{kind}",
            f"oci:{tmp_path / kind}-list:x",
        )
        assert found(tmp_path / f"{kind}-list")[0] == []
