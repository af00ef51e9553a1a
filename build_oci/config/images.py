"""From a section of `images` to an ImageConfig: what belongs together, what excludes each other,
what has no effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from build_oci.config.document import Document, Place, join, shown
from build_oci.config.keys import ARCHITECTURES, PLAIN_SOURCES, PLATFORM_ALIASES, SYSTEMS
from build_oci.config.model import (
    ComponentSource,
    ImageConfig,
    ParentConfig,
    PreviousConfig,
    SplitConfig,
    StackItem,
)
from build_oci.config.reader import Section, nearest


def image_config(document: Document, section: Section) -> ImageConfig:
    values, places = section.values, section.places
    for name, usual in (("architecture", ARCHITECTURES.split()), ("os", SYSTEMS.split())):
        if name in places and values[name] not in usual:
            near = PLATFORM_ALIASES.get(values[name].lower()) or nearest(
                values[name].lower(), usual
            )
            hint = f"; did you mean `{near}`?" if near else ""
            document.warn(
                places[name], f"`{shown(values[name])}` is not a name that clients know{hint}"
            )
    parent: Section | None = values["parent"]
    if "config" in places:
        from build_oci.oci.fields import config_findings
        from build_oci.oci.runtime_config import changes_of

        inherits = any(
            isinstance(source, Section) and source.values["config"]
            for source in (parent, values["layer"])
        )
        for name, what in config_findings(
            changes_of(values["config"]) if inherits else values["config"]
        ):
            place = places["config"]
            document.warn(place._replace(path=join(place.path, name)) if name else place, what)
    for name in ("exclude", "owner"):
        if name in places and not places.keys() & {"layer", "layers"}:
            document.warn(places[name], "has no effect: there is no `layer`")
    split: Section | None = values["split"]
    if split and values["layer"] is None:
        document.warn(split.place, "has no effect: the image has no `layer` to split")
    layer = values["layer"]
    layer_image: ParentConfig | None = None
    if isinstance(layer, Section):
        layer_image = _image_source(document, layer)
        if values["exclude"]:
            document.warn(
                places["exclude"],
                "has no effect: `layer` is an image; `exclude` is for directories",
            )
    return ImageConfig(
        where=document.where(section.place),
        architecture=values["architecture"],
        os=values["os"],
        variant=values["variant"],
        os_version=values["os.version"],
        os_features=values["os.features"],
        author=values["author"],
        comment=values["comment"],
        layer=None if layer_image else layer,
        layer_where=document.where(places.get("layer", section.place)),
        split=_split_config(document, split) if split else None,
        parent=(
            _parent_config(parent.values, document.where(parent.places.get("image", parent.place)))
            if parent
            else None
        ),
        has_config="config" in places,
        config=values["config"],
        annotations=dict(values["annotations"]),
        index_annotations=dict(values["index-annotations"]),
        exclude=values["exclude"],
        exclude_where=document.where(places.get("exclude", section.place)),
        owner=values["owner"],
        previous=(
            _previous_config(document, values["previous"], values) if values["previous"] else None
        ),
        layer_image=layer_image,
        stack=_stack(document, section),
    )


def _stack(document: Document, section: Section) -> tuple[StackItem, ...] | None:
    place = section.places.get("layers")
    if place is None:
        return None
    for name in ("layer", "split"):
        if name in section.places:
            document.problem(
                section.places[name],
                "cannot stand beside `layers`",
                "write the directory as `{add: DIRECTORY}` among `layers`, or leave `layers` out",
            )
    return tuple(_stack_item(document, item) for item in section.values["layers"])


def _stack_item(document: Document, item: Section) -> StackItem:
    values, places = item.values, item.places
    adds = [name for name in ("add", "remove") if name in places]
    if ("image" in places) is bool(adds):
        what = (
            f"has both `image` and `{adds[0]}`"
            if adds
            else "has neither `add`, `remove` nor `image`"
        )
        document.problem(
            item.place,
            what,
            "write `{add: DIRECTORY}`, `{add: DIRECTORY, remove: [PATH]}` or `{image: LAYOUT}`",
        )
    for name in ("index", "trust", "recompress"):
        if name in places and "image" not in places:
            document.warn(places[name], "has no effect: there is no `image`")
    where = document.where(places.get("image") or places.get("add") or item.place)
    image = (
        ParentConfig(values["image"], values["index"], values["recompress"], values["trust"], where)
        if "image" in places
        else None
    )
    return StackItem(
        where,
        image,
        values["add"],
        _removed(document, values["remove"], places.get("remove", item.place)),
    )


def _removed(document: Document, paths: tuple[str, ...], place: Place) -> tuple[str, ...]:
    normalised = set()
    for path in paths:
        names = [name for name in path.split("/") if name not in ("", ".")]
        if not names or ".." in names or "\0" in path:
            document.problem(
                place, f"`{shown(path)}` is no path below the root", "write it as `/etc/motd`"
            )
        normalised.add(tuple(names))
    whole = [
        names
        for names in normalised
        if not any(names[:size] in normalised for size in range(1, len(names)))
    ]
    return tuple(sorted("/".join(names) for names in whole))


def _image_source(document: Document, section: Section) -> ParentConfig:
    """An image that is read, and built upon by nobody."""
    where, values = document.where(section.places.get("image", section.place)), section.values
    return ParentConfig(
        values["image"],
        values["index"],
        recompress=True,
        trust=False,
        where=where,
        inherit=values.get("config", False),
    )


def _split_config(document: Document, section: Section) -> SplitConfig:
    values = section.values
    where = document.where(section.place)
    # The default stands in the table as what would be written.
    sources = tuple(
        ComponentSource(source, where) if isinstance(source, str) else source
        for source in values["components"]
    )
    for place, source in enumerate(sources):
        if source.kind in PLAIN_SOURCES and source.kind in (
            other.kind for other in sources[:place]
        ):
            document.warn(section.places["components"], f"`{source.kind}` stands there twice")
    return SplitConfig(
        max_layers=values["max-layers"],
        components=sources,
        unclaimed=values["unclaimed"],
        plan=values["plan"],
        where=where,
        plan_where=document.where(section.places.get("plan", section.place)),
    )


def _previous_config(
    document: Document, section: Section, image: Mapping[str, Any]
) -> PreviousConfig:
    values, places = section.values, section.places
    # Where there are problems, one of them may be the one that is missing.
    if values["image"] is None and values["plan"] is None and not document.has_problems:
        document.problem(
            section.place,
            "names nothing to build upon",
            "give `image`, the layout of the last build, or `plan`, the plan it wrote",
        )
    if image["layer"] is None:
        document.warn(section.place, "has no effect: the image has no `layer`")
    elif image["split"] is None and "plan" in places:
        document.warn(places["plan"], "has no effect: the image has no `split`")
    for name in ("index", "trust"):
        if name in places and values["image"] is None:
            document.warn(places[name], "has no effect: there is no `image`")
    return PreviousConfig(
        image=values["image"],
        number=values["index"],
        plan=values["plan"],
        trust=values["trust"],
        optional=values["optional"],
        where=document.where(places.get("image", section.place)),
        plan_where=document.where(places.get("plan", section.place)),
    )


def _parent_config(values: dict[str, Any], where: str) -> ParentConfig:
    return ParentConfig(
        image=values["image"],
        number=values["index"],
        recompress=values["recompress"],
        trust=values["trust"],
        where=where,
        inherit=values["config"],
    )
