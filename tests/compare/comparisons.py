"""Comparisons of two images as tests ask for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import clients
import jsonschema

from build_oci.compare.document import report_document, report_schema
from build_oci.compare.report import compare_layouts

SCHEMA = report_schema()


def document(old: Path | str, new: Path | str, **more: Any) -> clients.Document:
    """The JSON document of a comparison, which keeps to its schema."""
    found = report_document(compare_layouts(str(old), str(new), workers=2, **more))
    jsonschema.validate(json.loads(json.dumps(found)), SCHEMA)
    return found


def compared(old: Path | str, new: Path | str, **more: Any) -> clients.Document:
    """That of the one pair of images."""
    (found,) = document(old, new, **more)["images"]
    assert isinstance(found, dict)
    return found
