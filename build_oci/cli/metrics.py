"""What a build was: the summary lines, and the same as JSON for `--metrics`. docs/metrics.md
describes the document.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from build_oci.errors import counted, printable
from build_oci.version import __version__

if TYPE_CHECKING:
    from build_oci.config.load import BuildConfig
    from build_oci.image import BuiltImage, BuiltLayer
    from build_oci.pipeline import BuildResult


def summary(image: BuiltImage) -> str:
    """One line on an image: digest, size of its layers before and after, ratio, files written,
    unchanged, whited out, seconds.
    """
    before, after = image.uncompressed_size, image.layers_size
    ratio = f" ({after / before:.1%})" if before else ""
    files = counted(image.files, "file") + (
        f", {image.unchanged:,} unchanged" if image.unchanged else ""
    )
    files += f", {counted(image.whiteouts, 'whiteout')}" if image.whiteouts else ""
    if image.plan:
        files = f"{counted(len(image.layers), 'layer')}, {files}"
        files += (
            f", {image.unclaimed_size / 1e6:.1f} MB without an owner"
            if image.unclaimed_files
            else ""
        )
    if reused := [layer.size for layer in image.layers if layer.reused]:
        files += (
            f", {counted(len(reused), 'layer')} of {len(image.layers)} reused"
            f" ({sum(reused) / 1e6:.1f} MB)"
        )
    others = "".join(
        f"; {other.descriptor.digest} with {other.compression} {other.layers_size / 1e6:.1f} MB"
        + (f" ({other.layers_size / before:.1%})" if before else "")
        for other in image.others
    )
    return (
        f"{image.digest}  {before / 1e6:.1f} MB -> {after / 1e6:.1f} MB{ratio}{others}  {files} "
        f" {image.seconds:.1f} s"
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
