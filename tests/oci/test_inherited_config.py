"""`parent.config: inherit`: the parent's config with the given keys in place of its own (contract:
late-edits).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import clients
import pytest
from layouts import FIRST, Layout, image, set_to

from build_oci.config.load import load_config
from build_oci.oci.runtime_config import inherit
from build_oci.pipeline import build

PARENT = {
    "User": "1000",
    "Env": ["PATH=/usr/bin", "LANG=C", "EMPTY="],
    "Cmd": ["/bin/sh"],
    "Labels": {"version": "1", "vendor": "us"},
    "Unknown": {"kept": [1, None, True]},
}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, PARENT),
        ({}, PARENT),
        ({"Cmd": ["/bin/b"], "WorkingDir": "/"}, {**PARENT, "Cmd": ["/bin/b"], "WorkingDir": "/"}),
        (
            {"User": None, "Nothing": None},
            {key: value for key, value in PARENT.items() if key != "User"},
        ),
        (
            {"Labels": {"version": "2", "new": "x"}},
            {**PARENT, "Labels": {"version": "2", "vendor": "us", "new": "x"}},
        ),
        ({"Labels": {"vendor": None, "none": None}}, {**PARENT, "Labels": {"version": "1"}}),
        ({"Labels": None}, {key: value for key, value in PARENT.items() if key != "Labels"}),
        (
            {"Env": ["LANG=de=1", "NEW=x"]},
            {**PARENT, "Env": ["PATH=/usr/bin", "LANG=de=1", "EMPTY=", "NEW=x"]},
        ),
        ({"Env": {"LANG": None, "PATH": "/bin"}}, {**PARENT, "Env": ["PATH=/bin", "EMPTY="]}),
        ({"Env": None}, {key: value for key, value in PARENT.items() if key != "Env"}),
        ({"ExposedPorts": {"80/tcp": {}}}, {**PARENT, "ExposedPorts": {"80/tcp": {}}}),
    ],
)
def test_given_keys_replace_the_parents_own(given: Any, expected: Any) -> None:
    assert list(inherit(PARENT, given).items()) == list(expected.items())


@pytest.mark.parametrize("env", [None, "PATH=x", [1], {"A": "b"}])
def test_an_environment_that_no_client_can_load_is_replaced(env: Any) -> None:
    assert inherit({"Env": env}, {"Env": ["A=b"]}) == {"Env": ["A=b"]}


@pytest.mark.parametrize(
    ("parent", "given", "expected"),
    [
        (
            "inherit",
            {"config": {"Labels": {"version": "2"}}},
            {**PARENT, "Labels": {"version": "2", "vendor": "us"}},
        ),
        ("inherit", {}, PARENT),
        ("inherit", {"config": None}, PARENT),
        ("replace", {"config": {"Cmd": ["x"]}}, {"Cmd": ["x"]}),
        (None, {}, ...),
    ],
)
def test_the_image_config_holds_what_is_inherited(
    tmp_path: Path, parent: str | None, given: clients.Document, expected: Any
) -> None:
    below = Layout(tmp_path / "parent")
    below.index(image(below, [FIRST], config=set_to("config", PARENT)))
    section = {"image": str(tmp_path / "parent")} | ({"config": parent} if parent else {})
    document = {"images": [{"os": "linux", "architecture": "amd64", "parent": section, **given}]}
    config = load_config(json.dumps(document))
    assert not config.warnings
    build(config, output=tmp_path / "out", workers=1, epoch=0)
    manifest = clients.manifest_of(tmp_path / "out")
    content = json.loads(clients.blob(tmp_path / "out", manifest["config"]["digest"]))
    assert content.get("config", ...) == expected


def test_a_parent_without_config_has_nothing_to_inherit(tmp_path: Path) -> None:
    below = Layout(tmp_path / "parent")
    below.index(image(below, [FIRST]))
    document = {
        "images": [
            {
                "os": "linux",
                "architecture": "amd64",
                "parent": {"image": str(tmp_path / "parent"), "config": "inherit"},
            }
        ]
    }
    build(load_config(json.dumps(document)), output=tmp_path / "out", workers=1, epoch=0)
    manifest = clients.manifest_of(tmp_path / "out")
    assert "config" not in json.loads(clients.blob(tmp_path / "out", manifest["config"]["digest"]))


def test_what_only_removes_is_no_finding_where_the_config_is_inherited() -> None:
    document: dict[str, Any] = {
        "images": [
            {
                "os": "linux",
                "architecture": "amd64",
                "parent": {"image": "x", "config": "inherit"},
                "config": {"Labels": {"a": None}, "Env": {"A": None}},
            }
        ]
    }
    assert not load_config(json.dumps(document)).warnings
    document["images"][0]["parent"]["config"] = "replace"
    assert len(load_config(json.dumps(document)).warnings) == 2
