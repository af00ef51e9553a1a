"""Fixtures that several test modules share."""

from __future__ import annotations

import fcntl
import itertools
import os
import random
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import clients
import faults
import hypothesis
import pytest
import trees
import warm
import xattrs

xattrs.complete()

# Trees on disk make an example's time depend on the machine, and no test here is about time.
hypothesis.settings.register_profile(
    "build-oci",
    deadline=None,
    suppress_health_check=[
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.function_scoped_fixture,
    ],
)
hypothesis.settings.load_profile("build-oci")

DEBIAN_RELEASE = "bookworm"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "clients: needs a real container client")


def pytest_unconfigure() -> None:
    warm.stop()


class Build(Protocol):
    """Runs the command on a configuration, into a new directory."""

    def __call__(
        self,
        config: clients.Document | str,
        *,
        args: Sequence[str] = (),
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        check: bool = True,
        **more: Any,
    ) -> clients.BuildResult: ...


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """build(config, *, args, env, cwd, check): clients.run_build with an output of its own under
    tmp_path for every call.
    """
    numbers = itertools.count()

    def run(
        config: clients.Document | str, *, cwd: Path | None = None, **more: Any
    ) -> clients.BuildResult:
        return clients.run_build(
            config, tmp_path / f"output-{next(numbers)}", cwd=cwd or tmp_path, **more
        )

    return run


@pytest.fixture(scope="session")
def debian_tree() -> Path:
    """A Debian root file system: BUILD_OCI_DEBIAN_TREE, else made once with debootstrap into the
    user's cache.
    """
    if given := os.environ.get("BUILD_OCI_DEBIAN_TREE"):
        return Path(given)
    cache = Path.home() / ".cache" / "build-oci-tests"
    tree = cache / f"minbase-{DEBIAN_RELEASE}"
    if tree.is_dir():
        return tree
    clients.need_root()
    program = clients.need("debootstrap")
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "minbase.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker of these tests may be making it
        if tree.is_dir():
            return tree
        half = tree.with_suffix(".half-made")
        shutil.rmtree(half, ignore_errors=True)
        done = subprocess.run(
            [program, "--variant=minbase", DEBIAN_RELEASE, half],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            pytest.skip(
                "debootstrap could not make a Debian tree:"
                f" {(done.stderr or done.stdout).strip().splitlines()[-1:]}"
            )
        return half.rename(tree)


@pytest.fixture(scope="session")
def smaller_debian_tree(debian_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of it without two thirds of its files, which are all of a kind: clients take half a
    millisecond for each.
    """
    clients.need_root()
    tree = tmp_path_factory.mktemp("smaller")
    kinds = ("usr/share/man/*", "usr/share/zoneinfo/*", "usr/share/locale/*", "var/*/apt/*")
    without = " ".join(f"--exclude='./{kind}'" for kind in kinds)
    script = f'tar -c --xattrs -C "$0" {without} . | tar -xp --xattrs --xattrs-include="*" -C "$1"'
    clients.run("sh", "-ec", script, debian_tree, tree)
    return tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Of several segments, and a file among them with a digest of its own."""
    return faults.make_tree(tmp_path / "tree")


@pytest.fixture(scope="session")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faults.make_former(tmp_path_factory.mktemp("former") / "layout")


@pytest.fixture
def output(former: Path, tmp_path: Path) -> Path:
    """An output that holds a former image."""
    return shutil.copytree(former, tmp_path / "output")


@pytest.fixture
def odd_tree(tmp_path: Path) -> Path:
    """Some 300 odd names, always the same on the same kind of machine."""
    root = tmp_path / "odd"
    root.mkdir()
    trees.materialise(trees.random_tree(random.Random(4), 300, large=2), root)
    return root
