"""`build-oci merge` (contract: output-merge): one index over the images of several layouts; blobs
verified and carried, sources untouched."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path

import clients
import layouts
import pytest
from faults import TIMEOUT, command, environment, snapshot

REF_NAME = "org.opencontainers.image.ref.name"


def merge(*args: str | Path) -> tuple[int, str]:
    """Exit status and standard error of `build-oci merge ARGS`."""
    program = [*command(Path("x"))[:-2], "merge", *args]
    done = subprocess.run(
        program, env=environment(), capture_output=True, text=True, check=False, timeout=TIMEOUT
    )
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    assert done.stdout == ""
    return done.returncode, done.stderr


def image(
    layout: layouts.Layout, architecture: str, name: str = "", **platform: str
) -> clients.Document:
    def describe(descriptor: clients.Document) -> None:
        descriptor["platform"] = {"architecture": architecture, "os": "linux", **platform}
        if name:
            descriptor["annotations"] = {REF_NAME: name}

    return layouts.image(
        layout,
        [layouts.FIRST, layouts.SECOND],
        config=layouts.set_to("architecture", architecture),
        descriptor=describe,
    )


def one(path: Path, architecture: str, name: str = "", **platform: str) -> Path:
    """A layout of one image."""
    layout = layouts.Layout(path)
    return layout.index(image(layout, architecture, name, **platform))


def nested(path: Path, architecture: str, name: str = "app", **more: object) -> Path:
    """A layout of an index called NAME, with one image."""
    layout = layouts.Layout(path)
    inner = {
        "schemaVersion": 2,
        "mediaType": layouts.INDEX,
        "manifests": [image(layout, architecture)],
        **more,
    }
    return layout.index(layout.document(inner, layouts.INDEX, annotations={REF_NAME: name}))


def test_two_architectures(tmp_path: Path) -> None:
    sources = [one(tmp_path / "a", "amd64"), one(tmp_path / "b", "arm64")]
    before = snapshot(tmp_path)
    assert merge(*sources, "-o", tmp_path / "out") == (0, "")
    index = clients.index_of(tmp_path / "out")
    assert index == {
        "schemaVersion": 2,
        "mediaType": layouts.INDEX,
        "manifests": [clients.index_of(source)["manifests"][0] for source in sources],
    }
    for number in range(2):
        assert clients.layer_tars(tmp_path / "out", number) == [layouts.FIRST, layouts.SECOND]
    assert {
        name: content for name, content in snapshot(tmp_path).items() if not name.startswith("out")
    } == before


def test_verify_finds_nothing(tmp_path: Path) -> None:
    sources = [
        one(tmp_path / "a", "amd64", "x"),
        nested(tmp_path / "b", "arm64"),
        nested(tmp_path / "c", "amd64"),
    ]
    assert merge(*sources, "-o", tmp_path / "out") == (0, "")
    program = [*command(Path("x"))[:-2], "verify", tmp_path / "out"]
    done = subprocess.run(program, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_indexes_of_one_name_become_one(tmp_path: Path) -> None:
    """So that `skopeo copy --all oci:OUT:app` pushes all architectures."""
    sources = [
        nested(tmp_path / "a", "amd64", annotations={"a": "1"}),
        nested(tmp_path / "b", "arm64", annotations={"a": "1", "b": "2"}),
    ]
    digest = tmp_path / "digest"
    assert merge(*sources, "-o", tmp_path / "out", "--digestfile", digest) == (0, "")
    (outer,) = clients.index_of(tmp_path / "out")["manifests"]
    assert (outer["mediaType"], outer["annotations"], outer["digest"]) == (
        layouts.INDEX,
        {REF_NAME: "app"},
        digest.read_text(),
    )
    inner = json.loads(clients.blob(tmp_path / "out", outer["digest"]))
    assert [manifest["platform"]["architecture"] for manifest in inner["manifests"]] == [
        "amd64",
        "arm64",
    ]
    assert inner["annotations"] == {"a": "1", "b": "2"}
    skopeo = clients.need("skopeo")
    target = f"oci:{tmp_path / 'copied'}:x"
    clients.run(
        skopeo,
        "--insecure-policy",
        "copy",
        "--all",
        "--preserve-digests",
        f"oci:{tmp_path / 'out'}:app",
        target,
    )
    assert clients.index_of(tmp_path / "copied")["manifests"][0]["digest"] == outer["digest"]


def test_annotations_that_differ(tmp_path: Path) -> None:
    sources = [
        nested(tmp_path / str(n), architecture, annotations={"a": str(n)})
        for n, architecture in enumerate(("amd64", "arm64"))
    ]
    status, said = merge(*sources, "-o", tmp_path / "out")
    assert status == 0
    assert said.startswith("build-oci: warning: ")
    assert "the annotation “a” has another value" in said
    (outer,) = clients.index_of(tmp_path / "out")["manifests"]
    assert json.loads(clients.blob(tmp_path / "out", outer["digest"]))["annotations"] == {"a": "0"}


@pytest.mark.parametrize("name", ["", "x"])
def test_one_platform_twice(tmp_path: Path, name: str) -> None:
    sources = [one(tmp_path / "a", "amd64", name), one(tmp_path / "b", "amd64", name)]
    status, said = merge(*sources, "-o", tmp_path / "out")
    assert status == 1
    assert said.startswith(
        f"build-oci: error: {tmp_path}/b/index.json: manifests[0]: is a second image for"
        " linux/amd64"
    )
    assert not (tmp_path / "out").exists()


def test_one_platform_twice_in_indexes(tmp_path: Path) -> None:
    sources = [nested(tmp_path / str(n), "amd64", annotations={"a": str(n)}) for n in range(2)]
    status, said = merge(*sources, "-o", tmp_path / "out")
    assert (status, "is a second image for linux/amd64 called “app”" in said) == (1, True)
    assert not (tmp_path / "out").exists()


def test_one_platform_under_two_names_or_in_two_variants(tmp_path: Path) -> None:
    sources = [
        one(tmp_path / "a", "arm64", "x"),
        one(tmp_path / "b", "arm64", "y"),
        one(tmp_path / "c", "arm64"),
        one(tmp_path / "d", "arm64", variant="v8"),
    ]
    assert merge(*sources, "-o", tmp_path / "out") == (0, "")
    assert len(clients.index_of(tmp_path / "out")["manifests"]) == 4


def test_a_descriptor_without_platform(tmp_path: Path) -> None:
    """The image's config says what it runs on."""
    layout = layouts.Layout(tmp_path / "a")
    descriptor = layouts.image(layout, [], descriptor=layouts.set_to("platform", None))
    layout.index(descriptor)
    assert merge(tmp_path / "a", "-o", tmp_path / "out") == (0, "")
    assert clients.index_of(tmp_path / "out")["manifests"][0]["platform"] == {
        "os": "linux",
        "architecture": "amd64",
    }
    assert merge(tmp_path / "a", one(tmp_path / "b", "amd64"), "-o", tmp_path / "second")[0] == 1


@pytest.mark.parametrize("harm", ["flipped", "longer", "missing", "link"])
@pytest.mark.parametrize("blob", ["layer", "manifest"])
def test_a_blob_that_is_not_what_it_is_called(tmp_path: Path, harm: str, blob: str) -> None:
    source = one(tmp_path / "a", "amd64")
    digest = (
        "sha256:" + layouts.FIRST_DIGEST
        if blob == "layer"
        else clients.index_of(source)["manifests"][0]["digest"]
    )
    path = source / "blobs" / digest.replace(":", "/")
    content = path.read_bytes()
    path.unlink()
    if harm == "flipped":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "longer":
        path.write_bytes(content + b"x")
    elif harm == "link":
        path.symlink_to("/dev/zero")
    (tmp_path / "out").mkdir()
    status, said = merge(source, "-o", tmp_path / "out")
    assert status == 1
    assert said.startswith(f"build-oci: error: {path}: ")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("digest", ["sha256:../../index.json", "md5:0", 5])
def test_a_digest_that_is_a_path(tmp_path: Path, digest: object) -> None:
    layout = layouts.Layout(tmp_path / "a")
    layout.index(layouts.image(layout, [], manifest=layouts.set_to("config.digest", digest)))
    status, said = merge(tmp_path / "a", "-o", tmp_path / "out")
    assert (status, "is no digest" in said) == (1, True)


def test_the_output_is_a_source(tmp_path: Path) -> None:
    source = one(tmp_path / "a", "amd64")
    before = snapshot(source)
    assert merge(source, "-o", source)[0] == 2
    assert snapshot(source) == before


def test_into_an_archive(tmp_path: Path) -> None:
    assert merge(
        one(tmp_path / "a", "amd64"),
        one(tmp_path / "b", "arm64"),
        "-o",
        f"oci-archive:{tmp_path / 'out.tar'}",
    ) == (0, "")
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert f"blobs/sha256/{layouts.FIRST_DIGEST}" in tar.getnames()


def test_arguments(tmp_path: Path) -> None:
    assert merge()[0] == 2
    assert merge(tmp_path)[0] == 2
    assert merge(tmp_path / "missing", "-o", tmp_path / "out")[0] == 1
    assert not (tmp_path / "out").exists()
