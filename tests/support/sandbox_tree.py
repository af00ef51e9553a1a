"""A small root file system that build-oci runs in: this interpreter, a shell, and the packages that
build-oci needs; and one that it can be built in, with a C compiler.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import build_oci

PACKAGES = ["PyYAML", "deflate", "isal", "tqdm", "zstandard"]
# Of the element `pyproject`, and of pyproject.toml.
BUILD_PACKAGES = ["Cython", "build", "installer", "packaging", "pyproject_hooks", "setuptools"]
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


def make(root: Path, *, programs: Sequence[str] = (), compiled: bool = False) -> Path:
    """Put it into the directory ROOT, which does not exist, with more PROGRAMS of this machine.
    Some 90 MB. COMPILED: with the byte code of all modules, which no time of a file makes stale.
    """
    packages = _python(root)
    shutil.copytree(
        Path(build_oci.__file__).parent,
        packages / "build_oci",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    command = root / "usr" / "bin" / "build-oci"
    command.write_text("#!/usr/bin/python3\nfrom build_oci.__main__ import command\n\ncommand()\n")
    command.chmod(0o755)
    for name in programs:
        _copy(Path(shutil.which(name) or name).resolve(), root / "usr" / "bin" / name)
    _libraries_of(root)
    if compiled:
        _compile(root)
    return root


def _compile(root: Path) -> None:
    mode = ["--invalidation-mode", "unchecked-hash"]
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", *mode, "-s", root, "-p", "/", root / "usr"],
        check=False,  # some of the library's tests are no Python
    )


def make_compiler(root: Path, site_packages: Path) -> Path:
    """Put into ROOT what builds build-oci and runs it then: no build-oci, but BUILD_PACKAGES from
    the directory SITE_PACKAGES, the compiler of this machine and Python's headers. Some 250 MB.

    LookupError where the compiler belongs to no Debian package.
    """
    packages = _python(root)
    for name in BUILD_PACKAGES:
        _distribution(name, packages, site_packages)
    headers = Path(sysconfig.get_path("include"))
    shutil.copytree(headers, root / "usr" / "include" / headers.name)
    for package in sorted({_package_of(file) for file in _compiler_files()}):
        listed = subprocess.run(["dpkg", "-L", package], capture_output=True, text=True, check=True)
        for line in listed.stdout.splitlines():
            file = Path(line)
            if file.is_symlink() or (file.is_file() and not line.startswith("/usr/share/")):
                _copy(file, root / line.lstrip("/"), follow=False)
    for alias in ("cc", "gcc", "as", "ld"):
        program = Path(os.path.realpath(shutil.which(alias) or alias))
        link = root / "usr" / "bin" / alias
        if not link.is_symlink():
            link.symlink_to(program.name)
    _libraries_of(root)
    return root


def _compiler_files() -> list[Path]:
    """The compiler, and a file of each package that it needs."""

    def asked(option: str, name: str) -> Path:
        command = ["cc", f"-print-{option}-name={name}"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        return Path(os.path.realpath(shutil.which(said) or said))

    return [
        Path(os.path.realpath(shutil.which("cc") or "cc")),
        *(asked("prog", name) for name in ("cc1", "collect2", "as", "ld")),
        *(asked("file", name) for name in ("crt1.o", "libgcc.a", "include/stdarg.h")),
        Path("/usr/include/stdio.h"),
        Path("/usr/include/linux/limits.h"),
    ]


def _package_of(file: Path) -> str:
    if shutil.which("dpkg-query"):
        done = subprocess.run(
            ["dpkg-query", "-S", file], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return done.stdout.split(": ")[0]
    raise LookupError(f"{file} belongs to no Debian package")


def _python(root: Path) -> Path:
    """The interpreter with PACKAGES, and a shell; the directory that packages are in."""
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
        _distribution(name, packages)
    _copy(Path(sys.executable).resolve(), root / "usr" / "bin" / "python3")
    _copy(Path("/bin/sh").resolve(), root / "bin" / "sh")
    for name in ("tmp", "dev", "proc"):
        (root / name).mkdir(exist_ok=True)
    return packages


def _distribution(name: str, packages: Path, site_packages: Path | None = None) -> None:
    """Copy the files of the installed distribution NAME."""
    if site_packages is None:
        distribution = importlib.metadata.distribution(name)
    else:
        found = importlib.metadata.distributions(name=name, path=[str(site_packages)])
        distribution = next(iter(found))
    for file in distribution.files or []:
        if ".." not in file.parts and "__pycache__" not in file.parts:
            _copy(Path(distribution.locate_file(file)), packages / file)  # type: ignore[arg-type]


def _libraries_of(root: Path) -> None:
    """Copy the shared libraries of all programs of ROOT."""
    programs = [
        path
        for path in root.rglob("*")
        if path.is_file()
        and not path.is_symlink()
        and (path.suffix == ".so" or path.stat().st_mode & 0o111)
    ]
    for library in sorted(set().union(*map(_libraries, programs))):
        _copy(Path(library), root / library.lstrip("/"))


def _copy(source: Path, target: Path, *, follow: bool = True) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.is_symlink():
        shutil.copy2(source, target, follow_symlinks=follow)


def _libraries(binary: Path) -> set[str]:
    done = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False)
    return set(re.findall(r"(/\S+) \(0x", done.stdout))
