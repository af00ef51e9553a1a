"""A report for programs: one JSON document, and its schema."""

from __future__ import annotations

from typing import Any

from build_oci.compare.model import Comparison, Difference, LayerView, Report, Side, Tally, What
from build_oci.compare.why import phrase
from build_oci.errors import printable
from build_oci.version import __version__

SCHEMA_VERSION = 1
_WHATS = [what.name.lower().replace("_", "-") for what in What]
_WORDS = (
    "type",
    "content",
    "link target",
    "device number",
    "mode",
    "owner",
    "time",
    "xattr",
    "hard link",
)


def report_document(report: Report) -> dict[str, Any]:
    """REPORT as `--json` prints it; see `report_schema`."""
    return {
        "schemaVersion": SCHEMA_VERSION,
        "version": __version__,
        "equal": report.equal,
        "download": report.download,
        "images": [_comparison(one) for one in report.comparisons],
        "onlyOld": [_side(side) for side in report.only_old],
        "onlyNew": [_side(side) for side in report.only_new],
    }


def _side(side: Side) -> dict[str, Any]:
    return {
        "name": printable(side.name),
        "digest": side.digest,
        "platform": printable(side.platform),
        "refName": printable(side.ref_name),
        "size": side.size,
        "layers": [_layer(layer) for layer in side.layers],
    }


def _layer(layer: LayerView) -> dict[str, Any]:
    found: dict[str, Any] = {
        "number": layer.number,
        "digest": layer.digest,
        "diffId": layer.diff_id,
        "mediaType": printable(layer.media_type),
        "size": layer.size,
        "archiveSize": layer.archive_size,
        "entries": layer.entries,
        "components": [printable(name) for name in layer.components],
        "shared": layer.shared,
    }
    if layer.why is not None:
        found["why"] = {
            "kind": layer.why.kind,
            "text": phrase(layer.why),
            "counterpart": layer.why.counterpart,
            "metadataOnly": layer.why.metadata_only,
            "unchangedSize": layer.unchanged,
            "counts": [
                {
                    "what": _WHATS[what],
                    "differs": Difference(b"", what, differs, None, None).words,
                    "entries": count,
                }
                for (what, differs), count in sorted(layer.why.counts.items())
            ],
            "entries": [_entry(entry) for entry in layer.why.entries],
        }
    return found


def _comparison(one: Comparison) -> dict[str, Any]:
    changed = one.changed_components
    return {
        "equal": one.equal,
        "complete": one.complete,
        "old": _side(one.old),
        "new": _side(one.new),
        "download": {
            "size": one.download.size,
            "layers": one.download.layers,
            "config": one.download.config,
            "manifest": one.download.manifest,
            "partialSize": one.download.partial_size,
        },
        "entries": {**_tally(one.tally), "listed": [_entry(entry) for entry in one.entries]},
        "components": [
            {"name": printable(name), **_tally(tally)} for name, tally in one.components
        ],
        "changedComponents": (
            changed
            and {
                word: [printable(name) for name in names]
                for word, names in zip(("added", "removed", "changed"), changed, strict=True)
            }
        ),
        "directories": [
            {"path": printable(name), **_tally(tally)} for name, tally in one.directories
        ],
        "causes": [
            {
                "path": printable(cause.path),
                "differs": Difference(b"", What.CHANGED, cause.differs, None, None).words,
                "layers": cause.layers,
                "size": cause.size,
            }
            for cause in one.causes
        ],
        "config": [
            {"key": printable(field.key), "old": field.old, "new": field.new}
            for field in one.config
        ],
        "annotations": [
            {"where": field.where, "key": printable(field.key), "old": field.old, "new": field.new}
            for field in one.annotations
        ],
    }


def _tally(tally: Tally) -> dict[str, Any]:
    found: dict[str, Any] = {
        what.name.lower(): {"count": tally.counts[what], "size": tally.sizes[what]}
        for what in (What.ADDED, What.REMOVED, What.CHANGED)
    }
    found["metadataOnly"] = tally.metadata_only
    return found


def _entry(entry: Difference) -> dict[str, Any]:
    return {
        "path": printable(entry.path),
        "what": _WHATS[entry.what],
        "differs": entry.words,
        "oldSize": entry.old.size if entry.old else None,
        "newSize": entry.new.size if entry.new else None,
        "oldLayer": entry.old.layer if entry.old else None,
        "newLayer": entry.new.layer if entry.new else None,
        "cost": entry.cost,
    }


# ---- the schema


def report_schema() -> dict[str, Any]:
    """The document as a JSON Schema (draft 2020-12). JSON-able, and the same at every call."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "build-oci compare",
        "description": (
            "What `build-oci compare --json` prints. Sizes are bytes. In names, control characters"
            " and bytes that are no UTF-8 are escaped as in \\x1b."
        ),
        **_object(
            {
                "schemaVersion": {"const": SCHEMA_VERSION},
                "version": _text("of build-oci"),
                "equal": {"type": "boolean", "description": "Both layouts have the same images."},
                "download": _count(
                    "What a client with the old image downloads for the new one; of several images,"
                    " the most."
                ),
                "images": _list(_comparison_schema(), "Pairs of images."),
                "onlyOld": _list({"$ref": "#/$defs/image"}, "Images that only the old layout has."),
                "onlyNew": _list({"$ref": "#/$defs/image"}, "Images that only the new layout has."),
            }
        ),
        "$defs": {"image": _side_schema(), "layer": _layer_schema(), "entry": _entry_schema()},
    }


def _object(properties: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [name for name in properties if name not in optional],
        "properties": properties,
    }


def _list(items: dict[str, Any], description: str) -> dict[str, Any]:
    return {"type": "array", "items": items, "description": description}


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


def _count(description: str, *, may_be_unknown: bool = False) -> dict[str, Any]:
    return {
        "type": ["integer", "null"] if may_be_unknown else "integer",
        "minimum": 0,
        "description": description,
    }


def _differs() -> dict[str, Any]:
    return _list({"enum": list(_WORDS)}, "In what the old and the new entry differ.")


def _side_schema() -> dict[str, Any]:
    return _object(
        {
            "name": _text("The layout as it was named."),
            "digest": _text("Of the manifest."),
            "platform": _text("os/architecture or os/architecture/variant."),
            "refName": _text("org.opencontainers.image.ref.name, or empty."),
            "size": _count("Of all layers' blobs."),
            "layers": _list({"$ref": "#/$defs/layer"}, "The lowest first."),
        }
    )


def _layer_schema() -> dict[str, Any]:
    kinds = ["recompressed", "order", "headers", "entries", "added", "unread"]
    counts = _object(
        {"what": {"enum": _WHATS}, "differs": _differs(), "entries": _count("How many.")}
    )
    why = _object(
        {
            "kind": {"enum": kinds, "description": "docs/compare.md says what each means."},
            "text": _text("The same in words."),
            "counterpart": _count("The old layer that it was held against.", may_be_unknown=True),
            "metadataOnly": {
                "type": "boolean",
                "description": "Only modes, owners, times, attributes or hard links differ.",
            },
            "unchangedSize": _count(
                "About the bytes of the blob that the old image has in another; null unless the"
                " kind is `entries`.",
                may_be_unknown=True,
            ),
            "counts": _list(counts, "How many entries, by what became of them."),
            "entries": _list({"$ref": "#/$defs/entry"}, "At most 100, those that cost most first."),
        }
    )
    return _object(
        {
            "number": _count("0 is the lowest."),
            "digest": _text("Of the blob."),
            "diffId": _text("Of the archive."),
            "mediaType": _text("As its descriptor says."),
            "size": _count("Of the blob."),
            "archiveSize": _count(
                "Of the archive; null where the layer was not read.", may_be_unknown=True
            ),
            "entries": _count(
                "In the archive; null where the layer was not read.", may_be_unknown=True
            ),
            "components": _list(
                {"type": "string"}, "As the descriptor's annotation io.build-oci.components says."
            ),
            "shared": {"type": "boolean", "description": "Both images have this blob."},
            "why": {**why, "description": "Why it is new; of new layers alone."},
        },
        optional=("why",),
    )


def _entry_schema() -> dict[str, Any]:
    return _object(
        {
            "path": _text("Without a leading slash; empty for the root."),
            "what": {"enum": _WHATS},
            "differs": _differs(),
            "oldSize": _count(
                "Of its content; null where it is missing or was not read.", may_be_unknown=True
            ),
            "newSize": _count(
                "Of its content; null where it is missing or was not read.", may_be_unknown=True
            ),
            "oldLayer": _count("Number of the layer that has it.", may_be_unknown=True),
            "newLayer": _count("Number of the layer that has it.", may_be_unknown=True),
            "cost": _count("About the bytes that a client downloads for it."),
        }
    )


def _tally_properties() -> dict[str, Any]:
    one = _object(
        {"count": _count("Entries."), "size": _count("Bytes of their contents, not compressed.")}
    )
    return {
        "added": one,
        "removed": one,
        "changed": one,
        "metadataOnly": _count("Of the changed ones, those whose content is the same."),
    }


def _comparison_schema() -> dict[str, Any]:
    field = {"key": _text("Path of the value."), "old": {}, "new": {}}
    names = _list({"type": "string"}, "Names.")
    changed = _object({"added": names, "removed": names, "changed": names}) | {
        "type": ["object", "null"]
    }
    cause = _object(
        {
            "path": _text("The entry."),
            "differs": _differs(),
            "layers": _count("How many."),
            "size": _count("Of their blobs."),
        }
    )
    download = _object(
        {
            "size": _count("All of it, as a registry serves it."),
            "layers": _count("Blobs of layers."),
            "config": _count("The config."),
            "manifest": _count("The manifest."),
            "partialSize": _count(
                "All of it by partial pulls of zstd:chunked layers; null where there are none.",
                may_be_unknown=True,
            ),
        }
    )
    listed = _list({"$ref": "#/$defs/entry"}, "At most 100,000, those that cost most first.")
    return _object(
        {
            "equal": {"type": "boolean", "description": "The manifests have the same digest."},
            "complete": {
                "type": "boolean",
                "description": (
                    "All layers of both were read; else entries count as the layers read tell."
                ),
            },
            "old": {"$ref": "#/$defs/image"},
            "new": {"$ref": "#/$defs/image"},
            "download": download,
            "entries": _object({**_tally_properties(), "listed": listed}),
            "components": _list(
                _object({"name": _text("Of the layer."), **_tally_properties()}),
                "By components of layers.",
            ),
            "changedComponents": changed,
            "directories": _list(
                _object({"path": _text("A directory."), **_tally_properties()}),
                "By directory, three deep.",
            ),
            "causes": _list(cause, "Entries whose metadata alone made layers new."),
            "config": _list(
                _object(field), "Values of the config that differ; null where missing."
            ),
            "annotations": _list(
                _object({"where": {"enum": ["manifest", "index"]}, **field}),
                "Annotations that differ.",
            ),
        }
    )
