"""The package as a library."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import clients
import pytest

import build_oci


@pytest.fixture
def config(tmp_path: Path) -> build_oci.BuildConfig:
    root = tmp_path / "root"
    root.mkdir()
    for number in range(30):
        (root / f"file{number}").write_bytes(bytes([number]) * 100_000)
    return build_oci.load_config(f"images: [{{architecture: amd64, os: linux, layer: {root}}}]")


def test_names() -> None:
    for name in build_oci.__all__:
        assert getattr(build_oci, name), name
    with pytest.raises(AttributeError, match="nonsense"):
        build_oci.nonsense  # noqa: B018


def test_importing_the_package_imports_nothing_else() -> None:
    """The command line starts without what it does not use."""
    code = (
        "import sys, build_oci; print([name for name in sys.modules if"
        " name.startswith('build_oci')])"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout == "['build_oci.version', 'build_oci']\n"


def test_a_build(config: build_oci.BuildConfig, tmp_path: Path) -> None:
    heard: list[build_oci.Progress] = []
    result = build_oci.build(config, output=tmp_path / "out", on_progress=heard.append)
    assert result.output == str(tmp_path / "out")
    assert result.images[0].digest == clients.index_of(tmp_path / "out")["manifests"][0]["digest"]
    assert heard[-1].stage == "done"


def test_builds_in_many_threads(config: build_oci.BuildConfig, tmp_path: Path) -> None:
    """No global state: each has its own output, and all are equal."""
    with ThreadPoolExecutor(6) as pool:
        results = list(
            pool.map(
                lambda number: build_oci.build(
                    config, output=tmp_path / str(number), workers=2, epoch=1
                ),
                range(12),
            )
        )
    assert len({result.images[0].digest for result in results}) == 1


def test_cancelled_from_another_thread(config: build_oci.BuildConfig, tmp_path: Path) -> None:
    cancels: list[Callable[[], None]] = []

    def listen(progress: build_oci.Progress) -> None:
        if progress.stage == "pack":
            other = threading.Thread(target=cancels[0])
            other.start()
            other.join()

    with pytest.raises(build_oci.Cancelled):
        build_oci.build(
            config, output=tmp_path / "out", workers=2, started=cancels.append, on_progress=listen
        )
    assert not (tmp_path / "out").exists()


def test_wrong_workers(config: build_oci.BuildConfig, tmp_path: Path) -> None:
    with pytest.raises(build_oci.UsageError, match="0 is no number of threads"):
        build_oci.build(config, output=tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()
