"""Builds OCI container images from root file system directories.

    import build_oci

    config = build_oci.load_config("images: [{architecture: amd64, os: linux, layer: rootfs}]")
    result = build_oci.build(config, output="image")
    print(result.images[0].digest)

Every error is a BuildOciError. Any number of builds may run side by side, in any threads.
"""

from __future__ import annotations

from build_oci.version import __version__

TYPE_CHECKING = False  # checkers know the name: to import typing takes longer than all the rest
if TYPE_CHECKING:
    from typing import Any

    from build_oci.config.load import load_config
    from build_oci.config.model import BuildConfig
    from build_oci.errors import (
        BuildOciError,
        Cancelled,
        ConfigError,
        OutputError,
        ParentError,
        TreeError,
        UsageError,
    )
    from build_oci.image.result import BuiltImage
    from build_oci.pipeline import BuildResult, build
    from build_oci.progress import Progress

__all__ = [
    "BuildConfig",
    "BuildOciError",
    "BuildResult",
    "BuiltImage",
    "Cancelled",
    "ConfigError",
    "OutputError",
    "ParentError",
    "Progress",
    "TreeError",
    "UsageError",
    "__version__",
    "build",
    "load_config",
]

_ERRORS = (
    "BuildOciError",
    "Cancelled",
    "ConfigError",
    "OutputError",
    "ParentError",
    "TreeError",
    "UsageError",
)
_HOMES = {
    "BuildConfig": "config.model",
    "BuildResult": "pipeline",
    "BuiltImage": "image.result",
    "Progress": "progress",
    "build": "pipeline",
    "load_config": "config.load",
    **dict.fromkeys(_ERRORS, "errors"),
}


def __getattr__(name: str) -> Any:
    # Imported when it is first asked for: the command line starts without what it does not use.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
