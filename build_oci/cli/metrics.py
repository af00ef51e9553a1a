"""What a build was: the summary lines, and the same as JSON for `--metrics`. docs/metrics.md
describes the document.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from build_oci.errors import counted, printable, size_text
from build_oci.version import __version__

if TYPE_CHECKING:
    from build_oci.config.model import BuildConfig
    from build_oci.image.result import BuiltImage, BuiltLayer
    from build_oci.pipeline import BuildResult


def summary(image: BuiltImage, output: str) -> str:
    """One line on an image in the layout OUTPUT: platform, digest, size of its layers before and
    after, ratio, files written, unchanged, whited out, seconds.
    """
    before, after = image.uncompressed_size, image.layers_size
    sizes = "no layer of its own"
    if before:
        sizes = f"{size_text(before)} -> {size_text(after)} ({after / before:.1%})"
    for other in image.others:
        sizes += f"; {other.descriptor.digest} with {other.compression}"
        if before:
            sizes += f" {size_text(other.layers_size)} ({other.layers_size / before:.1%})"
    files = counted(image.files, "file")
    if image.plan:
        files = f"{counted(len(image.layers), 'layer')}, {files}"
    if image.unchanged:
        files += f", {image.unchanged:,} unchanged"
    if image.whiteouts:
        files += f", {counted(image.whiteouts, 'whiteout')}"
    if image.plan and image.unclaimed_files:
        files += f", {size_text(image.unclaimed_size)} without an owner"
    if reused := [layer.size for layer in image.layers if layer.reused]:
        files += (
            f", {counted(len(reused), 'layer')} of {len(image.layers)} reused"
            f" ({size_text(sum(reused))})"
        )
    platform = f"{image.descriptor.platform}: " if image.descriptor.platform else ""
    return printable(
        f"build-oci: {output}: {platform}{image.digest}  {sizes}  {files}  {image.seconds:.1f} s"
    )


def metrics(
    config: BuildConfig, result: BuildResult, *, workers: int, seconds: float
) -> dict[str, Any]:
    """The JSON-able document."""
    return {
        "schemaVersion": 1,
        "version": __version__,
        "seconds": round(seconds, 6),
        "workers": workers,
        "compression": str(config.codecs[0].compression),
        "compressionLevel": config.codecs[0].level,
        "images": [
            {
                "digest": image.digest,
                "architecture": configured.architecture,
                "os": configured.os,
                "layers": [
                    {
                        "digest": layer.digest,
                        "size": layer.size,
                        "uncompressedSize": layer.uncompressed_size,
                        "components": list(layer.components),
                        "reused": layer.reused,
                        "difference": _difference(layer),
                    }
                    for layer in image.layers
                ],
                "unclaimedSize": image.unclaimed_size,
                "unclaimedFiles": image.unclaimed_files,
                "otherCodecs": [
                    {
                        "compression": str(codec.compression),
                        "compressionLevel": codec.level,
                        "digest": other.descriptor.digest,
                        "layers": [
                            {"digest": digest, "size": size} for digest, size in other.layers
                        ],
                        "layerSize": other.layers_size,
                    }
                    for codec, other in zip(config.codecs[1:], image.others, strict=False)
                ],
                "layerSize": image.layers_size,
                "uncompressedSize": image.uncompressed_size,
                "files": image.files,
                "digestsBelieved": image.digests_believed,
                "unchanged": image.unchanged,
                "whiteouts": image.whiteouts,
                "seconds": round(image.seconds, 6),
                "stages": {stage: round(seconds, 6) for stage, seconds in image.stages.items()},
            }
            for configured, image in zip(config.images, result.images, strict=True)
        ],
    }


def _difference(layer: BuiltLayer) -> dict[str, str] | None:
    return (
        {"what": layer.difference.what, "path": printable(layer.difference.path)}
        if layer.difference
        else None
    )


def as_json(document: dict[str, Any]) -> bytes:
    """DOCUMENT as a file holds it."""
    return json.dumps(document, indent=1).encode() + b"\n"
