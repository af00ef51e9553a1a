"""A small root file system that build-oci runs in: this interpreter, a shell, and the packages that
build-oci needs.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import build_oci

PACKAGES = ["PyYAML", "deflate", "isal", "tqdm", "zstandard"]
_LEFT_OUT = {
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "ensurepip",
    "site-packages",
    "dist-packages",
    "lib2to3",
    "turtledemo",
    "__pycache__",
}


def make(root: Path) -> Path:
    """Put it into the directory ROOT, which does not exist. Some 90 MB."""
    library = Path(sysconfig.get_path("stdlib"))
    inside = root / "usr" / sys.platlibdir / library.name
    shutil.copytree(
        library,
        inside,
        ignore=lambda _, names: [
            name for name in names if name in _LEFT_OUT or name.startswith("config-")
        ],
    )
    packages = inside / "site-packages"
    for name in PACKAGES:
        distribution = importlib.metadata.distribution(name)
        for file in distribution.files or []:
            if ".." not in file.parts and "__pycache__" not in file.parts:
                _copy(Path(distribution.locate_file(file)), packages / file)  # type: ignore[arg-type]
    shutil.copytree(
        Path(build_oci.__file__).parent,
        packages / "build_oci",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    _copy(Path(sys.executable).resolve(), root / "usr" / "bin" / "python3")
    _copy(Path("/bin/sh").resolve(), root / "bin" / "sh")
    command = root / "usr" / "bin" / "build-oci"
    command.write_text("#!/usr/bin/python3\nfrom build_oci.__main__ import command\n\ncommand()\n")
    command.chmod(0o755)
    binaries = [root / "usr" / "bin" / "python3", root / "bin" / "sh", *root.rglob("*.so")]
    for library_path in sorted(set().union(*map(_libraries, binaries))):
        _copy(Path(library_path), root / library_path.lstrip("/"))
    for name in ("tmp", "dev", "proc"):
        (root / name).mkdir(exist_ok=True)
    return root


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(os.path.realpath(source), target)


def _libraries(binary: Path) -> set[str]:
    done = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False)
    return set(re.findall(r"(/\S+) \(0x", done.stdout))
