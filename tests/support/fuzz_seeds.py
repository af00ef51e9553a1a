"""What libFuzzer begins with."""

from __future__ import annotations

import random
import shutil
import tempfile
import zlib
from pathlib import Path

import fuzz_chunked
import oracles
import trees
import zstandard
from places import CORPUS


def write(folder: Path) -> None:
    """Into FOLDER: the regression inputs, real layers, streams of every strategy of
    zlib, frames of zstd's levels, pairs of layers, content with and without holes.
    """
    for kind in ("zstd", "chunked", "compare", "rolling"):
        (folder / "corpus" / kind).mkdir(parents=True, exist_ok=True)
    for kind, source in (("tar_reader", "tar"), ("deflate", "deflate")):
        target = folder / "corpus" / kind
        target.mkdir(parents=True, exist_ok=True)
        for path in (CORPUS / source).iterdir():
            shutil.copy(path, target)
    former = b""
    for seed in range(40):
        rng = random.Random(seed)
        streams = []
        for _ in range(2):
            stream = zlib.compressobj(
                rng.randrange(10), zlib.DEFLATED, -15, strategy=rng.randrange(5)
            )
            streams.append(
                stream.compress(
                    bytes(rng.choices(range(rng.choice([2, 20, 256])), k=rng.randrange(700)))
                )
                + stream.flush()
            )
        (folder / "corpus" / "deflate" / f"seed-{seed}").write_bytes(
            len(streams[0]).to_bytes(2, "little") + b"".join(streams)
        )
        frames = zstandard.ZstdCompressionParameters.from_level(
            1 + seed % 19, write_checksum=False, write_content_size=False
        )
        words = b"".join(
            rng.choices(
                [rng.randbytes(rng.randrange(1, 9)) for _ in range(20)], k=rng.randrange(700)
            )
        )
        blocks = zstandard.ZstdCompressor(compression_params=frames).compress(words)[6:]
        (folder / "corpus" / "zstd" / f"seed-{seed}").write_bytes(b"\1" + blocks)
        (folder / "corpus" / "chunked" / f"seed-{seed}").write_bytes(fuzz_chunked.seeds(rng))
        with tempfile.TemporaryDirectory() as directory:
            trees.materialise(trees.random_tree(rng, 6), directory)
            archive = oracles.expected_tar(directory)
        (folder / "corpus" / "tar_reader" / f"seed-{seed}").write_bytes(archive)
        other = former or archive
        (folder / "corpus" / "compare" / f"seed-{seed}").write_bytes(
            bytes([seed % 16]) + len(other).to_bytes(2, "little") + other + archive
        )
        former = archive
        (folder / "corpus" / "rolling" / f"seed-{seed}").write_bytes(
            bytes([seed, rng.randrange(256)]) + words + bytes(rng.randrange(2000)) + words
        )
