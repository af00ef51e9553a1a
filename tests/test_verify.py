"""Spec 1: `build-oci verify` recomputes everything and lists every mismatch; for layouts of any builder."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clients
import pytest

from build_oci.cli import main
from build_oci.config import load_config
from build_oci.pipeline import build
from build_oci.verify import Verifier

Document = dict[str, Any]


def found(layout: Path) -> tuple[list[str], list[str]]:
    """The mismatches and the notes, without the path of LAYOUT."""
    verifier = Verifier(str(layout), workers=2)
    verifier.run()
    return tuple([line.replace(f"{layout}/", "") for line in lines] for lines in (verifier.problems, verifier.notes))  # type: ignore[return-value]


def archive(*members: tuple[str, bytes | str | None], end: bool = True) -> bytes:
    """A tar of (name, content), (name, target of a hard link) and (name, None) for a directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, what in members:
            info = tarfile.TarInfo(name)
            if what is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(what, str):
                info.type, info.linkname = tarfile.LNKTYPE, what
            else:
                info.size = len(what)
            tar.addfile(info, io.BytesIO(what) if isinstance(what, bytes) else None)
        size = tar.offset
    return out.getvalue() if end else out.getvalue()[:size]


class Layout:
    """An image layout made by hand, in which anything may be wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs" / "sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def blob(self, data: bytes, media_type: str, **more: Any) -> Document:
        digest = hashlib.sha256(data).hexdigest()
        (self.path / "blobs" / "sha256" / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)} | more

    def document(self, content: Document, media_type: str, **more: Any) -> Document:
        return self.blob(json.dumps(content).encode(), media_type, **more)

    def index(self, *manifests: Document, **more: Any) -> Path:
        content = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests)} | more
        (self.path / "index.json").write_text(json.dumps(content))
        return self.path


INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

FIRST = archive(("etc", None), ("etc/a", b"a"), ("etc/b", "etc/a"), ("gone", b"x"))
SECOND = archive(("etc", None), ("etc/c", "etc/a"), (".wh.gone", b""))


def image(
    layout: Layout,
    archives: list[bytes],
    *,
    config: Callable[[Document], None] = lambda _: None,
    manifest: Callable[[Document], None] = lambda _: None,
    descriptor: Callable[[Document], None] = lambda _: None,
) -> Document:
    """The descriptor of an image with plain layers, its documents changed by the callables before they are stored."""
    content: Document = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in archives]},
        "history": [{} for _ in archives],
    }
    config(content)
    wanted: Document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": layout.document(content, CONFIG),
        "layers": [layout.blob(data, LAYER) for data in archives],
    }
    manifest(wanted)
    found = layout.document(wanted, MANIFEST, platform={"architecture": "amd64", "os": "linux"})
    descriptor(found)
    return found


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


def test_nothing_is_wrong(layout: Layout) -> None:
    path = layout.index(image(layout, [FIRST, SECOND]))
    assert found(path) == ([], [])
    verifier = Verifier(str(path), workers=1)
    verifier.run()
    assert (verifier.images, verifier.layers, verifier.entries, verifier.size) == (1, 2, 7, len(FIRST) + len(SECOND))


@pytest.mark.parametrize("compression", ["zstd", "gzip", "disabled"])
def test_ours(compression: str, tmp_path: Path, odd_tree: Path) -> None:
    def built(output: Path, **image: Any) -> Path:
        document = {"compression": compression, "images": [{"architecture": "amd64", "os": "linux", "layer": str(odd_tree)} | image] * 2}
        build(load_config(json.dumps(document)), output=output, workers=2)
        return output

    parent = built(tmp_path / "parent")
    assert found(parent)[0] == []
    next(path for path in odd_tree.iterdir() if path.is_file() and not path.is_symlink()).unlink()
    (odd_tree / "new").write_text("new")
    assert found(built(tmp_path / "child", parent={"image": str(parent)})) == ([], [])


def set_to(key: str, value: Any) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        at = document
        *path, last = key.split(".")
        for name in path:
            at = at[int(name)] if isinstance(at, list) else at[name]
        if value is None:
            del at[last]
        else:
            at[int(last) if isinstance(at, list) else last] = value

    return change


ZEROS = "sha256:" + "0" * 64
DOCUMENTS: list[tuple[Document, str]] = [
    ({"config": set_to("architecture", None)}, "has no “architecture”"),
    ({"config": set_to("os", "")}, "has no “os”"),
    ({"config": set_to("architecture", "arm64")}, "architecture is “arm64”, but the descriptor of its manifest says “amd64”"),
    ({"config": set_to("rootfs.type", "tar")}, "rootfs.type is not “layers”"),
    ({"config": set_to("rootfs.diff_ids", [ZEROS])}, "names 1 diff_ids, but the manifest has 2 layers"),
    ({"config": set_to("rootfs", None)}, "names no diff_ids, but the manifest has 2 layers"),
    ({"config": set_to("rootfs.diff_ids.1", ZEROS)}, f"rootfs.diff_ids[1] says {ZEROS}"),
    ({"config": set_to("rootfs.diff_ids.1", "md5:1")}, "“md5:1” is no digest"),
    ({"config": set_to("history", [{}])}, "history tells of 1 layers, but the manifest has 2"),
    ({"config": set_to("history", [{}, {}, {"empty_layer": False}])}, "history tells of 3 layers, but the manifest has 2"),
    ({"config": set_to("history", {"a": 1})}, "history is no list"),
    ({"manifest": set_to("schemaVersion", 1)}, "schemaVersion is 1, not 2"),
    ({"manifest": set_to("mediaType", INDEX)}, f"mediaType is “{INDEX}”, but its descriptor says “{MANIFEST}”"),
    ({"manifest": set_to("layers", None)}, "has no list “layers”"),
    ({"manifest": set_to("layers.0.size", 17)}, f"has {len(FIRST)} bytes, but its descriptor says 17"),
    ({"manifest": set_to("layers.0.digest", ZEROS)}, "is missing"),
    ({"manifest": set_to("layers.0.digest", "sha256:../../../etc/passwd")}, "layers[0]: “sha256:../../../etc/passwd” is no digest"),
    ({"manifest": set_to("layers.0.mediaType", "text/plain")}, "“text/plain” is no media type of a layer"),
    ({"manifest": set_to("layers.0.mediaType", LAYER + "+zstd")}, f"is not compressed, but its media type is {LAYER}+zstd"),
    ({"manifest": set_to("config.digest", ZEROS)}, "is missing"),
    ({"manifest": set_to("config", None)}, "config: is no descriptor"),
    ({"descriptor": set_to("size", 1)}, "but its descriptor says 1"),
    ({"descriptor": set_to("mediaType", "text/plain")}, "but its descriptor says “text/plain”"),
    ({"descriptor": set_to("platform.os", "windows")}, "os is “linux”, but the descriptor of its manifest says “windows”"),
]


@pytest.mark.parametrize(("changes", "says"), DOCUMENTS, ids=[says for _, says in DOCUMENTS])
def test_damaged_documents(changes: Document, says: str, layout: Layout) -> None:
    problems, _ = found(layout.index(image(layout, [FIRST, SECOND], **changes)))
    assert [problem for problem in problems if says in problem], problems
    assert all(problem.startswith("blobs/sha256/") for problem in problems)


LAYERS: list[tuple[bytes, str]] = [
    (archive(("a", b"1"), ("a", b"2")), "“a” is in it more than once"),
    (archive(("d", None), ("./d/", None)), "“d” is in it more than once"),
    (archive(("b", "nowhere")), "“b” is a hard link to “nowhere”, which is no file before it"),
    (archive(("b", "a"), ("a", b"1")), "“b” is a hard link to “a”, which is no file before it"),
    (archive(("d", None), ("b", "d")), "“b” is a hard link to “d”, which is no file before it"),
    (archive((".wh.gone", b"content")), "“.wh.gone” is a whiteout, and should be an empty file"),
    (archive((".wh.gone", None)), "“.wh.gone” is a whiteout, and should be an empty file"),
    (archive((".wh.", b"")), "“.wh.” is a whiteout of nothing that has a name"),
    (archive(("etc/.wh...", b"")), "“etc/.wh...” is a whiteout of nothing that has a name"),
    (archive((".wh.gone", b""), ("link", "nothing")), "“link” is a hard link to “nothing”"),
    (archive(("../up", b"x")), "../up"),
    (FIRST[:700], "at byte"),
    (b"no archive at all" * 100, "at byte 0"),
    (b"\x1f\x8b" + bytes(600), f"is compressed with gzip, but its media type is {LAYER}"),
]


@pytest.mark.parametrize(("data", "says"), LAYERS, ids=[says for _, says in LAYERS])
def test_damaged_layers(data: bytes, says: str, layout: Layout) -> None:
    problems, _ = found(layout.index(image(layout, [FIRST, data])))
    assert len(problems) == 1
    assert problems[0].startswith(f"blobs/sha256/{hashlib.sha256(data).hexdigest()}: ")
    assert says in problems[0]


def test_what_is_odd_but_allowed(layout: Layout) -> None:
    data = archive((".wh.never-there", b""), ("etc/.wh..wh..opq", b""), ("d/.wh..wh.plnk", b""), end=False)
    layout.blob(b"stray", "text/plain")
    problems, notes = found(layout.index(image(layout, [FIRST, data])))
    assert problems == []
    assert [note.split(": ", 1)[1] for note in notes] == [
        "has no end-of-archive blocks",
        "“.wh.never-there” hides nothing: no layer below has that name",
        "“d/.wh..wh.plnk” is a whiteout of its own kind, which clients ignore",
        "is referred to by nothing",
    ]


def test_what_a_layer_below_hides_is_gone(layout: Layout) -> None:
    """A hard link may lead into any layer below, but not to what one in between has hidden."""
    linked = archive(("again", "gone"))
    assert found(layout.index(image(layout, [FIRST, linked])))[0] == []
    problems, _ = found(layout.index(image(layout, [FIRST, SECOND, linked])))
    assert [problem.split(": ", 1)[1] for problem in problems] == ["“again” is a hard link to “gone”, which is no file before it"]
    opaque = archive(("etc/.wh..wh..opq", b""))
    assert len(found(layout.index(image(layout, [FIRST, opaque, archive(("again", "etc/a"))])))[0]) == 1


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
        assert sum(says in line and line.startswith("build-oci: error: ") for line in err.splitlines()) == 1, says


def test_nested_indexes_artifacts_and_docker_types(layout: Layout) -> None:
    def docker(document: Document) -> None:
        document["mediaType"] = "application/vnd.docker.distribution.manifest.v2+json"
        document["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
        document["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar"

    one = image(layout, [FIRST], manifest=docker, descriptor=set_to("mediaType", "application/vnd.docker.distribution.manifest.v2+json"))
    artifact = layout.document(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": layout.blob(b"{}", "application/vnd.example+json"),
            "layers": [layout.blob(b"text", "text/plain")],
        },
        MANIFEST,
    )
    inner = layout.document({"schemaVersion": 2, "mediaType": INDEX, "manifests": [one, artifact]}, INDEX)
    problems, notes = found(layout.index(inner))
    assert problems == []
    assert [note.split(": ")[1] for note in notes] == [
        "is no image but an artifact with a config of the type “application/vnd.example+json”"
    ]
    deep = inner
    for _ in range(10):
        deep = layout.document({"schemaVersion": 2, "mediaType": INDEX, "manifests": [deep]}, INDEX)
    assert "is an index within an index" in found(layout.index(deep))[0][0]


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
    for text in ("[]", "{", "NaN", '{"manifests": 3}', "\xff"):
        (path / "index.json").write_bytes(text.encode("latin-1"))
        assert len(found(path)[0]) >= 1


def test_usage(tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err == (
        f"build-oci: error: {tmp_path}/nowhere: is no directory\nhint: name the directory that holds index.json\n"
    )
    monkeypatch.chdir(layout.index(image(layout, [FIRST])))
    assert main(["verify"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["verify", "-v", "-j", "1"]) == 0
    assert capsys.readouterr().err == "build-oci: .: nothing is wrong: 1 images, 1 layers, 4 entries, 0.0 MB\n"
    for wrong in (["verify", "a", "b"], ["verify", "--nonsense"], ["verify", ""], ["verify", "-j", "0"]):
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
    assert found(made)[0] == []
    for target in ("dir", "oci"):
        clients.run(skopeo, "copy", f"oci:{made}:x", f"{target}:{tmp_path / target}")
    clients.run(skopeo, "copy", f"dir:{tmp_path / 'dir'}", f"oci:{tmp_path / 'again'}:x")
    assert found(tmp_path / "oci")[0] == found(tmp_path / "again")[0] == []
    store = [buildah, "--storage-driver", "vfs", "--root", str(tmp_path / "root"), "--runroot", str(tmp_path / "run")]
    container = clients.run(*store, "from", "scratch").strip()
    clients.run(*store, "copy", "-q", container, str(source), "/etc")
    clients.run(*store, "commit", "-q", container, f"oci:{tmp_path / 'buildah'}")
    assert found(tmp_path / "buildah")[0] == []
