"""The paths that a configuration names, and SOURCE_DATE_EPOCH (contract: config-keys, config-
epoch).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from configs import IMAGE, load

from build_oci.config.load import source_date_epoch
from build_oci.config.paths import check_paths
from build_oci.errors import ConfigError, UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("1700000000", 1700000000), ("007", 7), ("253402300799", 253402300799)],
)
def test_source_date_epoch(text: str, seconds: int) -> None:
    assert source_date_epoch({"SOURCE_DATE_EPOCH": text}) == seconds


def test_source_date_epoch_unset() -> None:
    assert source_date_epoch({}) is None
    assert source_date_epoch({"SOURCE_DATE_EPOCH": ""}) is None


@pytest.mark.parametrize(
    "text",
    ["-1", "+1", "1.5", " 1", "1\n", "1_0", "0x10", "now", "\u0661", "253402300800", "9" * 5000],
)
def test_source_date_epoch_wrong(text: str) -> None:
    """contract: config-epoch. SOURCE_DATE_EPOCH that is not a whole number >= 0 is an error."""
    with pytest.raises(UsageError, match=r"^SOURCE_DATE_EPOCH: must be a whole number"):
        source_date_epoch({"SOURCE_DATE_EPOCH": text})


def test_check_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """contract: cli-check.
    `--check` looks at every path; contract: config-layer-path: a symlink to a directory is
    followed, relative to the current directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tree").mkdir()
    (tmp_path / "link").symlink_to("tree")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "file").touch()
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "index.json").touch()

    def check(*layers: str, parent: str = "base") -> None:
        image = "- {os: linux, architecture: amd64, layer: '%s', parent: {image: '%s'}}\n"
        check_paths(load("images:\n" + "".join(image % (layer, parent) for layer in layers)))

    check("tree", "link", str(tmp_path / "tree"), parent=str(tmp_path / "base"))
    with pytest.raises(ConfigError) as caught:
        check("nothing", "file", "dangling", "tree")
    assert caught.value.exit_status == 2
    assert [str(problem) for problem in caught.value.problems] == [
        (
            "config.yaml:2: images[0].layer: cannot use the directory `nothing`: No such file or"
            " directory"
        ),
        "config.yaml:3: images[1].layer: cannot use the directory `file`: Not a directory",
        (
            "config.yaml:4: images[2].layer: cannot use the directory `dangling`: No such file or"
            " directory"
        ),
    ]
    for parent, what in (
        ("gone", "No such file"),
        ("file", "is no archive of an image layout"),
        ("tree", "no `index.json`"),
    ):
        with pytest.raises(ConfigError, match=f"images.0..parent.image: .*{what}"):
            check("tree", parent=parent)


def test_unlistable_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that may be entered but not listed; root, who may list all, looks at it as
    nobody.
    """
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    (tmp_path / "closed").mkdir(mode=0o311)
    config = load(IMAGE + "  layer: closed")
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        with pytest.raises(
            ConfigError, match=r"layer: cannot use the directory `closed`: Permission denied"
        ):
            check_paths(config)
    finally:
        if root:
            os.seteuid(0)
