"""The element oci_image in a BuildStream project: the same layouts locally, from an empty cache,
and through remote execution.

`make test-buildstream` installs BuildStream with the plugin and runs this. BUILD_OCI_BST is the
path of its `bst`.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import clients
import oracles
import pytest
import sandbox_tree
import yaml
from buildstream_project import (
    CAPABILITY,
    CONFIG,
    EPOCH,
    IMAGES,
    IMPORTED,
    Project,
    contents,
    worker,
)
from places import REPOSITORY

pytestmark = [
    pytest.mark.buildstream,
    pytest.mark.once,
    pytest.mark.skipif("BUILD_OCI_BST" not in os.environ, reason="make test-buildstream runs it"),
]

# A layer upon another, many layers, layers of several elements, and what a shim says.
ELSEWHERE = ("sdk", "divided", "composed", "capable")
PLUGIN = REPOSITORY / "buildstream" / "build_oci_buildstream"
UNCHECKED_HASH = b"\1\0\0\0"  # the flags of byte code, by PEP 552
FILES = {"one": ["usr/bin/hi"], "two": ["usr/bin/hi", "opt/more"], "three": ["opt/extra"]}


def shim(root: Path) -> None:
    """What an element with a shim for capabilities installs: the library, and its data base."""
    library = root / "usr" / "libexec" / "fakecap" / "fakecap.so"
    library.parent.mkdir(parents=True)
    source = REPOSITORY / "docs" / "examples" / "pipeline" / "fakecap.c"
    clients.run(clients.need("cc"), "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl")
    (root / "fakecap").write_text(f"{CAPABILITY.hex()} usr/bin/hi\n")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    path = tmp_path_factory.mktemp("project")
    (path / "elements").mkdir()
    plugins = {
        "build-oci-buildstream": ["oci_image"],
        "buildstream-plugins-community": ["pyproject"],
    }
    document = {
        "name": "test",
        "min-version": "2.0",
        "element-path": "elements",
        "variables": {"strip-binaries": ""},  # the base tree has no tools for it
        "plugins": [
            {"origin": "pip", "package-name": package, "elements": elements}
            for package, elements in plugins.items()
        ],
    }
    (path / "project.conf").write_text(
        json.dumps({**document, "environment": {"SOURCE_DATE_EPOCH": EPOCH}})
    )
    sandbox_tree.make(path / "files" / "base")
    for name, files in FILES.items():
        for file in files:
            target = path / "files" / name / file
            target.parent.mkdir(parents=True)
            target.write_text(file)
    shim(path / "files" / "fakecap")
    for name in ("base", "fakecap", *FILES):
        (path / "elements" / f"{name}.bst").write_text(IMPORTED.format(name))
    for name, text in IMAGES.items():
        (path / "elements" / f"{name}.bst").write_text(text)
    return Project(path, tmp_path_factory.mktemp("scratch"))


@pytest.fixture(scope="module")
def local(project: Project) -> Path:
    return project.cache()


@pytest.fixture(scope="module")
def sdk(project: Project, local: Path) -> Path:
    """The layout of sdk.bst, built locally."""
    return project.layout(local, "sdk", "sdk")


def config_of(layout: Path) -> Any:
    return json.loads(clients.blob(layout, clients.manifest_of(layout)["config"]["digest"]))[
        "config"
    ]


def names(tar: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return archive.getnames()


def test_layers(sdk: Path) -> None:
    """The parent's layer below, recompressed; above it, what is new."""
    assert [
        layer["mediaType"].rpartition("+")[2] for layer in clients.manifest_of(sdk)["layers"]
    ] == ["gzip", "gzip"]
    assert list(map(names, clients.layer_tars(sdk))) == [
        [".", "usr", "usr/bin", "usr/bin/hi"],
        [".", "opt", "opt/more"],
    ]


def test_split(project: Project, local: Path) -> None:
    """The plan lies in the artifact, beside the layout."""
    layout = project.layout(local, "divided", "divided")
    assert len(clients.layer_tars(layout)) > 1
    assert set(json.loads((layout / "layers.json").read_text())) > {"layers"}


def test_ownership(project: Project, local: Path) -> None:
    """The script of docs/pipeline.md reads what BuildStream lists."""
    project.bst(local, "build", "two.bst", "three.bst")
    listed = project.bst(local, "artifact", "list-contents", "three.bst", "two.bst")
    script = REPOSITORY / "docs" / "examples" / "pipeline" / "ownership"
    owned = clients.run(script, project.path / "files" / "two", stdin=listed)
    assert sorted(owned.splitlines()) == ["opt/more\ttwo", "usr/bin/hi\ttwo"]


def test_previous(project: Project, local: Path) -> None:
    """An image of an earlier build as a dependency: the plan of that build is kept, and the image
    is the same.
    """
    text = IMAGES["divided"].replace(
        "config:\n  images",
        "- filename: divided.bst\n  config: {previous: former}\nconfig:\n  images",
    )
    text = text.replace(
        "    split:",
        "    previous: {image: former, plan: /oci/previous/former/layers.json}\n    split:",
    )
    (project.path / "elements" / "again.bst").write_text(text)
    again, divided = (
        project.layout(local, "again", "again"),
        project.layout(local, "divided", "divided"),
    )
    assert clients.manifest_of(again)["layers"] == clients.manifest_of(divided)["layers"]


def test_types_and_shell(project: Project, local: Path, sdk: Path) -> None:
    """Numbers and booleans are such, a date stays a string, and no shell has touched any of it."""
    assert config_of(project.layout(local, "runtime", "runtime")) == CONFIG


def test_commands(project: Project, local: Path) -> None:
    layout = project.layout(local, "changed", "changed")
    assert "greeting" in [name.removeprefix("./") for name in names(clients.layer_tars(layout)[0])]


def test_composed(project: Project, local: Path) -> None:
    """The layers of each element; after a change of one, the others come from the cache."""

    def layers(element: str) -> list[Any]:
        layout = project.layout(local, element, element)
        return [layer["digest"] for layer in clients.manifest_of(layout)["layers"]]

    runtime, extras = layers("runtime"), layers("extras")
    assert layers("composed") == runtime + extras
    assert config_of(project.layout(local, "composed", "composed")) == {"Labels": {"version": "2"}}
    changed = project.path / "files" / "three" / "opt" / "extra"
    changed.write_text("changed")
    try:
        said = project.bst(local, "build", "composed.bst")
        assert layers("composed")[:-1] == runtime
        assert layers("composed")[-1] not in extras
    finally:
        changed.write_text("opt/extra")
    built = set(re.findall(r"build:(\w+)\.bst", said))
    assert built == {"three", "extras", "composed"}


def test_capabilities_by_a_shim(project: Project, local: Path) -> None:
    """contract: xattr-shims. In the sandbox as outside of it."""
    layout = project.layout(local, "capable", "capable")
    model = oracles.apply_layer(io.BytesIO(clients.layer_tars(layout)[0]), {})
    assert {name: node.xattrs for name, node in model.items() if node.xattrs} == {
        b"usr/bin/hi": {"security.capability": CAPABILITY}
    }


def offline_elements(project: Project) -> None:
    """build-oci from its source by the element of the page, and an image with that tool."""
    bst = Path(os.environ["BUILD_OCI_BST"])
    (site_packages,) = bst.parents[1].glob("lib/python3*/site-packages")
    sandbox_tree.make_compiler(project.path / "files" / "compiler", site_packages)
    source = project.path / "files" / "source"
    shutil.copytree(
        REPOSITORY / "build_oci",
        source / "build_oci",
        ignore=shutil.ignore_patterns("*.so", "__pycache__"),
    )
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copyfile(REPOSITORY / name, source / name)
    page = (REPOSITORY / "docs" / "packaging.md").read_text()
    (text,) = re.findall(r"```yaml\n(kind: pyproject\n.*?)```", page, re.DOTALL)
    element = yaml.safe_load(text)
    del element["runtime-depends"]
    element["build-depends"] = ["compiler.bst"]
    element["sources"] = [{"kind": "local", "path": "files/source"}]
    element["environment"] = {"CFLAGS": "-O0"}  # sooner done
    elements = project.path / "elements"
    (elements / "compiler.bst").write_text(IMPORTED.format("compiler"))
    (elements / "build-oci.bst").write_text(json.dumps(element))
    (elements / "by-that.bst").write_text(
        IMAGES["runtime"].replace("- base.bst", "- compiler.bst\n- build-oci.bst")
    )


def test_built_offline(project: Project, local: Path) -> None:
    """The element of docs/packaging.md builds build-oci without network, and the tool works."""
    try:
        offline_elements(project)
    except LookupError as reason:
        pytest.skip(str(reason))
    assert contents(project.layout(local, "by-that", "by-that")) == contents(
        project.layout(local, "runtime", "runtime")
    )
    tool = project.layout(local, "build-oci", "build-oci")
    modules = {path.stem for path in tool.rglob("*.py")}
    compiled = [path for path in tool.rglob("*.pyc") if ".opt-" not in path.name]
    assert {path.name.partition(".")[0] for path in compiled} == modules
    # Of a time, which is another one in the sandbox, Python would find the code stale.
    assert {path.read_bytes()[4:8] for path in compiled} == {UNCHECKED_HASH}


def test_same_outside(project: Project, local: Path, sdk: Path, tmp_path: Path) -> None:
    """What bst checks out of the directories, packed here: the same layout as that of the
    sandbox.
    """
    images: dict[str, Any] = {}
    for name, layer in (("runtime", "one"), ("sdk", "two")):
        project.bst(
            local, "artifact", "checkout", "--directory", str(tmp_path / layer), f"{layer}.bst"
        )
        images[name] = {"os": "linux", "architecture": "amd64", "layer": str(tmp_path / layer)}
    runtime = {"compression-level": 4, "images": [{**images["runtime"], "config": CONFIG}]}
    parent = clients.run_build(
        runtime, tmp_path / "runtime", cwd=tmp_path, env={"SOURCE_DATE_EPOCH": EPOCH}
    ).output
    document = {
        "compression": "gzip",
        "images": [{**images["sdk"], "parent": {"image": str(parent)}}],
    }
    outside = clients.run_build(
        document, tmp_path / "sdk", cwd=tmp_path, env={"SOURCE_DATE_EPOCH": EPOCH}
    ).output
    assert contents(outside) == contents(sdk)


def test_empty_cache(project: Project, sdk: Path) -> None:
    assert contents(project.layout(project.cache(), "sdk", "again")) == contents(sdk)


@pytest.mark.parametrize(
    "arguments", [(), ("--runner-arg=--staging-mode=copy-or-link",)], ids=["fuse", "copy-or-link"]
)
def test_remote_execution(
    project: Project, local: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    with worker(tmp_path / "worker", *arguments) as url:
        services = {
            name: {"url": url}
            for name in ("execution-service", "storage-service", "action-cache-service")
        }
        config = project.cache(**{"remote-execution": services})
        built = {
            name: contents(project.layout(config, name, f"remote-{name}")) for name in ELSEWHERE
        }
        assert "Waiting for the remote build" in project.bst(config, "artifact", "log", "sdk.bst")
    assert built == {
        name: contents(project.layout(local, name, f"local-{name}")) for name in ELSEWHERE
    }


def test_workers_are_no_part_of_the_cache_key(project: Project, local: Path) -> None:
    assert project.key(local, "sdk", "--max-jobs", "1") == project.key(
        local, "sdk", "--max-jobs", "7"
    )


def test_the_document_is_part_of_the_cache_key(project: Project, local: Path) -> None:
    keys = set()
    for level in ("4", "5"):
        (project.path / "elements" / "bad.bst").write_text(
            IMAGES["runtime"].replace("level: 4", f"level: {level}")
        )
        keys.add(project.key(local, "bad"))
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ("compression-level: 4", "compression-level: 40"),
            "bad.bst [line 8 column 21]: config.compression-level must be a whole number",
        ),
        (("compression-level: 4", "compresion: gzip"), "config.compresion is unknown"),
        (("    os: linux", "    variant: v8"), "config.images[0] lacks “os”"),
        (
            ("    layer: runtime", "    layer: other"),
            "no dependency is the layer “other”; those that are: “runtime”",
        ),
        (
            ("config: {layer: runtime}", "config: {parent: runtime}"),
            "no dependency is the layer “runtime”; those that are: none",
        ),
        (("config: {layer: runtime}", "config: {layer: a/b}"), "needs a name that is one word"),
        (("- base.bst\n", ""), "no dependency brings build-oci"),
        (
            ("    layer: runtime", "    parent: {image: /a}"),
            "no image of this element names the layer “runtime”",
        ),
        (("compression-level: 4", "compression: lzma"), 'config.compression must be one of "zstd"'),
        (
            ("compression-level: 4", "compression: [zstd, disabled]"),
            "config.compression must be [gzip, zstd] or",
        ),
        (
            ("compression-level: 4", "compression: [gzip, zstd]\n  compression-level: 12"),
            "must be a whole number from 1 to 9",
        ),
        (
            ("compression-level: 4", "skip-xattrs: maybe"),
            "config.skip-xattrs must be boolean, not “maybe”",
        ),
    ],
)
def test_errors_when_the_project_loads(
    project: Project, local: Path, change: tuple[str, str], said: str
) -> None:
    """Nothing is built, and nothing waits for what the tool would say an hour later."""
    text = (
        IMAGES["runtime"]
        .replace("  - os: linux\n    architecture", "  - architecture")
        .replace("amd64\n", "amd64\n    os: linux\n")
    )
    assert change[0] in text
    (project.path / "elements" / "bad.bst").write_text(text.replace(*change, 1))
    assert said in project.bst(local, "show", "bad.bst", check=False)


def test_local_origin(project: Project, local: Path, tmp_path: Path) -> None:
    """A project that has a copy of the plugin."""
    other = tmp_path / "project"
    shutil.copytree(project.path / "elements", other / "elements")
    shutil.copytree(project.path / "files", other / "files", symlinks=True)
    shutil.copytree(PLUGIN, other / "plugins")
    document = json.loads((project.path / "project.conf").read_text())
    document["plugins"] = [{"origin": "local", "path": "plugins", "elements": ["oci_image"]}]
    (other / "project.conf").write_text(json.dumps(document))
    assert Project(other, tmp_path).key(local, "sdk") == project.key(local, "sdk")
