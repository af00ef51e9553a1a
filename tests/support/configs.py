"""Configurations, loaded, and their problems."""

from __future__ import annotations

import pytest
import yaml

from build_oci.config.load import load_config
from build_oci.config.model import BuildConfig
from build_oci.errors import ConfigError

IMAGE = "images:\n- os: linux\n  architecture: amd64\n"


def load(text: str | bytes) -> BuildConfig:
    return load_config(text, source="config.yaml")


def problems(text: str | bytes) -> list[str]:
    """Every problem of TEXT as `WHERE: WHAT` with its hint; there must be one."""
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert caught.value.exit_status == 2
    return [f"{problem} | {problem.hint}" for problem in caught.value.problems]


@pytest.fixture(params=["C", "Python"])
def _both_loaders(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "Python":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
