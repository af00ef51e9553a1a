"""Limits of descriptors, memory and threads, and many images: one clear error or a build within
them."""

from __future__ import annotations

import errno
import functools
import json
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import clients
import layouts
import oracles
import pytest
from faults import (
    TIMEOUT,
    check_layout,
    environment,
    fault,
    names,
    parent,
    run,
    snapshot,
    unharmed,
    upon,
)
from preload import need_memory_as_built

import build_oci.cli.command
from build_oci.errors import Cancelled, TreeError
from build_oci.work.crew import Crew

__all__ = ["parent"]
pytestmark = pytest.mark.once


# ---- limits


OPEN_FILES = (
    ": Too many open files\nhint: raise the limit of open files (ulimit -n), or use fewer workers"
    " (-j)\n"
)


@pytest.mark.parametrize("limit", [64, 20, 9, 7])
def test_few_descriptors(limit: int, tree: Path, output: Path) -> None:
    """Enough descriptors, or an error that says so."""
    before = names(output)
    lower = functools.partial(resource.setrlimit, resource.RLIMIT_NOFILE, (limit, limit))
    status, said = run(clients.layer_config(tree), output, "-j2", preexec=lower)
    if limit >= 20:
        assert (status, said) == (0, "")
    elif status:
        assert (status, names(output)) == (1, before)
        assert OPEN_FILES in said


@pytest.mark.parametrize(
    ("key", "opened"),
    [
        ("parent", "index.json"),
        ("parent", "blobs/*"),
        ("archive", ""),
        ("previous", "index.json"),
        ("previous", "blobs/*"),
        ("plan", ""),
        ("map", ""),
        ("tree", "d"),
        ("tree", "d/large"),
    ],
)
def test_one_file_too_many(key: str, opened: str, tree: Path, parent: Path, tmp_path: Path) -> None:
    """contract: cli-errors. The same where an input is opened, also in place of hints that would
    lead nowhere.
    """
    place, config = tmp_path / "file", clients.layer_config(tree)
    (image,) = config["images"]
    place.write_text("")
    match key:
        case "parent" | "previous":
            place, image[key] = parent, {"image": str(parent)}
        case "archive":
            image["parent"] = {"image": str(place)}
        case "tree":
            place = tree
        case "plan":
            image["split"] = {"components": [{"paths": {"a": ["d/0*"]}}]}
            image["previous"] = {"plan": str(place)}
        case "map":
            image["split"] = {"components": [{"file": str(place)}]}
    status, said = run(
        config,
        tmp_path / "output",
        **fault("open", f"{place}/{opened}" if opened else place, 0, error=errno.EMFILE),
    )
    assert status
    assert str(place) in said
    assert said.endswith(OPEN_FILES)


def test_few_descriptors_on_parent(tree: Path, parent: Path, output: Path) -> None:
    lower = functools.partial(resource.setrlimit, resource.RLIMIT_NOFILE, (64, 64))
    assert run(upon(clients.layer_config(tree), parent), output, "-j8", preexec=lower) == (0, "")
    check_layout(output)


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
@pytest.mark.parametrize("limit", [96, 160, 224, 288, 352, 416, 512])
def test_little_memory(
    limit: int, compression: str, tree: Path, parent: Path, output: Path
) -> None:
    """So many MiB of addresses: enough, or an error that says so; never a crash."""
    need_memory_as_built()
    before = snapshot(output)
    lower = functools.partial(resource.setrlimit, resource.RLIMIT_AS, (limit << 20, limit << 20))
    status, said = run(
        upon(clients.layer_config(tree, compression=compression), parent),
        output,
        "-j2",
        preexec=lower,
    )
    if status:
        assert status == 1
        assert "memory" in said
        assert snapshot(output) == before
    check_layout(output)


@pytest.mark.parametrize(
    "what", ["can't start new thread", "zstd compress error: Allocation error : not enough memory"]
)
def test_exhausted(
    what: str,
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Out of memory in other words is no bug of ours (contract: cli-errors: what, where, the way
    out).
    """

    def fail(*_: object) -> None:
        raise RuntimeError(what)

    monkeypatch.setattr(threading.Thread, "start", fail)
    (tmp_path / "config.yaml").write_text(json.dumps(clients.layer_config(tree)))
    assert (
        build_oci.cli.command.main(
            ["-o", str(tmp_path / "output"), "-f", str(tmp_path / "config.yaml")]
        )
        == 1
    )
    assert capsys.readouterr().err.startswith(
        f"build-oci: error: out of memory or threads: {what}\nhint: "
    )
    assert not (tmp_path / "output").exists()


# ---- many images


@pytest.mark.parametrize("workers", ["-j1", "-j2", "-j7"])
def test_many_images(workers: str, tree: Path, tmp_path: Path) -> None:
    """contract: promise-memory. The least there may be is enough for all of them, whatever the
    -j.
    """
    small = tmp_path / "small"
    small.mkdir()
    (small / "file").write_bytes(b"x" * 3_000_000)
    layers = [tree, small, tree / "d"]
    images = [
        {"os": "linux", "architecture": "amd64", "layer": str(layers[number % 3])}
        for number in range(12)
    ]
    output = tmp_path / "output"
    assert run(
        {"prefetch-limit-mb": 1, "compression": "disabled", "images": images}, output, workers
    ) == (0, "")
    expected = [oracles.expected_tar(layer) for layer in layers]
    assert [clients.layer_tars(output, number)[0] for number in range(12)] == expected * 4


def test_one_image_fails(tree: Path, output: Path, tmp_path: Path) -> None:
    """The error is that of the image which failed."""
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "file").write_text("x")
    images = [
        {"os": "linux", "architecture": "amd64", "layer": str(layer)}
        for layer in [tree, tree, tmp_path / "bad", tree]
    ]
    with unharmed(output):
        status, said = run(
            {"images": images}, output, **fault("read", tmp_path / "bad" / "file", error=errno.EIO)
        )
    assert (status, said) == (
        1,
        f"build-oci: error: {tmp_path / 'bad' / 'file'}: cannot be read: Input/output error\n",
    )


def test_the_reason_wins() -> None:
    """One that was stopped may end before the one that failed: still the failure is told."""
    stopped = threading.Event()

    def work(item: str) -> None:
        if item == "fails":
            threads.cancel()  # as the layers of a parent do when one of them fails
            stopped.wait(10)
            raise TreeError("is broken")
        try:
            while True:
                threads.check()
        finally:
            stopped.set()

    with pytest.raises(TreeError), Crew(2, 1 << 20) as threads:
        threads.each(work, ["stopped", "fails"], at_once=2)
    with pytest.raises(Cancelled):
        threads.check()


def peak_of(config: clients.Document, workers: int, output: Path) -> int:
    """MiB of memory that a build takes. Not ru_maxrss, in which the process that forked it counts
    too.
    """
    need_memory_as_built()
    program = (
        "import re, sys; from build_oci.cli.command import main; status = main(sys.argv[1:]); peak"
        " = re.search(r'VmHWM:\\s*(\\d+) kB', open('/proc/self/status').read());"
        " sys.exit(f'{status} {int(peak[1]) >> 10}')"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, f"-j{workers}", "-o", output],
        input=json.dumps(config), env=environment(), capture_output=True, text=True, check=False,
        timeout=TIMEOUT,
    )  # fmt: skip
    status, peak = map(int, done.stderr.splitlines()[-1].split())
    assert status == 0
    return peak


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("noise")
    for number in range(100):
        (tree / f"{number}").write_bytes(os.urandom((1 << 20) + 1))
        (tree / f"{number}x").write_bytes(b"x")
    return tree


# contract: promise-memory: prefetch-limit-mb + 128 MiB, and 300 MiB by default, however many
# workers and images; noise fills codecs most.


@pytest.mark.parametrize(
    ("limit", "most", "workers"), [(512, 300, 8), (64, 192, 8), (64, 192, 4), (1, 129, 8)]
)
@pytest.mark.parametrize("codec", ["zstd", "gzip", "disabled"])
def test_memory_of_what_does_not_shrink(
    limit: int, most: int, workers: int, codec: str, noise: Path, tmp_path: Path
) -> None:
    config = clients.layer_config(noise, compression=codec)
    config |= {"prefetch-limit-mb": limit, "images": 2 * config["images"]}
    assert peak_of(config, workers, tmp_path / "output") <= most


def test_memory_of_slow_levels(noise: Path, tmp_path: Path) -> None:
    """Whose compressors take 100 MiB each at the least."""
    config = clients.layer_config(noise, compression="zstd", **{"compression-level": 8})
    assert peak_of(config | {"images": 2 * config["images"]}, 4, tmp_path / "output") <= 300


@pytest.fixture(scope="module")
def six_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image of six layers of 40 MiB of noise."""
    archives = [layouts.archive((f"{number}", os.urandom(40 << 20))) for number in range(6)]
    parent = layouts.Layout(tmp_path_factory.mktemp("six") / "parent")
    parent.index(layouts.image(parent, archives))
    return parent.path


EACH_KIND = pytest.mark.parametrize(
    "more",
    [
        {"compression": "gzip"},
        {"compression": "zstd"},
        {"compression": "zstd", "compression-level": 9},
    ],
)


@EACH_KIND
def test_memory_of_many_layers(more: clients.Document, six_layers: Path, tmp_path: Path) -> None:
    """Layers of a parent are recompressed side by side, but no more of them than there is memory
    for.
    """
    image = {"architecture": "amd64", "os": "linux", "parent": {"image": str(six_layers)}}
    assert peak_of({**more, "images": [image]}, 8, tmp_path / "output") <= 300


@pytest.fixture(scope="module")
def many_components(tmp_path_factory: pytest.TempPathFactory) -> clients.Document:
    """An image that is split into 4 large layers, 16 of a block and 100 small ones."""
    scratch = tmp_path_factory.mktemp("many")
    tree = scratch / "tree"
    tree.mkdir()
    owners = []
    for number, size in enumerate([30 << 20] * 4 + [8 << 20] * 16 + [1 << 16] * 100):
        (tree / f"{number}").write_bytes(os.urandom(size))
        owners.append(f"{number}\tcomponent-{number}\n")
    (scratch / "owners").write_text("".join(owners))
    split = {"max-layers": 200, "components": [{"file": str(scratch / "owners")}]}
    return {"architecture": "amd64", "os": "linux", "layer": str(tree), "split": split}


@EACH_KIND
def test_memory_of_split(
    more: clients.Document, many_components: clients.Document, tmp_path: Path
) -> None:
    """contract: split-layers. "made in parallel with the others within the same memory promise"."""
    image = many_components
    assert peak_of({**more, "images": [image]}, 8, tmp_path / "output") <= 300
