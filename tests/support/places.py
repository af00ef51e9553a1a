"""Where the tests find what is no Python module: the repository, inputs worth keeping, C sources,
and real configurations.
"""

from __future__ import annotations

import os
from pathlib import Path

SUPPORT = Path(__file__).parent
TESTS = SUPPORT.parent
REPOSITORY = TESTS.parent
CORPUS = TESTS / "corpus"
C_SOURCES = TESTS / "c"
REAL_CONFIGS = Path(
    os.environ.get("BUILD_OCI_REAL_CONFIGS") or REPOSITORY.parent / "shared" / "real-configs"
)
