"""contract: cli-verify. `build-oci verify` recomputes everything and lists every mismatch; for
layouts of any builder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from clients import Document
from layouts import (
    FIRST,
    INDEX,
    LAYER,
    MANIFEST,
    SECOND,
    ZEROS,
    Layout,
    archive,
    found,
    image,
    layout,
    set_to,
)

from build_oci.cli.command import main
from build_oci.config.load import load_config
from build_oci.errors import UsageError
from build_oci.pipeline import build
from build_oci.verify.verifier import verify

__all__ = ["layout"]


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
    assert "build-oci verify LAYOUT" in caught.value.hint


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
        == f"build-oci: error: {tmp_path}/nowhere: does not exist\nhint: name the directory that"
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
