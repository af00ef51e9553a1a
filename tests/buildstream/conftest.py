"""One project for all tests of the element, because its base tree takes a while to import."""

from __future__ import annotations

import json
from pathlib import Path

import clients
import pytest
import sandbox_tree
from buildstream_project import CAPABILITY, EPOCH, IMAGES, IMPORTED, Project
from places import REPOSITORY

FILES = {"one": ["usr/bin/hi"], "two": ["usr/bin/hi", "opt/more"], "three": ["opt/extra"]}


def shim(root: Path) -> None:
    """What an element with a shim for capabilities installs: the library, and its data base."""
    library = root / "usr" / "libexec" / "fakecap" / "fakecap.so"
    library.parent.mkdir(parents=True)
    source = REPOSITORY / "docs" / "examples" / "pipeline" / "fakecap.c"
    clients.run(clients.need("cc"), "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl")
    (root / "fakecap").write_text(f"{CAPABILITY.hex()} usr/bin/hi\n")


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def local(project: Project) -> Path:
    return project.cache()


@pytest.fixture(scope="session")
def sdk(project: Project, local: Path) -> Path:
    """The layout of sdk.bst, built locally."""
    return project.layout(local, "sdk", "sdk")
