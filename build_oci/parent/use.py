"""Which images the images of a build name as parents and parts, and what for: names are read only
where something needs them, and what several share is read once.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from build_oci.config.model import ImageConfig, ParentConfig
    from build_oci.oci.documents import Platform


def compared(image: ImageConfig) -> list[ParentConfig]:
    """The images that IMAGE compares with something each alone: its parent with a tree, and parts,
    if there are several, with each other.
    """
    if image.stack is None:
        return [image.parent] if image.parent is not None and image.has_tree else []
    parts = [item.image for item in image.stack if item.image]
    return parts if len(parts) > 1 else []


def needed(image: ImageConfig) -> list[ParentConfig]:
    """The images whose names IMAGE needs: those, and what something is added on top of."""
    items = image.stack or ()
    additions = [number for number, item in enumerate(items) if item.image is None]
    below = [item.image for item in items[: max(additions, default=0)] if item.image]
    parent = [image.parent] if image.parent and additions else []
    return [*compared(image), *parent, *below]


def identity(parent: ParentConfig) -> tuple[str, int, bool]:
    return os.path.realpath(parent.image), parent.number, parent.trust


def shared_key(parent: ParentConfig, platform: Platform) -> tuple[object, ...]:
    """What images share that have a parent in common."""
    return (
        *identity(parent),
        parent.recompress,
        platform.architecture,
        platform.os,
        platform.variant,
    )


def most_in_use(keys: Sequence[Sequence[object]], at_once: int) -> int:
    """How many parents are held at once, at the most. KEYS: those of each image in turn, AT_ONCE of
    which are under way.
    """
    last = {key: number for number, of_image in enumerate(keys) for key in of_image}
    first = {
        key: number for number, of_image in reversed(list(enumerate(keys))) for key in of_image
    }
    changes = Counter(first.values())
    changes.subtract(Counter(number + at_once for number in last.values()))
    return max((1, *accumulate(changes[number] for number in range(len(keys)))))
