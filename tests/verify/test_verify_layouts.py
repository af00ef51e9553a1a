"""`build-oci verify` takes layouts of any builder, and whatever the formats allow
(contract: cli-verify).
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

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
    found,
    image,
    layout,
    set_to,
)

from build_oci.verify.verifier import verify

__all__ = ["layout"]

ONLY = archive(("only", b"only"))


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


@pytest.mark.clients
def test_images_of_other_tools(tmp_path: Path, debian_tree: Path) -> None:
    """skopeo, umoci and buildah write nothing that is found wrong."""
    clients.need_root()
    skopeo, umoci = clients.need("skopeo"), clients.need("umoci")
    store = clients.buildah(tmp_path)
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
