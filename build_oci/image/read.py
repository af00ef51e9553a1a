"""What an image is made of: the previous image, the parent and the tree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from build_oci.errors import PlanError
from build_oci.image.run import Run, Shares

if TYPE_CHECKING:
    from build_oci._native.unpack import AnyTree
    from build_oci._native.walk import Tree
    from build_oci.config.keys import Codec
    from build_oci.parent.layers import ParentImage
    from build_oci.previous.image import PreviousImage
    from build_oci.split.plan import Plan


class Reading:
    """What is read for one image."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._context = run.context
        self._image = run.image
        self._platform = run.platform
        self.unchanged = self.whiteouts = self.believed = 0
        self.previous: PreviousImage | None = None
        self.previous_plan: Plan | None = None
        self.inherited: Any = None  # the config that the image's own is put upon
        # Are recipes and header lists recorded? So it is with what later builds are made for, and
        # for layers put upon an image that has them, which later builds would else have to decode.
        self.records = self._image.split is not None or self._image.previous is not None

    def open_previous(self) -> None:
        """The documents of what an earlier build made, as far as it is there."""
        previous = self._image.previous
        if previous is None:
            return
        from build_oci.oci.archive_source import is_layout
        from build_oci.previous.image import PreviousImage, read_plan_file

        context = self._context
        if previous.image is not None and is_layout(previous.image):
            self.previous = PreviousImage(
                previous,
                self._platform,
                context.config,
                context.layout,
                context.workers,
                epoch=context.epoch,
                explain=context.explain,
            )
        if self._image.split is None:
            return
        self.previous_plan = read_plan_file(previous)
        if self.previous_plan is None and self.previous is not None:
            try:
                self.previous_plan = self.previous.plan()
            except PlanError as error:
                context.warn(f"{error}; the layers are planned anew")

    def read_images(self) -> list[ParentImage]:
        """Every image that this one is made of, in their order."""
        parents, images = self._context.parents, self._image.images
        assert parents is not None or not images
        gauge = Shares(partial(self._run.tell, "parent"), len(images))

        def read(number: int) -> ParentImage:
            assert parents is not None
            return parents.image(images[number], self._platform, partial(gauge.reach, number))

        with self._run.stage("parent"):
            found = self._context.workers.each(
                read, list(range(len(images))), at_once=self._context.workers.count
            )
        if any(image.records for image in found):
            self.records = True
        return found

    def _read_root(self) -> tuple[AnyTree, str]:
        """What is to be packed, and where it is from: a directory, or what an image unpacks to."""
        image = self._image
        if image.layer is not None:
            return self.read_tree(image.layer), image.layer
        from build_oci.parent.image_tree import read_image_tree

        assert image.layer_image is not None
        assert self._context.parents is not None
        with self._run.stage("walk"):
            tree, manifest = read_image_tree(
                self._context.parents,
                image.layer_image,
                self._platform,
                partial(self._run.tell, "walk"),
                owner=image.owner,
                take_instructions=self._takes_instructions(),
            )
        self.inherited = manifest.runtime_config if image.layer_image.inherit else None
        if manifest.records:
            self.records = True
        import_the_rest(self._context.config.codecs)
        return tree, image.layer_image.image

    def read_all(
        self, meanwhile: Callable[[AnyTree, str], None]
    ) -> tuple[ParentImage | None, AnyTree, str]:
        """The parent, and the tree and where it is from, read side by side; what the parent has
        already is marked in the tree. MEANWHILE is called with the tree while its files are hashed,
        where they are.
        """

        def beside_hashing() -> None:
            if self.previous is not None:
                self.previous.hash_ahead()
            meanwhile(tree, path)

        if self._image.parent is None:
            tree, path = self._read_root()
            if self.previous is not None or self.previous_plan is not None:
                self.hash(tree, path, beside_hashing)
            return None, tree, path
        from build_oci._native.diff import mark_unchanged

        with self._context.workers.concurrently(self.read_parent) as reading:
            tree, path = self._read_root()
            self.hash(tree, path, beside_hashing)
            parent = reading.result()
        assert parent.lower is not None  # there is one where any image of the build has a layer
        with self._run.stage("diff"):
            self.unchanged, self.whiteouts = mark_unchanged(
                tree,
                parent.lower,
                epoch=self._context.epoch,
                preserve_hardlinks=self._context.config.preserve_hardlinks,
            )
        # The table may be large, and packing takes its time.
        return parent._replace(lower=None, readers=None), tree, path

    def hash(self, tree: AnyTree, path: str, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Let every file of TREE, the directory PATH, have its digest."""
        from build_oci.layer.digest import digest_files

        tell = partial(self._run.tell, "hash")
        with self._run.stage("hash"):
            digest_files(tree, path, self._context.workers, tell, meanwhile)

    def read_parent(self) -> ParentImage:
        assert self._image.parent is not None
        assert self._context.parents is not None
        with self._run.stage("parent"):
            found = self._context.parents.image(
                self._image.parent, self._platform, partial(self._run.tell, "parent")
            )
        if found.records:  # the tree is being read beside this
            self.records = True
        return found

    def _takes_instructions(self) -> bool:
        """Do attributes say which component an entry belongs to? They are not written then."""
        split = self._image.split
        return split is not None and any(source.kind == "xattr" for source in split.components)

    def read_tree(self, path: str) -> Tree:
        from build_oci.layer.walk import read_tree

        config, image = self._context.config, self._image
        self._run.tell("walk", 0, None)
        with self._run.stage("walk"):
            tree = read_tree(
                path,
                self._context.workers,
                skip_xattrs=config.skip_xattrs,
                trust_checksum_xattrs=config.trust_checksum_xattrs,
                warn=self._context.warn,
                meanwhile=partial(import_the_rest, config.codecs),
                exclude=image.exclude,
                exclude_where=image.exclude_where,
                owner=image.owner,
                take_instructions=self._takes_instructions(),
            )
        self.believed += tree.digests_believed
        self._run.tell("walk", len(tree), len(tree))
        return tree


def import_the_rest(codecs: Sequence[Codec]) -> None:
    """What comes after the walk, which leaves this thread nothing else to do."""
    import_module("build_oci.layer.blob")
    for codec in codecs:
        import_module("build_oci.codec.table").load(codec.compression)
