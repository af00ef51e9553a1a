"""Images of many layers, built by the command: what they hold, what an update changes, what is said
of them (contract: split-layers, split-stable, split-told)."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import clients
import oracles
import pytest
import trees
from conftest import Build
from hypothesis import given, settings
from hypothesis import strategies as st
from test_clients import as_umoci_unpacks, assert_same_tree, changed

from build_oci.cli.command import main
from build_oci.config.load import load_config
from build_oci.errors import OutputError
from build_oci.pipeline import BuildResult, build

EPOCH = 1_700_000_000


def written_map(path: Path, owners: dict[bytes, str]) -> Path:
    """A map of components, without the paths that its lines cannot hold, and with one that the tree
    lacks: it may not be empty.
    """
    lines = [
        file + b"\t" + name.encode()
        for file, name in owners.items()
        if not set(b"\n\t") & set(file) and not file.startswith(b"#")
    ]
    path.write_bytes(b"\n".join([*lines, b"no/such/file\tnobody", b""]))
    return path


def random_map(rng: random.Random, root: str | Path, path: Path, components: int) -> Path:
    """Most files of ROOT dealt out to so many components; the rest has no owner."""
    names = [
        name[2:] if name.startswith(b"./") else name
        for name, _ in oracles.walk_order(root)
        if name != b"."
    ]
    return written_map(
        path, {name: f"c{rng.randrange(components)}" for name in names if rng.random() < 0.8}
    )


def split_config(
    layer: str | Path,
    source: Any,
    *,
    most: int = 64,
    plan: str | None = None,
    parent: Path | None = None,
    compression: str = "disabled",
) -> str:
    image: dict[str, Any] = {
        "os": "linux",
        "architecture": "amd64",
        "layer": os.fspath(layer),
        "split": {
            "components": source,
            "unclaimed": "ignore",
            "max-layers": most,
            **({"plan": plan} if plan else {}),
        },
        "index-annotations": {"org.opencontainers.image.ref.name": "latest"},
    }
    if parent:
        image["parent"] = {"image": os.fspath(parent)}
    return json.dumps({"compression": compression, "images": [image]})


def built(
    config: str,
    output: Path,
    *,
    epoch: int | None,
    workers: int = 2,
    warnings: list[str] | None = None,
) -> BuildResult:
    heard: list[str] = [] if warnings is None else warnings
    return build(
        load_config(config),
        output=output,
        workers=workers,
        epoch=epoch,
        warn=heard.append,
        sync=False,
    )


def merged(layout: Path) -> oracles.Model:
    model: oracles.Model = {}
    for tar in clients.layer_tars(layout):
        oracles.apply_layer(io.BytesIO(tar), model)
    return model


def expected_model(root: str | Path, epoch: int | None) -> oracles.Model:
    model = oracles.tree_model(root)
    for node in model.values():
        node.mtime = node.mtime if epoch is None else epoch * oracles.SECOND
    return model


def names_in(tar: bytes) -> list[str]:
    with tarfile.open(
        fileobj=io.BytesIO(tar), errors="surrogateescape", encoding="utf-8"
    ) as archive:
        return [member.name for member in archive.getmembers()]


def config_of(layout: Path) -> clients.Document:
    document: clients.Document = json.loads(
        clients.blob(layout, clients.manifest_of(layout)["config"]["digest"])
    )
    return document


# What the layers hold


@settings(max_examples=25)
@given(
    items=trees.trees(whiteout_names=False),
    rng=st.randoms(use_true_random=False),
    epoch=st.sampled_from([None, EPOCH]),
    most=st.integers(1, 6),
)
def test_layers_unpack_to_the_tree(
    items: list[trees.Item], rng: random.Random, epoch: int | None, most: int
) -> None:
    """contract: split-layers. "Unpacked by any client, the image equals the tree"; at most
    `max-layers`; the same bytes for any -j.
    """
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "tree")
        root.mkdir()
        trees.materialise(items, root)
        components = [{"file": os.fspath(random_map(rng, root, Path(scratch, "map"), 5))}]
        config = split_config(root, components, most=most)
        digests = set()
        for workers in (1, 4):
            output = Path(scratch, f"layout-{workers}")
            built(config, output, epoch=epoch, workers=workers)
            digests.add(tuple(layer_digests(output)))
        assert len(digests) == 1
        assert 1 <= len(clients.manifest_of(output)["layers"]) <= most
        assert oracles.compare(merged(output), expected_model(root, epoch)) == []


@settings(max_examples=15)
@given(
    items=trees.trees(whiteout_names=False),
    rng=st.randoms(use_true_random=False),
    epoch=st.sampled_from([None, EPOCH]),
)
def test_layers_upon_a_parent(
    items: list[trees.Item], rng: random.Random, epoch: int | None
) -> None:
    """contract: split-layers. `split` packs "what it changes on top of its parent"."""
    with tempfile.TemporaryDirectory() as scratch:
        before, root = Path(scratch, "before"), Path(scratch, "tree")
        before.mkdir()
        root.mkdir()
        trees.materialise(items, root)
        trees.materialise(
            [item for item in items if item.type != 0 and b"/" not in item.path], before
        )
        parent, output = Path(scratch, "parent"), Path(scratch, "layout")
        built(
            json.dumps(
                {"images": [{"os": "linux", "architecture": "amd64", "layer": os.fspath(before)}]}
            ),
            parent,
            epoch=epoch,
        )
        (root / "new").write_text("new")
        components = [{"file": os.fspath(random_map(rng, root, Path(scratch, "map"), 4))}]
        built(split_config(root, components, parent=parent), output, epoch=epoch)
        assert oracles.compare(merged(output), expected_model(root, epoch)) == []


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_many_layers_of_an_odd_tree(odd_tree: Path, tmp_path: Path, compression: str) -> None:
    """contract: split-layers.
    "one tar, one frame or member, made in parallel with the others"; some of several blocks, most
    of a few bytes."""
    for number in range(3):
        (odd_tree / f"large-{number}").write_bytes(random.Random(number).randbytes(9 << 20))
    components = [{"file": os.fspath(random_map(random.Random(1), odd_tree, tmp_path / "map", 60))}]
    config = split_config(odd_tree, components, compression=compression, most=50)
    for workers in (1, 5):
        built(config, tmp_path / f"layout-{workers}", epoch=EPOCH, workers=workers)
    assert (tmp_path / "layout-1" / "index.json").read_bytes() == (
        tmp_path / "layout-5" / "index.json"
    ).read_bytes()
    assert len(clients.manifest_of(tmp_path / "layout-1")["layers"]) == 50
    assert oracles.compare(merged(tmp_path / "layout-1"), expected_model(odd_tree, EPOCH)) == []


@pytest.mark.clients
@pytest.mark.parametrize("epoch", [None, EPOCH])
def test_umoci(odd_tree: Path, tmp_path: Path, epoch: int | None) -> None:
    """contract: split-layers. With hard links across components, odd names, devices, capabilities
    and empty directories.
    """
    components = [{"file": os.fspath(random_map(random.Random(2), odd_tree, tmp_path / "map", 20))}]
    built(split_config(odd_tree, components), tmp_path / "layout", epoch=epoch)
    unpacked = clients.umoci_unpack(tmp_path / "layout", tmp_path / "bundle")
    assert_same_tree(
        unpacked, changed(expected_model(odd_tree, epoch), as_umoci_unpacks), root_time=False
    )


def test_gnu_tar(odd_tree: Path, tmp_path: Path) -> None:
    """contract: split-layers. The layers, extracted one over the other."""
    clients.need_root()
    components = [{"file": os.fspath(random_map(random.Random(3), odd_tree, tmp_path / "map", 20))}]
    built(split_config(odd_tree, components), tmp_path / "layout", epoch=EPOCH)
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    command = [
        "tar",
        "--warning=no-unknown-keyword",
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
        "--overwrite",
        "-xpf",
        "-",
        "-C",
    ]
    for tar in clients.layer_tars(tmp_path / "layout"):
        subprocess.run([*command, unpacked], input=tar, check=True, capture_output=True)
    found, expected = oracles.tree_model(unpacked), expected_model(odd_tree, EPOCH)
    for node in [*found.values(), *expected.values()]:
        node.mode &= ~0o2000  # tar leaves a directory the bit that it inherits
    assert oracles.compare(found, expected, ignore=["xattrs"]) == []


# What an update changes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three components of some files in shared directories, a hard link across two of them, an
    empty directory, a file of nobody.
    """
    root = tmp_path / "tree"
    for component in "abc":
        for folder in ("usr/bin", "usr/share/doc", f"usr/lib/{component}"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            (root / folder / f"file-{component}").write_text(f"{folder} {component}" * 50)
    os.link(root / "usr/lib/a/file-a", root / "usr/lib/b/linked")
    (root / "var/empty").mkdir(parents=True)
    (root / "var/nobody").write_text("nobody")
    return root


def letters(letters: str = "abc") -> list[Any]:
    return [
        {"paths": {letter: [f"usr/**/file-{letter}", f"usr/lib/{letter}/**"] for letter in letters}}
    ]


def layer_digests(layout: Path) -> list[str]:
    return [layer["digest"] for layer in clients.manifest_of(layout)["layers"]]


def differing(root: Path, tmp_path: Path, epoch: int | None, change: Any) -> list[bool]:
    """For each layer of ROOT: does it differ after CHANGE?"""
    config = split_config(root, letters())
    built(config, tmp_path / "before", epoch=epoch)
    change()
    built(config, tmp_path / "after", epoch=epoch)
    assert oracles.compare(merged(tmp_path / "after"), expected_model(root, epoch)) == []
    return [
        one != other
        for one, other in zip(
            layer_digests(tmp_path / "before"), layer_digests(tmp_path / "after"), strict=True
        )
    ]


@pytest.mark.parametrize("epoch", [None, EPOCH])
def test_a_changed_file_changes_its_layer(root: Path, tmp_path: Path, epoch: int | None) -> None:
    """contract: split-stable. "a layer whose files did not change keeps its digest"."""

    def change() -> None:
        (root / "usr/bin/file-b").write_text("another text")

    differs = differing(root, tmp_path, epoch, change)
    assert differs == [False, True, False, False] + [False] * (epoch is None)


@pytest.mark.parametrize("epoch", [None, EPOCH])
def test_a_replaced_file_changes_two_layers_at_most(
    root: Path, tmp_path: Path, epoch: int | None
) -> None:
    """contract: split-stable. Without an epoch the time of the directory is in the last small
    layer, with one nowhere.
    """

    def change() -> None:
        (root / "usr/bin/new").write_text("another text")
        os.replace(root / "usr/bin/new", root / "usr/bin/file-b")
        os.utime(root / "usr/bin", (7, 7))

    differs = differing(root, tmp_path, epoch, change)
    assert differs == [False, True, False, False] + [True] * (epoch is None)


@pytest.mark.parametrize("epoch", [None, EPOCH])
def test_a_touched_directory(root: Path, tmp_path: Path, epoch: int | None) -> None:
    """contract: split-directories. "a shared directory's time would spoil every layer at each
    touch".
    """
    differs = differing(root, tmp_path, epoch, lambda: os.utime(root / "usr", (7, 7)))
    assert differs == [False] * 4 + [True] * (epoch is None)


def test_one_layer_without_an_epoch(root: Path, tmp_path: Path) -> None:
    """contract: split-directories. `max-layers: 1` is one layer: there is none to share a directory
    with.
    """
    built(split_config(root, letters(), most=1), tmp_path / "layout", epoch=None)
    assert clients.layer_tars(tmp_path / "layout") == [
        oracles.expected_tar(root, trust_checksum_xattrs=False)
    ]


# What is said of them


def test_history_and_annotations(root: Path, tmp_path: Path) -> None:
    """contract: split-told.
    "`config.history` has an entry for each layer; its comment names the components"; the layout
    remembers the plan."""
    built(split_config(root, letters()), tmp_path / "layout", epoch=None)
    config, layers = (
        config_of(tmp_path / "layout"),
        clients.manifest_of(tmp_path / "layout")["layers"],
    )
    comments = [entry["comment"] for entry in config["history"]]
    assert sorted(comments[:-1]) == ["a", "b", "c", "unclaimed:var"]
    assert comments[-1] == "directories"
    assert len(config["rootfs"]["diff_ids"]) == len(layers) == len(comments)
    for comment, tar in zip(comments, clients.layer_tars(tmp_path / "layout"), strict=True):
        files = {os.path.basename(name) for name in names_in(tar) if "file-" in name}
        assert files == ({f"file-{comment}"} if comment in ("a", "b", "c") else set())
    remembered = [
        json.loads(layer["annotations"]["io.build-oci.components"])["components"]
        for layer in layers[:-1]
    ]
    assert [[name for name, *_ in rows] for rows in remembered] == [
        [comment] for comment in comments[:-1]
    ]
    assert list(layers[-1]["annotations"]) == ["io.build-oci.recipe"]


def test_history_of_many_components(tmp_path: Path) -> None:
    """A comment stays short however many components share a layer."""
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(300):
        (root / f"file-{number:03}").touch()
    source = [
        {
            "file": os.fspath(
                written_map(
                    tmp_path / "map", {b"file-%03d" % n: f"component-{n:03}" for n in range(300)}
                )
            )
        }
    ]
    document = json.loads(split_config(root, source, most=2))
    document["images"][0]["comment"] = "Release 7"
    built(json.dumps(document), tmp_path / "layout", epoch=EPOCH)
    comments = [entry["comment"] for entry in config_of(tmp_path / "layout")["history"]]
    assert all(
        comment.startswith("Release 7: component-") and len(comment) < 320 for comment in comments
    )
    assert any(comment.endswith(" more") for comment in comments)


def test_plan_file_and_metrics(root: Path, tmp_path: Path, build: Build) -> None:
    """contract: split-told.
    `plan` is written, relative to the current directory; `--metrics` and `-v` say layers,
    components, unclaimed bytes."""
    config = split_config(root, letters("ab"), plan="layers.json")
    done = build(
        config,
        args=["-v", "--metrics", "metrics.json"],
        cwd=tmp_path,
        env={"SOURCE_DATE_EPOCH": "5"},
    )
    plan = json.loads((tmp_path / "layers.json").read_bytes())
    components = [sorted(layer) for layer in plan["layers"]]
    assert all(fields["digest"] for layer in plan["layers"] for fields in layer.values())
    (image,) = json.loads((tmp_path / "metrics.json").read_bytes())["images"]
    assert [layer["components"] for layer in image["layers"]] == components
    assert [layer["digest"] for layer in image["layers"]] == layer_digests(done.output)
    assert image["layerSize"] == sum(layer["size"] for layer in image["layers"])
    unclaimed = [
        path for path in root.rglob("*") if path.is_file() and path.name in ("file-c", "nobody")
    ]
    assert image["unclaimedFiles"] == len(unclaimed)
    assert image["unclaimedSize"] == sum(path.stat().st_size for path in unclaimed)
    assert any(
        line.startswith("build-oci: layer 0: sha256:") and line.endswith(components[0][0])
        for line in done.stderr.splitlines()
    )
    assert f"{len(components)} layers" in done.stderr.splitlines()[-1]


def test_plan_does_not_depend_on_the_epoch(root: Path, tmp_path: Path) -> None:
    """contract: split-plan. "independent of SOURCE_DATE_EPOCH, `-j`, readdir order"."""
    plans = set()
    for number, epoch in enumerate((None, 0, EPOCH)):
        plan = tmp_path / f"plan-{number}"
        built(
            split_config(root, letters(), plan=os.fspath(plan)),
            tmp_path / "layout",
            epoch=epoch,
            workers=1 + number,
        )
        plans.add(plan.read_bytes())
    assert len(plans) == 1


def test_a_plan_that_cannot_be_written(root: Path, tmp_path: Path) -> None:
    """contract: cli-user-files. Known before the build; nothing is written."""
    with pytest.raises(OutputError, match="no file can be written here"):
        built(
            split_config(root, letters(), plan=os.fspath(tmp_path / "missing" / "plan")),
            tmp_path / "layout",
            epoch=None,
        )
    assert not (tmp_path / "layout").exists()


def test_more_layers_than_docker_loads(tmp_path: Path) -> None:
    """contract: split-told. "a warning when the image passes 127 in all"."""
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(128):
        (root / f"file-{number:03}").touch()
    source = [
        {
            "file": os.fspath(
                written_map(tmp_path / "map", {b"file-%03d" % n: f"c{n}" for n in range(128)})
            )
        }
    ]
    for most, expected in ((127, 0), (128, 1)):
        warnings: list[str] = []
        built(
            split_config(root, source, most=most),
            tmp_path / f"layout-{most}",
            epoch=EPOCH,
            warnings=warnings,
        )
        assert sum("127" in line for line in warnings) == expected


@pytest.mark.skipif(
    "user" not in trees.abilities().xattrs, reason="no user.* extended attributes here"
)
def test_attributes_that_are_instructions(root: Path, tmp_path: Path) -> None:
    """contract: split-instructions. "While this source is on, both attributes are instructions and
    are not written into the layer".
    """
    os.setxattr(root / "usr", "user.component", b"all")
    os.setxattr(root / "usr/bin/file-a", "user.update-interval", b"daily")

    def attributes(source: Sequence[Any]) -> set[str]:
        built(split_config(root, source), tmp_path / "layout", epoch=EPOCH)
        return {name for node in merged(tmp_path / "layout").values() for name in node.xattrs}

    assert attributes(["xattr"]) == set()
    assert attributes(["packages"]) == {"user.component", "user.update-interval"}


def test_most_layers_are_verified(tmp_path: Path) -> None:
    """contract: split-layers, promise-memory. Up to 499 layers; each takes little memory where it
    is read again.
    """
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(499):
        (root / f"file-{number:03}").touch()
    source = [
        {
            "file": os.fspath(
                written_map(tmp_path / "map", {b"file-%03d" % n: f"c{n}" for n in range(499)})
            )
        }
    ]
    built(split_config(root, source, most=499), tmp_path / "layout", epoch=EPOCH)
    assert len(clients.manifest_of(tmp_path / "layout")["layers"]) == 499
    assert main(["verify", os.fspath(tmp_path / "layout")]) == 0
