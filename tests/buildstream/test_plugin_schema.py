"""The BuildStream plugin has a copy of the schema, because build-oci itself is only in the
sandbox.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from build_oci.config.schema import schema

COPY = Path(__file__).parents[2] / "buildstream" / "build_oci_buildstream" / "schema.json"


def test_copy_of_the_schema() -> None:
    if not COPY.exists():
        pytest.skip("only the checkout has the plugin")
    assert json.loads(COPY.read_text()) == schema(), f"make it anew: build-oci --schema > {COPY}"
