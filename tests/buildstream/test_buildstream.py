"""The element oci_image in a BuildStream project: the same layouts locally, from an empty cache,
and through remote execution.

`make test-buildstream` installs BuildStream with the plugin and runs this. BUILD_OCI_BST is the
path of its `bst`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clients
import pytest
import sandbox_tree

pytestmark = [
    pytest.mark.buildstream,
    pytest.mark.slow,
    pytest.mark.skipif("BUILD_OCI_BST" not in os.environ, reason="make test-buildstream runs it"),
]

EPOCH = "1700000000"
SECONDS = 300  # for one run of bst
PLUGIN = Path(__file__).parents[2] / "buildstream" / "build_oci_buildstream"
CONFIG = {
    "Env": ["A=$HOME `id` 'EOF' \"quoted\""],
    "Cmd": ["hi"],
    "StopTimeout": 3,
    "Tty": False,
    "Labels": {"containers.bootc": "1", "date": "2026-01-01"},
}
IMPORTED = "kind: import\nsources:\n- kind: local\n  path: files/{}\n"
IMAGES = {
    "runtime": f"""
kind: oci_image
build-depends:
- base.bst
- filename: one.bst
  config: {{layer: runtime}}
config:
  compression-level: 4
  images:
  - os: linux
    architecture: amd64
    layer: runtime
    config: {json.dumps(CONFIG)}
""",
    "sdk": """
kind: oci_image
build-depends:
- base.bst
- filename: two.bst
  config: {layer: sdk}
- filename: runtime.bst
  config: {parent: runtime}
variables:
  compression: gzip
config:
  compression: "%{compression}"
  images:
  - os: linux
    architecture: amd64
    layer: sdk
    parent: {image: runtime}
""",
    "divided": """
kind: oci_image
build-depends:
- base.bst
- filename: two.bst
  config: {layer: sdk}
config:
  images:
  - os: linux
    architecture: amd64
    layer: sdk
    split:
      components: [{paths: {commands: [usr/bin], extras: ["opt/**"]}}]
      max-layers: 4
      plan: layers.json
""",
    "changed": """
kind: oci_image
build-depends:
- base.bst
- filename: one.bst
  config: {layer: changed}
config:
  commands:
  - |
    cat() { while read -r line; do echo "$line"; done; }
    cat > /oci/layers/changed/greeting <<EOF
    $0 says hello
    EOF
  images:
  - {os: linux, architecture: amd64, layer: changed}
""",
}


class Project:
    """A project with a cache of its own, and what it builds."""

    def __init__(self, path: Path, scratch: Path) -> None:
        self.path = path
        self._scratch = scratch
        self._caches = 0

    def cache(self, **more: Any) -> Path:
        """A user's configuration with an empty cache."""
        self._caches += 1
        cache = self._scratch / f"cache-{self._caches}"
        config = cache.with_suffix(".conf")
        places = {
            "cachedir": f"{cache}",
            "sourcedir": f"{cache}/sources",
            "logdir": f"{cache}/logs",
        }
        config.write_text(json.dumps({**places, "scheduler": {"builders": 1}, **more}))
        return config

    def bst(self, config: Path, *arguments: str, check: bool = True) -> str:
        """What bst says, on both of its streams."""
        done = subprocess.run(
            [
                os.environ["BUILD_OCI_BST"],
                "-c",
                config,
                "--no-colors",
                "--no-interactive",
                *arguments,
            ],
            cwd=self.path,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert (done.returncode == 0) == check, done.stdout + done.stderr
        return done.stdout + done.stderr

    def key(self, config: Path, element: str, *options: str) -> str:
        said = self.bst(
            config,
            *options,
            "show",
            "--deps",
            "none",
            "--format",
            "key=%{full-key}",
            f"{element}.bst",
        )
        (found,) = re.findall(r"key=([0-9a-f]{64})", said)
        return str(found)

    def layout(self, config: Path, element: str, name: str) -> Path:
        """ELEMENT, built and checked out."""
        self.bst(config, "build", f"{element}.bst")
        target = self._scratch / name
        shutil.rmtree(target, ignore_errors=True)
        self.bst(config, "artifact", "checkout", "--directory", str(target), f"{element}.bst")
        return target


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    path = tmp_path_factory.mktemp("project")
    (path / "elements").mkdir()
    origin = {"origin": "pip", "package-name": "build-oci-buildstream", "elements": ["oci_image"]}
    document = {
        "name": "test",
        "min-version": "2.0",
        "element-path": "elements",
        "plugins": [origin],
    }
    (path / "project.conf").write_text(
        json.dumps({**document, "environment": {"SOURCE_DATE_EPOCH": EPOCH}})
    )
    sandbox_tree.make(path / "files" / "base")
    for name, files in {"one": ["usr/bin/hi"], "two": ["usr/bin/hi", "opt/more"]}.items():
        for file in files:
            target = path / "files" / name / file
            target.parent.mkdir(parents=True)
            target.write_text(file)
    for name in ("base", "one", "two"):
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


def contents(layout: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(layout)): file.read_bytes()
        for file in layout.rglob("*")
        if file.is_file()
    }


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


@contextlib.contextmanager
def worker(storage: Path, *arguments: str) -> Iterator[str]:
    """The URL of a server with storage, action cache and execution, on this machine alone."""
    bst = Path(os.environ["BUILD_OCI_BST"])
    (programs,) = bst.parents[1].glob("lib/python3*/site-packages/buildstream/subprojects/buildbox")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command: list[str | Path] = [
        programs / "buildbox-casd",
        f"--bind=127.0.0.1:{port}",
        f"--buildbox-run={programs / 'buildbox-run'}",
        *arguments,
        storage,
    ]
    log = storage.with_suffix(".log")
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        )
    try:
        for _ in range(100):
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", port), timeout=1),
            ):
                break
            assert server.poll() is None, log.read_text(errors="replace")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.mark.parametrize(
    "arguments", [(), ("--runner-arg=--staging-mode=copy-or-link",)], ids=["fuse", "copy-or-link"]
)
def test_remote_execution(
    project: Project, sdk: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    with worker(tmp_path / "worker", *arguments) as url:
        services = {
            name: {"url": url}
            for name in ("execution-service", "storage-service", "action-cache-service")
        }
        config = project.cache(**{"remote-execution": services})
        layout = project.layout(config, "sdk", "remote")
        divided = project.layout(config, "divided", "remote-divided")
        assert "Waiting for the remote build" in project.bst(config, "artifact", "log", "sdk.bst")
    assert contents(layout) == contents(sdk)
    assert contents(divided) == contents(
        project.layout(project.cache(), "divided", "local-divided")
    )


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
