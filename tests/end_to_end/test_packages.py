"""What the wheel holds."""

from __future__ import annotations

import tomllib

import pytest
from places import REPOSITORY


def test_every_package_is_in_the_wheel() -> None:
    """A folder that the list of packages lacks is missing from the wheel, though an import from the
    checkout finds it.
    """
    package = REPOSITORY / "build_oci"
    if not package.is_dir():
        pytest.skip("the sources are not here")
    found = sorted(
        ".".join(path.parent.relative_to(REPOSITORY).parts) for path in package.rglob("__init__.py")
    )
    listed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "setuptools"
    ]["packages"]
    assert sorted(listed) == found
