"""A report as one page that needs nothing else: no network, no library, and no foreign text that is
not data.

What the page shows stands in it as JSON, in which everything that HTML could mistake for markup is
escaped. A script puts it into text nodes. The page's content security policy names the digest of
that script, and allows nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib.resources import files
from typing import Any

from build_oci.compare.document import report_document
from build_oci.compare.model import Report

_MOST_LISTED = 2000  # entries on a page
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&'\u2028\u2029"}


def page(report: Report) -> bytes:
    """The page, UTF-8."""
    document = report_document(report)
    for shown, comparison in zip(document["images"], report.comparisons, strict=True):
        shown["map"] = comparison.map
        shown["entries"]["listed"] = shown["entries"]["listed"][:_MOST_LISTED]
        _without_lists(shown)
    template = (files("build_oci.compare") / "page.html").read_text(encoding="utf-8")
    for kind in ("style", "script"):
        found = re.search(f"<{kind}>(.*?)</{kind}>", template, re.DOTALL)
        assert found is not None
        digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
        template = template.replace(f"@{kind}-digest@", f"sha256-{digest}")
    data = json.dumps(document, separators=(",", ":")).translate(_ESCAPES)
    return template.replace("@data@", data).encode()


def _without_lists(shown: dict[str, Any]) -> None:
    """What the page does not show stays out of it."""
    for layer in shown["new"]["layers"]:
        if "why" in layer:
            layer["why"]["entries"] = layer["why"]["entries"][:20]
            del layer["why"]["counts"]
    shown["old"]["layers"] = len(shown["old"]["layers"])
