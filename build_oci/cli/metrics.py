"""What a build was: the summary lines, and the same as JSON for `--metrics`. docs/metrics.md describes the document."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from build_oci.errors import OutputError, counted
from build_oci.version import __version__

if TYPE_CHECKING:
    from build_oci.config.load import BuildConfig
    from build_oci.image import BuiltImage
    from build_oci.pipeline import BuildResult


def summary(image: BuiltImage) -> str:
    """One line on an image: digest, size of its layer before and after, ratio, files written, unchanged, whited out, seconds."""
    before, after = image.uncompressed_size, image.layers_size
    ratio = f" ({after / before:.1%})" if before else ""
    files = counted(image.files, "file") + (f", {image.unchanged:,} unchanged" if image.unchanged else "")
    files += f", {counted(image.whiteouts, 'whiteout')}" if image.whiteouts else ""
    return f"{image.digest}  {before / 1e6:.1f} MB -> {after / 1e6:.1f} MB{ratio}  {files}  {image.seconds:.1f} s"


def metrics(config: BuildConfig, result: BuildResult, *, workers: int, seconds: float) -> dict[str, Any]:
    """The JSON-able document."""
    return {
        "schemaVersion": 1,
        "version": __version__,
        "seconds": round(seconds, 6),
        "workers": workers,
        "compression": str(config.compression),
        "compressionLevel": config.level,
        "images": [
            {
                "digest": image.digest,
                "architecture": configured.architecture,
                "os": configured.os,
                "layerSize": image.layers_size,
                "uncompressedSize": image.uncompressed_size,
                "files": image.files,
                "unchanged": image.unchanged,
                "whiteouts": image.whiteouts,
                "seconds": round(image.seconds, 6),
                "stages": {stage: round(seconds, 6) for stage, seconds in image.stages.items()},
            }
            for configured, image in zip(config.images, result.images, strict=True)
        ],
    }


def check_writable(path: str) -> None:
    """Raises OutputError if no file can be written at PATH: better known before an hour's work than after it."""
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError("no file can be written here", where=path, hint="name a file in a directory that exists with --metrics")


def write_metrics(path: str, document: dict[str, Any]) -> None:
    """Write DOCUMENT to PATH, whole or not at all. Raises OutputError."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                json.dump(document, file, indent=1)
                file.write("\n")
            os.replace(temporary, path)
        except BaseException:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise
    except OSError as error:
        hint = "the image itself is built; name a file elsewhere with --metrics"
        raise OutputError(f"cannot be written: {error.strerror}", where=path, hint=hint) from None
