"""What the descriptor of a layer records of its archive, for later builds: annotations.

The recipe is the SHA-256 of the archive's headers in order, contents left out. The header list is a
blob of the same layout that holds just these headers, compressed with zstd; so the recipe vouches
for it. No manifest has it among its layers, so no client pulls it, and a copy of the image may lack
it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

RECIPE = "io.build-oci.recipe"
HEADERS = "io.build-oci.headers"
_SHA256 = re.compile("sha256:[0-9a-f]{64}")


def recorded_recipe(annotations: Mapping[str, str]) -> bytes | None:
    """The recipe that ANNOTATIONS tell."""
    text = annotations.get(RECIPE, "")
    return bytes.fromhex(text.partition(":")[2]) if _SHA256.fullmatch(text) else None


def recorded_headers(annotations: Mapping[str, str]) -> str | None:
    """The digest of the header list that ANNOTATIONS tell, where they tell a recipe as well."""
    text = annotations.get(HEADERS, "")
    return text if _SHA256.fullmatch(text) and recorded_recipe(annotations) else None


def without_claims(annotations: Mapping[str, str]) -> dict[str, str]:
    """ANNOTATIONS but for those that tell what an archive holds: of a layer that others may have
    made, and whose archive was not held against them.
    """
    return {key: value for key, value in annotations.items() if key not in (RECIPE, HEADERS)}


def without_headers(annotations: Mapping[str, str]) -> dict[str, str]:
    """ANNOTATIONS but for the one that names a header list."""
    return {key: value for key, value in annotations.items() if key != HEADERS}
