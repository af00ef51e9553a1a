"""The command with a stand-in for the build."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import build_oci.cli.command

IMAGE = "images:\n- os: linux\n  architecture: amd64\n"
SOURCE = str(Path(build_oci.cli.command.__file__).parents[2])


def run(script: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """`sh -c SCRIPT`, where $BUILD_OCI is the command."""
    environ = os.environ | {"PYTHONPATH": SOURCE, "BUILD_OCI": f"'{sys.executable}' -m build_oci"}
    # Unbuffered streams keep nothing back that could fail when the interpreter exits.
    for name in ("SOURCE_DATE_EPOCH", "BUILD_OCI_DEBUG", "PYTHONUNBUFFERED"):
        environ.pop(name, None)
    return subprocess.run(
        ["sh", "-c", script], env=environ, capture_output=True, check=False, timeout=300, **options
    )
