"""What the documents of two images say otherwise: config and annotations; and the components that
their layers remember.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from build_oci.compare.model import Field
from build_oci.compare.read import Image
from build_oci.errors import PlanError
from build_oci.oci.untrusted import ReadDescriptor
from build_oci.split.plan_file import ANNOTATION, plan_from_annotations

_MOST_FIELDS = 1000
_OBJECTS = ("Labels", "ExposedPorts", "Volumes", "Healthcheck")


def config_fields(old: dict[str, Any], new: dict[str, Any]) -> list[Field]:
    """The values of two image configs that differ, names of `Env` and `Labels` one by one.

    The layers are not among them.
    """
    return _fields("config", dict(_flat_config(old)), dict(_flat_config(new)))


def annotation_fields(old: Image, new: Image) -> list[Field]:
    """The annotations of the manifests, and of their descriptors in the index, that differ."""
    manifest = _fields("manifest", dict(old.annotations), dict(new.annotations))
    return manifest + _fields(
        "index", dict(old.descriptor.annotations), dict(new.descriptor.annotations)
    )


def _flat_config(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if key == "config" and isinstance(value, dict):
            yield from _flat_runtime_config(value)
        elif key == "history" and isinstance(value, list):
            yield from ((f"history[{number}]", entry) for number, entry in enumerate(value))
        elif key != "rootfs":
            yield key, value


def _flat_runtime_config(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if (
            key == "Env"
            and isinstance(value, list)
            and all(isinstance(item, str) for item in value)
        ):
            for item in value:
                name, _, content = item.partition("=")
                yield f"config.Env.{name}", content
        elif key in _OBJECTS and isinstance(value, dict):
            yield from ((f"config.{key}.{name}", content) for name, content in value.items())
        else:
            yield f"config.{key}", value


def _fields(where: str, old: dict[str, Any], new: dict[str, Any]) -> list[Field]:
    differing = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    return [Field(where, key, old.get(key), new.get(key)) for key in differing[:_MOST_FIELDS]]


# ---- components


def components_of(layers: list[ReadDescriptor]) -> tuple[list[tuple[str, ...]], dict[str, str]]:
    """The components of every layer, and of each the digest of its content, as annotations say;
    nothing where they are damaged.
    """
    found: list[tuple[str, ...]] = [() for _ in layers]
    texts = [layer.annotations.get(ANNOTATION) for layer in layers]
    try:
        plan = plan_from_annotations(texts, "")
    except PlanError:
        return found, {}
    if plan is None:
        return found, {}
    # The topmost plan: its layers are the last ones that are annotated.
    annotated = [number for number, text in enumerate(texts) if text is not None][
        -len(plan.layers) :
    ]
    for number, layer in zip(annotated, plan.layers, strict=True):
        found[number] = layer.components
    names = {name for layer in plan.layers for name in layer.components}
    return found, {name: plan.history[name].digest for name in names}


def changed_components(
    old: dict[str, str], new: dict[str, str]
) -> tuple[list[str], list[str], list[str]] | None:
    """Names added, removed and changed. None where one of the images says nothing of components."""
    if not old or not new:
        return None
    changed = [
        name
        for name in old.keys() & new.keys()
        if old[name] and new[name] and old[name] != new[name]
    ]
    return sorted(new.keys() - old.keys()), sorted(old.keys() - new.keys()), sorted(changed)
