"""The schema for editors says what the build says: documents that load are valid, and those that do
not are not.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import jsonschema
import pytest
import yaml
from places import REAL_CONFIGS, REPOSITORY

from build_oci.config.load import load_config
from build_oci.config.schema import schema
from build_oci.errors import ConfigError

IMAGE: dict[str, Any] = {"architecture": "amd64", "os": "linux"}

GOOD: list[Any] = [
    {},
    {"images": []},
    {"images": [IMAGE]},
    {
        "compression": "gzip",
        "compression-level": 9,
        "images": [IMAGE | {"layer": "root", "config": {"Cmd": ["sh"], "x": [1, None]}}],
    },
    {"compression": "zstd", "compression-level": 22},
    {"compression": ["zstd:chunked", "gzip"], "compression-level": 9},
    {"compression": ["disabled"]},
    {"gzip": True, "mode": "oci", "hardlinks": "copy", "skip-xattrs": True, "prefetch-limit-mb": 1},
    {"gzip": "disabled", "annotations": {"a": "b"}},
    {"images": [IMAGE | {"layer": "root", "split": {}}]},
    {
        "images": [
            IMAGE
            | {
                "layer": "root",
                "split": {
                    "max-layers": 499,
                    "components": [
                        "xattr",
                        "packages",
                        {"file": "m"},
                        {"paths": {"a": ["usr/**"]}},
                    ],
                    "unclaimed": "error",
                    "plan": "p",
                },
            }
        ]
    },
    {
        "images": [
            IMAGE
            | {
                "parent": {"image": "base", "index": 2, "recompress": False},
                "os.features": ["x"],
                "comment": "",
            }
        ]
    },
]
BAD_SPLITS: list[Any] = [
    120,
    {"max-layers": 500},
    {"unclaimed": "no"},
    {"plan": ""},
    {"components": "xattr"},
    {"components": ["rpm"]},
    {"components": [{}]},
    {"components": [{"file": ""}]},
    {"components": [{"file": "a", "paths": {}}]},
    {"components": [{"paths": {"": ["a"]}}]},
    {"components": [{"paths": {"a": [""]}}]},
    {"components": [{"paths": {"a": "b"}}]},
]
BAD: list[Any] = [
    [],
    "text",
    {"images": {}},
    {"images": ["x"]},
    {"images": [{"os": "linux"}]},
    {"images": [IMAGE | {"architecture": ""}]},
    {"images": [IMAGE | {"layer": ""}]},
    {"images": [IMAGE | {"os.features": "x"}]},
    {"images": [IMAGE | {"annotations": {"a": 1}}]},
    {"images": [IMAGE | {"parent": {}}]},
    {"images": [IMAGE | {"parent": {"image": "a", "index": -1}}]},
    *({"images": [IMAGE | {"layer": "root", "split": split}]} for split in BAD_SPLITS),
    {"compression": "xz"},
    {"compression": []},
    {"compression": ["gzip", "gzip"]},
    {"compression": ["zstd", "zstd:chunked"]},
    {"compression": ["gzip", "disabled"]},
    {"compression": ["gzip", "zstd"], "compression-level": 10},
    {"compression": "gzip", "compression-level": 10},
    {"compression-level": 0},
    {"compression-level": "3"},
    {"gzip": "zstd"},
    {"mode": "docker"},
    {"skip-xattrs": "no"},
    {"prefetch-limit-mb": 0},
    {"hardlinks": True},
]


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema.Draft202012Validator.check_schema(schema())
    return jsonschema.Draft202012Validator(json.loads(json.dumps(schema())))


@pytest.mark.parametrize("document", GOOD, ids=lambda document: json.dumps(document)[:60])
def test_what_loads_is_valid(validator: Any, document: Any) -> None:
    load_config(json.dumps(document))
    validator.validate(document)


@pytest.mark.parametrize("document", BAD, ids=lambda document: json.dumps(document)[:60])
def test_what_does_not_load_is_not_valid(validator: Any, document: Any) -> None:
    with pytest.raises(ConfigError):
        load_config(json.dumps(document))
    assert not validator.is_valid(document)


def test_unknown_keys_are_marked(validator: Any) -> None:
    """A warning of the build is an error to an editor: that is where it is seen in time."""
    assert load_config('{"images": [], "tags": "gzip"}').warnings
    assert not validator.is_valid({"images": [], "tags": "gzip"})


def test_every_key_is_described() -> None:
    def look(section: dict[str, Any]) -> None:
        for name, value in section["properties"].items():
            assert re.fullmatch(r"[A-Z`].*[.]", value["description"]), name
            for inner in (value, value.get("items", {})):
                if "properties" in inner:
                    look(inner)

    look(schema())
    assert schema()["properties"]["hardlinks"]["default"] == "preserve"


def test_real_documents(validator: Any) -> None:
    """Valid but for keys that the build warns of."""
    if not REAL_CONFIGS.is_dir():
        pytest.skip(
            "there are no real configurations here; BUILD_OCI_REAL_CONFIGS names a folder of them"
        )
    for path in sorted(REAL_CONFIGS.rglob("*.yaml")):
        text = re.sub(r"%\{[^}]*\}|\$\([^)]*\)", "word", path.read_text())
        if re.search("^mode: docker", text, re.M):
            continue
        errors = list(validator.iter_errors(yaml.safe_load(text)))
        assert {error.validator for error in errors} <= {"additionalProperties"}, path
        assert bool(errors) == any(
            "is not a key" in warning for warning in load_config(text).warnings
        ), path


@pytest.mark.parametrize(
    ("program", "made"), [("reference.py", "configuration.md"), ("chart.py", "compression.svg")]
)
def test_documentation_that_is_made(program: str, made: str) -> None:
    """The reference says what the table of keys says, the chart of the levels what their table
    says.
    """
    docs = REPOSITORY / "docs"
    out = subprocess.run(
        [sys.executable, "-P", str(docs / program)], stdout=subprocess.PIPE, check=True, text=True
    ).stdout
    assert (docs / made).read_text() == out, f"run `python docs/{program} > docs/{made}`"
