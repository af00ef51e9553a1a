"""Random inputs, each made from a seed: trees, changes upon parents, mutated configurations and
mutated parents.

A bounded share runs in test_fuzz.py; `python fuzz.py run --seconds N trees round-trips documents
parents chunked archives parts` goes on with new seeds. An input that fails is printed with its seed
and saved; `--seed N` makes it again.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import io
import json
import os
import random
import shutil
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import archives
import clients
import fuzz_chunked
import fuzz_seeds
import oracles
import trees
import yaml
from parents import COMPRESSIONS, EPOCH, built, image_of, put, put_index, round_trip
from places import CORPUS
from test_layer_tar import assert_same_tar, built_tar

from build_oci.config.load import load_config
from build_oci.config.model import BuildConfig
from build_oci.errors import ConfigError, ParentError, TreeError
from build_oci.oci.documents import to_json

MOST_SECONDS = 10.0
"""Of processor time that one small input may take."""
TOKENS = [
    b"x: !!int z\n", b"x: !!float z\n", b"&a ", b"*a", b"<<: *a", b"!!python/object:os.system ",
    b"!!binary ", b"!!set ", b"!!float ", b"!!int ", b"!!null ", b"!x ", b"? ", b"- ", b": ",
    b"|\n", b">-\n", b'"\\ud800"', b"0x", b"1:2:3", b"1:60", b".inf", b".nan", b"~", b"\t", b"\0",
    b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", "\u2028".encode(), b"%YAML 1.2\n", b"---\n", b"...\n",
    b"[" * 60, b"{a: " * 60, b"2024-02-30", b"0o8", b"0b2", b"_", b"+", b"1e999", b"9" * 5000,
    b"0x" + b"f" * 5000, b"=", b"'", b'"', b"#", b"\r", b"yes", b"images:\n",
    b"compression: zstd\n", b"gzip: 1\n", b"parent: {image: a}\n",
]  # fmt: skip
ODD: list[Any] = [
    None,
    -1,
    0,
    2**63,
    2**200,
    1e308,
    "",
    "..",
    "../../x",
    "sha256:../../../x",
    [],
    {},
    [[]],
    {"a": {}},
    True,
    "\ud800",
    "\n",
    "x" * 3000,
]


def mutated(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """DATA with a few things done to its bytes and lines; what is put in comes from TOKENS, itself,
    or OTHERS.
    """
    for _ in range(rng.randint(1, 5)):
        at, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        lines = data.splitlines(keepends=True) or [b""]
        line = rng.randrange(len(lines))
        match rng.randrange(8):
            case 0:
                data = data[:at] + rng.choice(TOKENS) + data[at:]
            case 1:
                data = data[:at] + data[min(end, at + 20) :]
            case 2:
                data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
            case 3:
                lines.insert(rng.randrange(len(lines)), lines[line])
                data = b"".join(lines)
            case 4:
                lines[line] = rng.choice([b"  ", b" ", b"\t", b"- "]) + lines[line]
                data = b"".join(lines)
            case 5:
                del lines[line]
                data = b"".join(lines)
            case 6:
                other = rng.choice(others)
                data = data[:at] + other[rng.randrange(len(other) + 1) :]
            case _:
                data = data[:at] + data[at:end] * rng.choice([2, 3, 20]) + data[end:]
        data = data[:20_000]
    return data


def check_document(data: bytes) -> BuildConfig | None:
    """contract: config-problems-together. A configuration or a ConfigError (None), in bounded time,
    and every line of it one line.
    """
    began = time.process_time()
    config = None
    try:
        config = load_config(data, source="config.yaml")
    except ConfigError as error:
        said = error.lines()
    assert time.process_time() - began < MOST_SECONDS
    if config:
        to_json([image.config for image in config.images])
        said = list(config.warnings)
    assert said or config
    assert all(line.isprintable() for line in said), said
    return config


def documents(seed: int, keep: Path) -> None:
    rng = random.Random(seed)
    texts = [path.read_bytes() for path in sorted((CORPUS / "yaml").iterdir())]
    data = mutated(rng, rng.choice(texts), texts)
    (keep / "document.yaml").write_bytes(data)
    with mock.patch.object(
        yaml, "CSafeLoader", yaml.SafeLoader if seed % 8 == 0 else yaml.CSafeLoader
    ):
        check_document(data)


def random_trees(seed: int, keep: Path) -> None:
    """contract: layer-tar. The layer is what tarfile writes."""
    rng = random.Random(seed)
    tree = keep / "tree"
    tree.mkdir()
    trees.materialise(
        trees.random_tree(rng, rng.randrange(60), large=rng.random() < 0.05, whiteout_names=True),
        tree,
    )
    epoch = rng.choice([None, 0, EPOCH])
    skip, links = rng.random() < 0.2, rng.choice(["preserve", "copy"])
    expected = oracles.expected_tar(tree, epoch=epoch, skip_xattrs=skip, hardlinks=links)
    assert_same_tar(
        built_tar(tree, epoch=epoch, workers=rng.randint(1, 4), skip_xattrs=skip, hardlinks=links),
        expected,
    )


def round_trips(seed: int, keep: Path) -> None:
    """contract: diff-round-trip. The parent with the layer on top is the tree."""
    rng = random.Random(seed)
    options: list[dict[str, Any]] = [
        {"compression": rng.choice(COMPRESSIONS)} for _ in range(rng.randint(2, 3))
    ]
    with mock.patch.object(tempfile, "tempdir", str(keep)):
        round_trip(
            trees.random_tree(rng, rng.randrange(60)),
            rng,
            rng.randrange(25),
            options,
            rng.choice([None, EPOCH]),
        )


def changed_value(rng: random.Random, document: Any) -> Any:
    """DOCUMENT with one value, anywhere in it, replaced, doubled or taken out."""
    document = copy.deepcopy(document)
    at = document
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            return document
        key = rng.choice(keys)
        if isinstance(at[key], dict | list) and rng.random() < 0.75:
            at = at[key]
            continue
        if rng.random() < 0.2:
            del at[key]
        elif isinstance(at, list) and rng.random() < 0.3:
            at.append(at[key])
        else:
            at[key] = rng.choice(ODD)
        return document


def files_in(*folders: Path) -> dict[str, bytes | str]:
    """Everything below FOLDERS by its path: the digest of a file, else its kind."""
    found: dict[str, bytes | str] = {}
    for path in (path for folder in folders for path in folder.rglob("*")):
        plain = path.is_file() and not path.is_symlink()
        found[str(path)] = (
            hashlib.sha256(path.read_bytes()).digest() if plain else str(path.lstat().st_mode)
        )
    return found


def spoil_layer(rng: random.Random, layout: Path, manifest: Any, config: Any) -> None:
    """Mutate an archive or the stream around it, most often with digests that fit, so that it is
    not the digest that ends it.
    """
    number = rng.randrange(len(manifest["layers"]))
    descriptor = manifest["layers"][number]
    data = clients.blob(layout, descriptor["digest"])
    if rng.random() < 0.6:
        tar = bytearray(clients.layer_tars(layout)[number])
        for _ in range(rng.randint(1, 4)):
            tar[
                (
                    rng.randrange(len(tar))
                    if rng.random() < 0.3
                    else rng.randrange(0, len(tar), 512) + rng.randrange(345)
                )
            ] = rng.randrange(256)
        for at in range(0, len(tar) - 511, 512):  # a header's checksum holds again
            if tar[at + 257 : at + 262] == b"ustar":
                tar[at + 148 : at + 156] = b" " * 8
                tar[at + 148 : at + 156] = b"%06o\0 " % sum(tar[at : at + 512])
        data = bytes(tar[: rng.randrange(len(tar))] if rng.random() < 0.1 else tar)
        config["rootfs"]["diff_ids"][number] = "sha256:" + hashlib.sha256(data).hexdigest()
        descriptor["mediaType"] = "application/vnd.oci.image.layer.v1.tar"
    else:
        data = mutated(rng, data, [data])
    manifest["layers"][number] = put(layout, data, descriptor["mediaType"])


def spoil(rng: random.Random, layout: Path) -> None:
    """Do something to a parent: to an archive, to a document (most often with digests that fit), or
    to a file in its place.
    """
    index, manifest = clients.index_of(layout), clients.manifest_of(layout)
    config = json.loads(clients.blob(layout, manifest["config"]["digest"]))
    what = rng.randrange(6)
    if what == 0:
        path = rng.choice(sorted(path for path in layout.rglob("*") if path.is_file()))
        data = path.read_bytes()
        path.unlink()
        makers: list[Callable[[], object]] = [
            lambda: None, path.mkdir, lambda: os.mkfifo(path),
            lambda: path.symlink_to("/etc/hostname"), lambda: path.symlink_to(path.name),
            lambda: path.write_bytes(mutated(rng, data, [data])),
            lambda: path.write_bytes(data[:-1]),
        ]  # fmt: skip
        rng.choice(makers)()
        return
    if what <= 2:
        spoil_layer(rng, layout, manifest, config)
    elif what == 3:
        config = changed_value(rng, config)
    manifest["config"] = put(
        layout, json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"
    )
    manifest = changed_value(rng, manifest) if what == 4 else manifest
    text = json.dumps(manifest).encode()
    index["manifests"][0] = put(
        layout,
        mutated(rng, text, [text]) if rng.random() < 0.1 else text,
        index["manifests"][0]["mediaType"],
    )
    put_index(layout, *index["manifests"])
    if what == 5:
        (layout / "index.json").write_text(json.dumps(changed_value(rng, index)))


def attempt(
    keep: Path,
    output: Path,
    image: clients.Document,
    compression: str,
    *,
    is_read: bool,
) -> None:
    """Build IMAGE: it is refused in one line or holds, and nothing in KEEP
    but OUTPUT is touched.

    is_read: are its archives looked into? Of what is only carried the blobs' digests are known.
    """
    before, began = files_in(keep), time.process_time()
    said: list[str] = []
    try:
        built(output, image, compression=compression)
    except (ParentError, ConfigError, TreeError) as error:
        said = [str(error)]
    assert time.process_time() - began < MOST_SECONDS
    assert all(line.isprintable() for line in said)
    assert output.exists() == (not said)
    if not said:
        for descriptor in clients.manifest_of(output)["layers"]:
            clients.blob(output, descriptor["digest"])
        if is_read:
            clients.layer_tars(output)
        shutil.rmtree(output)
    assert files_in(keep) == before


def parents(seed: int, keep: Path) -> None:
    """contract: promise-hostile-input. An untrusted parent is refused in one line, or built upon;
    nothing is written outside the output.
    """
    rng = random.Random(seed)
    tree, parent, output = keep / "tree", keep / "parent", keep / "deep" / "er" / "output"
    tree.mkdir()
    output.parent.mkdir(parents=True)
    trees.materialise(trees.random_tree(rng, 12), tree)
    below = built(
        keep / "below",
        image_of(tree),
        compression=rng.choice(COMPRESSIONS),
        trust_checksum_xattrs=False,
    )
    (tree / "new").write_text("new")
    built(
        parent,
        image_of(tree, below, recompress=False),
        compression=rng.choice(COMPRESSIONS),
        trust_checksum_xattrs=False,
    )
    spoil(rng, parent)
    layer = tree if rng.random() < 0.8 else None
    image = image_of(layer, parent)
    attempt(keep, output, image, rng.choice(COMPRESSIONS), is_read=layer is not None)


def archive_of(rng: random.Random, layout: Path) -> bytes:
    """The layout LAYOUT in one archive, in which something may be wrong: its bytes, or a header
    with a checksum that fits.
    """
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=rng.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
    ) as tar:
        for path in sorted(layout.rglob("*")):
            tar.add(path, str(path.relative_to(layout)), recursive=False)
    data = bytearray(out.getvalue())
    for _ in range(rng.choice([0, 0, 1, 1, 3])):
        at = rng.randrange(len(data) // 512) * 512
        for _ in range(rng.randrange(1, 4)):
            data[at + rng.choice([0, 1, 124, 130, 135, 156, 257, rng.randrange(512)])] = rng.choice(
                b"\0 /0157xgLKS2\x80\xff"
            )
        data[at : at + 512] = archives.sealed(bytes(data[at : at + 512]))
    if rng.random() < 0.3:
        return bytes(mutated(rng, bytes(data), [bytes(data)]))
    return bytes(data)


def sources(seed: int, keep: Path, *, archived: bool) -> None:
    """contract: promise-hostile-input, parent-archive. Whatever an image is used for, it is refused
    in one line or holds; nothing is written outside the output.
    """
    rng = random.Random(seed)
    tree, output = keep / "tree", keep / "deep" / "output"
    tree.mkdir()
    output.parent.mkdir(parents=True)
    trees.materialise(trees.random_tree(rng, 12), tree)
    named = []
    for number in range(1 if archived else 2):
        source = keep / f"source-{number}"
        built(
            source,
            image_of(tree),
            compression=rng.choice(COMPRESSIONS),
            trust_checksum_xattrs=False,
        )
        (tree / "new").write_text("new")
        if rng.random() < 0.7:
            spoil(rng, source)
        if archived and not any(path.is_fifo() for path in source.rglob("*")):
            (keep / "source.tar").write_bytes(archive_of(rng, source))
            source = keep / "source.tar"
        named.append(str(source))
    image: dict[str, Any] = {"os": "linux", "architecture": "amd64"}
    use = rng.choice(["parent", "labels", "tree", "previous", "parts"] if archived else ["parts"])
    if use in ("parent", "labels"):
        image["parent"] = {"image": named[0], "config": "inherit"}
    if use in ("parent", "previous"):
        image["layer"] = str(tree)
    if use == "tree":
        image["layer"] = {"image": named[0]}
    if use == "previous":
        image["previous"] = {"image": named[0], "trust": rng.random() < 0.5}
    if use == "parts":
        image["layers"] = [{"image": name} for name in named] + [{"add": str(tree)}]
    attempt(keep, output, image, rng.choice(COMPRESSIONS), is_read=False)


CHECKS: dict[str, Callable[[int, Path], None]] = {
    "trees": random_trees,
    "round-trips": round_trips,
    "documents": documents,
    "parents": parents,
    "chunked": fuzz_chunked.chunked,
    "archives": partial(sources, archived=True),
    "parts": partial(sources, archived=False),
}


def run_seed(name: str, seed: int, keep: Path) -> None:
    """Run one seed in a directory of its own; where it fails, that is moved into KEEP and named."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            CHECKS[name](seed, Path(scratch))
        except BaseException:
            saved = keep / f"{name}-{seed}"
            shutil.rmtree(saved, ignore_errors=True)
            shutil.copytree(scratch, saved, symlinks=True, ignore=special)
            print(
                f"{name} fails with --seed {seed}; its input is saved in {saved}", file=sys.stderr
            )
            raise


def special(directory: str, names: list[str]) -> list[str]:
    """Of NAMES what copytree would wait for or refuse: a failure is saved without its FIFOs and
    devices.
    """
    paths = {name: Path(directory, name) for name in names}
    return [
        name
        for name, path in paths.items()
        if not (path.is_symlink() or path.is_file() or path.is_dir())
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Random inputs, each made from a seed.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("seeds").add_argument("folder", type=Path)
    run = commands.add_parser("run")
    run.add_argument("names", nargs="+", choices=sorted(CHECKS))
    run.add_argument("--seconds", type=float, default=60, help="for each of the names")
    run.add_argument("--seed", type=int, help="this one alone")
    run.add_argument("--keep", type=Path, default=Path("build/fuzz/failed"))
    given = parser.parse_args()
    if given.command == "seeds":
        fuzz_seeds.write(given.folder)
        return 0
    failed = 0
    for name in given.names:
        seed = first = time.time_ns() // 1000 if given.seed is None else given.seed
        end = time.monotonic() + given.seconds
        while seed == first or (given.seed is None and time.monotonic() < end and failed < 20):
            try:
                run_seed(name, seed, given.keep)
            except KeyboardInterrupt:
                raise
            except BaseException:  # pytest's own failures are no Exception
                traceback.print_exc()
                failed += 1
            seed += 1
        print(f"{name}: {seed - first} inputs from seed {first}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
