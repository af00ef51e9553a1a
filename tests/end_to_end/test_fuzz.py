"""A bounded share of the fuzzing, and every input that was once worth keeping."""

from __future__ import annotations

from pathlib import Path

import fuzz
import places
import pytest

from build_oci._native.deflate import make_joinable
from build_oci._native.lower import TarReader
from build_oci.config.model import BuildConfig

pytestmark = pytest.mark.once
CORPUS = {kind: sorted((places.CORPUS / kind).iterdir()) for kind in ("yaml", "tar", "deflate")}


@pytest.mark.parametrize(
    ("name", "seeds"),
    [
        ("trees", 30),
        ("round-trips", 15),
        ("documents", 300),
        ("parents", 80),
        ("chunked", 60),
        ("archives", 40),
        ("parts", 10),
    ],
)
def test_seeds(tmp_path: Path, name: str, seeds: int) -> None:
    for seed in range(seeds):
        fuzz.run_seed(name, seed, tmp_path)


@pytest.mark.parametrize("path", CORPUS["yaml"], ids=lambda path: path.name)
def test_document(path: Path) -> None:
    """contract: config-yaml. The seeds of the fuzzing are taken, what is odd is refused in
    words.
    """
    taken = fuzz.check_document(path.read_bytes())
    assert isinstance(taken, BuildConfig) == (path.stem in ("full", "plain"))


def read_in_pieces(data: bytes, step: int) -> None:
    reader = TarReader()
    for at in range(0, len(data), step):
        reader.feed(data[at : at + step])
    reader.finish()


@pytest.mark.parametrize("path", CORPUS["tar"], ids=lambda path: path.name)
def test_archive(path: Path) -> None:
    """contract: promise-hostile-input. Refused, and in the same words, whatever the pieces that it
    comes in.
    """
    data = path.read_bytes()
    said = []
    for step in (len(data), 1, 500):
        with pytest.raises(ValueError, match=r"\w") as caught:
            read_in_pieces(data, step)
        said.append(str(caught.value))
    assert len(set(said)) == 1


@pytest.mark.parametrize("path", CORPUS["deflate"], ids=lambda path: path.name)
def test_stream(path: Path) -> None:
    """Two bytes of length, a stream of it, another: the one or the other is no stream."""
    data = path.read_bytes()
    at = 2 + int.from_bytes(data[:2], "little")
    with pytest.raises(ValueError, match="not a whole deflate stream"):
        make_joinable(bytearray(data[2:at]), bytearray(data[at:]))
