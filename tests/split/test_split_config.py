"""The section `split` (contract: split-config): what it may say, and what is wrong with it, where
it stands.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from build_oci.cli.command import main
from build_oci.config.load import load_config
from build_oci.config.model import ComponentSource, SplitConfig
from build_oci.config.paths import check_paths
from build_oci.errors import ConfigError

IMAGE = {"architecture": "amd64", "os": "linux", "layer": "root"}


def split_of(split: Any) -> SplitConfig:
    config = load_config(json.dumps({"images": [IMAGE | {"split": split}]}), source="c.yaml")
    assert config.warnings == ()
    assert config.images[0].split is not None
    return config.images[0].split


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(text, source="c.yaml")
    return [line for problem in caught.value.problems for line in problem.lines()]


def yaml(split: str) -> str:
    return f"images:\n- architecture: amd64\n  os: linux\n  layer: root\n  split:\n{split}"


def test_defaults() -> None:
    split = split_of({})
    assert split.max_layers == 64
    assert [source.kind for source in split.components] == ["xattr", "packages"]
    assert (split.unclaimed, split.plan) == ("warn", None)
    assert split.where == "c.yaml:1: images[0].split"
    assert load_config(json.dumps({"images": [IMAGE]})).images[0].split is None


def test_the_whole_section() -> None:
    text = yaml("""\
    max-layers: 120
    components:
    - file: ownership.json
    - xattr
    - packages
    - paths: {kernel: [usr/lib/modules, usr/lib/firmware], fonts: ["usr/share/fonts/**"]}
    unclaimed: error
    plan: layers.json
""")
    config = load_config(text, source="c.yaml")
    assert config.warnings == ()
    assert config.images[0].split == SplitConfig(
        max_layers=120,
        components=(
            ComponentSource(
                "file", "c.yaml:8: images[0].split.components[0]", path="ownership.json"
            ),
            ComponentSource("xattr", "c.yaml:9: images[0].split.components[1]"),
            ComponentSource("packages", "c.yaml:10: images[0].split.components[2]"),
            ComponentSource(
                "paths",
                "c.yaml:11: images[0].split.components[3]",
                paths={
                    "kernel": ("usr/lib/modules", "usr/lib/firmware"),
                    "fonts": ("usr/share/fonts/**",),
                },
            ),
        ),
        unclaimed="error",
        plan="layers.json",
        where="c.yaml:6: images[0].split",
        plan_where="c.yaml:13: images[0].split.plan",
    )


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        (
            "    max-layers: 0",
            (
                "c.yaml:6: images[0].split.max-layers: must be a whole number from 1 to 499, not"
                " the number `0`"
            ),
        ),
        (
            "    max-layers: 500",
            (
                "c.yaml:6: images[0].split.max-layers: must be a whole number from 1 to 499, not"
                " the number `500`"
            ),
        ),
        (
            "    max-layers: many",
            (
                "c.yaml:6: images[0].split.max-layers: must be a whole number from 1 to 499, not"
                " the string `many`"
            ),
        ),
        ("    max-layer: 3", "c.yaml:6: images[0].split.max-layer: `max-layer` is not a key"),
        ("    unclaimed: warm", "hint: did you mean `warn`?"),
        ("    plan: ''", "c.yaml:6: images[0].split.plan: is empty"),
        ("    components: packages", "hint: write it as `components: [packages]`"),
        ("    components: [package]", "hint: did you mean `packages`?"),
        (
            "    components:\n    - xattr\n    - map.json",
            "c.yaml:8: images[0].split.components[1]: must be `xattr`, `packages`, ",
        ),
        ("    components: [map.json]", "hint: a map of components is `- file: map.json`"),
        (
            "    components: [{}]",
            "c.yaml:6: images[0].split.components[0]: names no source; it must be `xattr`, ",
        ),
        ("    components: [{file: a, paths: {b: [c]}}]", "names two sources, `file` and `paths`"),
        ("    components: [{file: ''}]", "c.yaml:6: images[0].split.components[0].file: is empty"),
        (
            "    components: [{paths: [a]}]",
            (
                "c.yaml:6: images[0].split.components[0].paths: must be a mapping of names to lists"
                " of paths"
            ),
        ),
        ("    components: [{paths: {a: usr/lib}}]", "hint: write it as `[usr/lib]`"),
        (
            "    components: [{paths: {a: ['[z-a]']}}]",
            "c.yaml:6: images[0].split.components[0].paths.a[0]: `[z-a]` is not a glob",
        ),
        ("    components: [{paths: {a: ['/']}}]", "names nothing below the root"),
        ("    components: [{paths: {a: ['../x']}}]", "is not a path below the root"),
        (
            "    components: [{paths: {'unclaimed:x': [usr]}}]",
            "the component begins with `unclaimed:`",
        ),
        ('    components: [{paths: {"": [usr]}}]', "the component is empty"),
    ],
)
def test_what_is_wrong(split: str, expected: str) -> None:
    lines = problems_of(yaml(split))
    assert any(expected in line for line in lines), lines
    assert sum("error:" in line for line in lines) == 1


def test_warnings() -> None:
    """An unknown key, a source that stands there twice, a split of nothing."""
    config = load_config(
        yaml("    colour: 3\n    components: [xattr, packages, xattr]\n"), source="c.yaml"
    )
    assert len(config.warnings) == 2
    assert config.warnings[0].startswith("c.yaml:6: images[0].split.colour: `colour` is not a key")
    assert config.warnings[1] == "c.yaml:7: images[0].split.components: `xattr` stands there twice"
    without = {name: value for name, value in IMAGE.items() if name != "layer"}
    config = load_config(json.dumps({"images": [without | {"split": {}}]}), source="c.yaml")
    assert config.warnings == (
        "c.yaml:1: images[0].split: has no effect: the image has no `layer` to split",
    )


def test_a_map_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    for path, what in (
        (tmp_path / "absent", "does not exist"),
        (tmp_path / "root", "is not a regular file"),
    ):
        image = IMAGE | {
            "layer": str(tmp_path / "root"),
            "split": {"components": [{"file": str(path)}]},
        }
        with pytest.raises(ConfigError) as caught:
            check_paths(load_config(json.dumps({"images": [image]}), source="c.yaml"))
        assert (
            caught.value.lines()[0]
            == f"build-oci: error: c.yaml:1: images[0].split.components[0]: `{path}` {what}"
        )


def test_check_looks_at_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the build would say of a plan that cannot be written, --check says, too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root").mkdir()
    config = {"images": [IMAGE | {"split": {"plan": "nowhere/plan.json"}}]}
    (tmp_path / "c.yaml").write_text(json.dumps(config))
    said = []
    for arguments in (["--check"], []):
        assert main([*arguments, "-f", "c.yaml", "-o", "out"]) == 1
        said.append(capsys.readouterr().err)
    assert said[0] == said[1]
    assert said[0].startswith("build-oci: error: nowhere/plan.json: no file can be written here\n")
    assert not (tmp_path / "out").exists()
    (tmp_path / "nowhere").mkdir()
    assert main(["--check", "-f", "c.yaml", "-o", "out"]) == 0
    assert not list((tmp_path / "nowhere").iterdir())
