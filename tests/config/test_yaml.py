"""The YAML of the configuration (contract: config-keys): what is passed through, and documents that
would take much memory."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from configs import IMAGE, _both_loaders, load, problems
from hypothesis import given
from hypothesis import strategies as st

__all__ = ["_both_loaders"]


@pytest.mark.usefixtures("_both_loaders")
def test_half_surrogate() -> None:
    (problem,) = problems(IMAGE + '  layer: "\\ud800"')
    assert "config.yaml:4" in problem


@pytest.mark.parametrize("text", [b"mode: oci\nx: \xff", b"mode: oci\nx: \xed\xa0\x80"])
def test_no_utf8(text: bytes) -> None:
    (problem,) = problems(text)
    assert re.match("config.yaml:2: byte 0x.. at offset 13 is not UTF-8", problem)


@pytest.mark.usefixtures("_both_loaders")
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16"])
def test_byte_order_mark(codec: str) -> None:
    """YAML 1.1 knows these encodings by their marks."""
    text = (IMAGE + "  comment: ü\n").encode(codec)
    assert (
        load(text).images[0].comment
        == load(text.decode("utf-8" if codec == "utf-8-sig" else codec)).images[0].comment
        == "ü"
    )


@pytest.mark.usefixtures("_both_loaders")
def test_config_untouched() -> None:
    """contract: config-passthrough.
    `config` is passed through untouched, as JSON would write it; a date stays the string that was
    written."""
    text = (
        "{null: 1, true: 2, 3: 4, 1.5: ~, d: 2024-01-01 10:00:00, o: 010, s: 1:30, y: yes, b: !!str"
        " 1, =: '=', e: {}, z: [[]], n: \"\\0\"}"
    )
    (image,) = load(f"{IMAGE}  config: {text}").images
    assert list(image.config.items()) == [
        ("null", 1),
        ("true", 2),
        ("3", 4),
        ("1.5", None),
        ("d", "2024-01-01 10:00:00"),
        ("o", 8),
        ("s", 90),
        ("y", True),
        ("b", "1"),
        ("=", "="),
        ("e", {}),
        ("z", [[]]),
        ("n", "\0"),
    ]
    null = load(f"{IMAGE}  config:").images[0]
    assert (null.has_config, null.config) == (True, None)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.text(st.characters(codec="utf-8"))
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(json_values)
def test_config_like_the_library(value: Any) -> None:
    """contract: config-passthrough. Whatever is inside `config` comes out as the YAML library
    itself reads it.
    """
    text = yaml.safe_dump({"images": [{"os": "linux", "architecture": "amd64", "config": value}]})
    assert load(text).images[0].config == yaml.safe_load(text)["images"][0]["config"]


@pytest.mark.usefixtures("_both_loaders")
def test_aliases_and_merge_keys() -> None:
    text = """
other: &one {author: one, os: linux, config: {a: 1}}
more: &two {author: two, architecture: arm64, comment: two}
images:
- <<: [*one, *two]
  comment: own
  config: {<<: {x: 1, y: 2}, y: 3, '<<': 4}
- *one
"""
    assert "images[1]: the key `architecture` is missing" in problems(text)[0]
    image = load(text.replace("- *one", "")).images[0]
    assert (image.author, image.os, image.architecture, image.comment) == (
        "one",
        "linux",
        "arm64",
        "own",
    )
    assert image.config == {"x": 1, "y": 3, "<<": 4}


@pytest.mark.parametrize("leaf", ["[]", "x", "'" + "x" * 100_000 + "'"])
def test_alias_bomb(leaf: str) -> None:
    lines = [f"a0: &a0 {leaf}"] + [
        f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 60)
    ]
    (problem,) = problems("\n".join(lines))
    assert "grows out of bounds" in problem


def test_merge_bomb() -> None:
    lines = ["a0: &a0 {k: v}"] + [
        f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 60)
    ]
    (problem,) = problems("\n".join(lines))
    assert "grows out of bounds" in problem


def test_aliases_cannot_stack_up() -> None:
    lines = ["a0: &a0 []"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 200)]
    assert "nested more than 100 levels deep" in problems("\n".join(lines))[0]


def test_too_large() -> None:
    assert "larger than 4 MiB" in problems(b"#" * (4 << 20) + b"\n")[0]


def test_pairs_of_surrogate_escapes() -> None:
    """JSON writes characters above U+FFFF as two escapes, which YAML refuses; only in JSON are they
    one character.
    """
    document = {
        "images": [
            {
                "os": "linux",
                "architecture": "amd64",
                "comment": "\U0001f680 \\ud83d\\ude80 \\\U0001f680",
            }
        ]
    }
    assert load(json.dumps(document)).images[0].comment == document["images"][0]["comment"]
    assert load(IMAGE + "  comment: '\\ud83d\\ude80'").images[0].comment == "\\ud83d\\ude80"


@pytest.mark.parametrize(
    "number", ["1" + ":0" * 5000, "9" * 5000, "0x" + "f" * 5000, "1" + ":0" * 5000 + ".5"]
)
def test_numbers_without_end(number: str) -> None:
    assert "cannot be read as" in problems(f"compression-level: {number}\n" + IMAGE)[0]


def test_too_many_nodes() -> None:
    """Four megabytes of `a,` are two million nodes, of which each takes hundreds of bytes."""
    assert "too many keys and values" in problems("a: [" + "a," * 200_000 + "]")[0]
