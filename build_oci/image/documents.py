"""What is said of an image: its config, and a manifest for each codec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from build_oci.errors import counted
from build_oci.image.layers import PackedLayer
from build_oci.image.run import Run
from build_oci.oci import documents as oci
from build_oci.oci.media_types import MEDIA_TYPE_CONFIG, MEDIA_TYPE_MANIFEST, REF_NAME_KEY, ZSTD_KEY

if TYPE_CHECKING:
    from build_oci.layer.pack import PlannedLayer
    from build_oci.parent.layers import ParentImage

# Docker loads no image with more layers.
MOST_LAYERS_OF_DOCKER = 127
_LONGEST_COMMENT = 250  # characters of the names of components in the history


class Documents:
    """The documents of one image. INHERITED: the config that the image's own is put upon. NAMED:
    does the history say which components a layer holds?
    """

    def __init__(self, run: Run, inherited: Any, *, named: bool) -> None:
        self._context = run.context
        self._image = run.image
        self._platform = run.platform
        self._inherited = inherited
        self._named = named

    def write(
        self, content: Sequence[ParentImage | PackedLayer], notes_of: list[dict[str, str]]
    ) -> list[oci.Descriptor]:
        """Config, and a manifest for each codec, whose descriptors it returns. NOTES_OF:
        annotations of the layers that were packed.
        """
        context, image = self._context, self._image
        layers: list[tuple[oci.Descriptor, ...]] = []
        diff_ids: list[str] = []
        history: list[Any] = []
        notes = iter(notes_of)
        for piece in content:
            if isinstance(piece, PackedLayer):
                note = next(notes)
                layers.append(
                    tuple(
                        one._replace(annotations={**one.annotations, **note})
                        for one in piece.layer.descriptors
                    )
                )
                diff_ids.append(piece.layer.diff_id)
                history.append(
                    self._history_entry(has_layer=True, comment=self._comment(piece.planned))
                )
            else:
                layers += [below.descriptors for below in piece.layers]
                diff_ids += [below.diff_id for below in piece.layers]
                history += piece.history
        if not notes_of:
            history.append(self._history_entry(has_layer=False, comment=image.comment))
        if len(layers) > MOST_LAYERS_OF_DOCKER:
            count = counted(len(layers), "layer")
            context.warn(
                f"{image.where}: the image has {count}, and Docker loads none with more than"
                f" {MOST_LAYERS_OF_DOCKER}"
            )
        inherits = any(source and source.inherit for source in (image.parent, image.layer_image))
        merged = image.config
        if inherits:
            from build_oci.oci.runtime_config import inherit

            merged = inherit(self._inherited, image.config)
        config = context.layout.add_document(
            MEDIA_TYPE_CONFIG,
            oci.image_config(
                self._platform,
                created=context.created,
                author=image.author,
                config=merged,
                has_config=merged is not None if inherits else image.has_config,
                diff_ids=diff_ids,
                history=history,
            ),
        )
        manifests = [
            context.layout.add_document(
                MEDIA_TYPE_MANIFEST,
                oci.manifest(config, [layer[number] for layer in layers], image.annotations),
            )
            for number in range(len(context.config.codecs))
        ]
        descriptors = [
            manifests[0]._replace(platform=self._platform, annotations=image.index_annotations)
        ]
        for manifest in manifests[1:]:
            # It is the same without layers, or where those of the parent are carried as they are.
            if manifest.digest != manifests[0].digest:
                annotations = {
                    key: value
                    for key, value in image.index_annotations.items()
                    if key != REF_NAME_KEY
                }
                descriptors.append(
                    manifest._replace(
                        platform=self._platform, annotations=annotations | {ZSTD_KEY: "true"}
                    )
                )
        return descriptors

    def _history_entry(self, *, has_layer: bool, comment: str | None) -> dict[str, Any]:
        return oci.history_entry(
            created=self._context.created,
            has_layer=has_layer,
            author=self._image.author,
            comment=comment,
        )

    def _comment(self, planned: PlannedLayer) -> str | None:
        """What the history says of a layer: the comment of the configuration, and which components
        it holds.
        """
        if not self._named:
            return self._image.comment
        names = listed(planned.components, _LONGEST_COMMENT) or "directories"
        return f"{self._image.comment}: {names}" if self._image.comment else names


def listed(names: Sequence[str], most: int) -> str:
    """NAMES with commas, as many as fit into about MOST characters, and how many more there are."""
    size = shown = 0
    for name in names:
        size += len(name) + 2
        if shown and size > most:
            break
        shown += 1
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more:,} more" if more else "")
