"""One image built by a build-oci elsewhere (another C library, another machine) and by this one:
are their digests the same?

    same_digests.py ROOT COMMAND...

COMMAND is the build-oci elsewhere, ROOT the directory that is its `/`. A line for each compression;
ends with 1 where a diff_id differs. Compressed bytes may differ where a codec has other code for
another machine.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import clients

MODES = [("disabled", None), ("zstd", None), ("gzip", 1), ("gzip", 5), ("gzip", 9)]


def make_tree(top: Path) -> None:
    """Text and noise, small and large, always the same."""
    chance = random.Random(1)
    for number in range(300):
        folder = top / f"d{number % 17}"
        folder.mkdir(parents=True, exist_ok=True)
        noise = chance.randbytes(chance.choice((0, 10, 4000, 70_000, 900_000)))
        (folder / f"f{number}").write_bytes(noise + b"text " * chance.randrange(9000))


def digests(layout: Path) -> tuple[list[str], str]:
    """The diff_ids of the image in LAYOUT, and the digest of its layer as stored."""
    manifest = clients.manifest_of(layout)
    config = json.loads(clients.blob(layout, manifest["config"]["digest"]))
    return config["rootfs"]["diff_ids"], manifest["layers"][0]["digest"]


def main(root: str, *command: str) -> int:
    here = [sys.executable, "-P", "-m", "build_oci"]
    environ = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    different = 0
    with tempfile.TemporaryDirectory(dir=Path(root, "tmp")) as folder:
        # Where the other one sees it.
        known_there = Path("/") / Path(folder).relative_to(root)
        make_tree(Path(folder, "tree"))
        for compression, level in MODES:
            name = compression if level is None else f"{compression} {level}"
            found: list[tuple[list[str], str]] = []
            for program, known in ((list(command), known_there), (here, Path(folder))):
                config = clients.layer_config(known / "tree", compression=compression)
                if level:
                    config["compression-level"] = level
                output = f"{name}-{len(found)}"
                subprocess.run(
                    [*program, "-o", str(known / output)],
                    input=json.dumps(config),
                    text=True,
                    check=True,
                    env=environ,
                )
                found.append(digests(Path(folder, output)))
            same_diff_id, same_layer = (one == other for one, other in zip(*found, strict=True))
            different |= not same_diff_id
            print(
                f"{name}: diff_id {'equal' if same_diff_id else 'DIFFERENT'}, compressed bytes"
                f" {'equal' if same_layer else 'different'}"
            )
    return different


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
