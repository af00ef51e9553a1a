"""What a build on a parent cannot do without: hash every file of the tree on all cores, and
decompress the parent's layer.

python benchmarks/floor.py ROOTFS LAYER
"""

from __future__ import annotations

import hashlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import zstandard


def hash_files(paths: list[str]) -> None:
    for path in paths:
        with open(path, "rb") as file:
            hashlib.file_digest(file, "sha256")


def main() -> None:
    rootfs, layer = sys.argv[1:]
    files = [
        path
        for folder, _, names in os.walk(rootfs)
        for name in names
        if os.path.isfile(path := os.path.join(folder, name)) and not os.path.islink(path)
    ]
    workers = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(hash_files, [files[number :: 8 * workers] for number in range(8 * workers)]))
    with open(layer, "rb") as source, open(os.devnull, "wb") as nowhere:
        zstandard.ZstdDecompressor().copy_stream(source, nowhere)


if __name__ == "__main__":
    main()
