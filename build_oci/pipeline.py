"""From a configuration to a layout: the whole story, one call a stage."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence

from build_oci.check import check_output, check_plans
from build_oci.codec.table import block_size, least_memory
from build_oci.config.model import BuildConfig
from build_oci.config.paths import check_paths
from build_oci.errors import UsageError
from build_oci.image.build import build_image
from build_oci.image.result import BuiltImage
from build_oci.image.run import Context
from build_oci.oci import documents as oci
from build_oci.oci.archive import open_output
from build_oci.oci.layout import Layout
from build_oci.oci.media_types import LAST_EPOCH, MEDIA_TYPE_INDEX, REF_NAME_KEY
from build_oci.progress import Listener, ignore
from build_oci.records import NamedTuple
from build_oci.work.cpus import usable_cpus
from build_oci.work.crew import Crew

# Images that are under way side by side: one keeps the workers busy, a second fills the gaps, each
# costs the memory of one codec.
IMAGES_AT_ONCE = 2
# Bytes of prefetch-limit-mb, with which the promise of memory is the default one, with room to
# spare.
FULL_PROMISE_FROM = 256 << 20


class BuildResult(NamedTuple):
    """The layout that was written, and its images in the order of the configuration.

    digest: what `index.json` names if that is one thing, else of `index.json` itself.
    """

    output: str
    digest: str
    images: tuple[BuiltImage, ...]


def build(
    config: BuildConfig,
    *,
    output: str | os.PathLike[str],
    workers: int | None = None,
    epoch: int | None = None,
    warn: Callable[[str], None] = lambda _: None,
    started: Callable[[Callable[[], None]], None] = lambda _: None,
    on_progress: Listener = ignore,
    explain: Callable[[str], None] = lambda _: None,
    on_image: Callable[[BuiltImage], None] = lambda _: None,
    sync: bool = True,
    prune: bool = False,
    differences: bool = True,
) -> BuildResult:
    """Build every image of CONFIG into the layout OUTPUT (a directory, `oci:DIRECTORY`,
    `oci-archive:FILE`, `oci-archive:-`).

    workers: threads; None: as many as there are CPUs that this process may use.
    epoch: SOURCE_DATE_EPOCH in seconds, or None: files keep their own times and `created` is now.
    warn: called, from any thread, with each warning.
    explain: the same with a line on each decision: codec, kernel, what becomes of layers.
    on_progress: called, from any thread and some hundred times a second, with how far each image
    is; what it raises ends the build.
    on_image: called, from any thread, with each image when its blobs are written; the index follows
    the last of them.
    sync: wait until the disk has all blobs before the index names them.
    prune: after the commit, remove the blobs that the new index does not reach.
    differences: find out why a layer is not one of `previous.image`. It costs a part of the time
    that decoding these layers takes.
    started: called before the output is touched, with a function that makes the build end with
    Cancelled. Any thread may call that function. So may a signal handler, and it should not raise
    instead: an exception in the midst of making or removing a file would leave it behind. Once the
    first file is being renamed to its place the function has no effect: the build ends
    successfully.

    Raises ConfigError when a path of the configuration does not hold up, TreeError, ParentError and
    OutputError; then, and when any other exception passes through, the output is as it was before.
    """
    _check_arguments(config, workers, epoch)
    workers = usable_cpus() if workers is None else workers
    check_paths(config)
    check_plans(config)
    made = open_output(output, sync=sync)
    check_output(config, made.folder)
    created = int(time.time()) if epoch is None else epoch
    block = max(block_size(*codec) for codec in config.codecs)
    at_once = min(IMAGES_AT_ONCE, len(config.images))
    threads = Crew(
        workers,
        config.prefetch_limit,
        at_once,
        block,
        sum(least_memory(*codec) for codec in config.codecs),
    )
    if any(image.has_tree or image.images or image.stack for image in config.images):
        from build_oci._native.memory import use_single_heap

        # Frames of zstd's, 8 MiB each at the most, leave holes in it: where many workers make them,
        # or memory is short, they stay out.
        use_single_heap(
            32 << 20 if workers <= 4 and config.prefetch_limit >= FULL_PROMISE_FROM else 4 << 20
        )
    started(threads.cancel)
    _explain_settings(config, workers, explain)
    with made as layout, threads:
        parents = None
        if any(image.images or image.stack for image in config.images):
            from build_oci.parent.layers import Parents

            parents = Parents(config, layout, threads, epoch=epoch, warn=warn, explain=explain)
        context = Context(
            config,
            layout,
            threads,
            parents,
            epoch,
            created,
            warn,
            on_progress,
            explain,
            differences,
        )

        def build_one(number: int) -> BuiltImage:
            image = build_image(context, config.images[number], number)
            on_image(image)
            return image

        images = threads.each(
            build_one, list(range(len(config.images))), at_once=threads.images_at_once
        )
        plans = _plan_files(config, images)
        listed, annotations = _listed(layout, config, _descriptors(images))
        index = oci.index(listed, annotations)
        layout.commit(index, check=threads.check)
        if prune:
            layout.prune(warn, explain)
    for path, plan in plans:
        from build_oci.oci.output_files import write_file

        write_file(path, plan, "`split.plan`", threads.check)
    digest = listed[0].digest if len(listed) == 1 else _digest(index)
    return BuildResult(os.fspath(output), digest, tuple(images))


def _descriptors(images: Sequence[BuiltImage]) -> list[oci.Descriptor]:
    """Those of the manifests: of every image in the first codec, so that numbers in the index are
    those of the configuration, and then of every image in the other one."""
    return [image.descriptor for image in images] + [
        other.descriptor for image in images for other in image.others
    ]


def _plan_files(config: BuildConfig, images: Sequence[BuiltImage]) -> list[tuple[str, bytes]]:
    """Path and content of the plans that are to be written."""
    files = []
    for configured, image in zip(config.images, images, strict=True):
        if configured.split and configured.split.plan and image.plan:
            from build_oci.split.plan_file import dump_plan

            files.append(
                (configured.split.plan, dump_plan(image.plan, configured.split.plan_where))
            )
    return files


def _digest(document: bytes) -> str:
    from build_oci._native.sha256 import Sha256

    content = Sha256()
    content.update(document)
    return f"sha256:{content.digest().hex()}"


def _check_arguments(config: object, workers: object, epoch: object) -> None:
    """What a caller of the library may have given: bool is an int to Python, and no number here."""
    if not isinstance(config, BuildConfig):
        raise UsageError(
            f"is a {type(config).__name__}, not a BuildConfig",
            where="config",
            hint="load_config() makes one of a document",
        )
    if epoch is not None and (type(epoch) is not int or not 0 <= epoch <= LAST_EPOCH):
        raise UsageError(
            f"{epoch!r} is not a whole number of seconds up to the year 9999", where="epoch"
        )
    if workers is not None and (type(workers) is not int or workers < 1):
        raise UsageError(f"{workers!r} is no number of threads", where="workers")


def _listed(
    layout: Layout, config: BuildConfig, images: list[oci.Descriptor]
) -> tuple[list[oci.Descriptor], Mapping[str, str]]:
    """What `index.json` lists, and its annotations: IMAGES, or with `ref-name` one index of them,
    which a client copies by its name.
    """
    if config.ref_name is None:
        return images, config.annotations
    index = layout.add_document(MEDIA_TYPE_INDEX, oci.index(images, config.annotations))
    return [index._replace(annotations={REF_NAME_KEY: config.ref_name})], {}


def _explain_settings(config: BuildConfig, workers: int, explain: Callable[[str], None]) -> None:
    codecs = [
        compression if level is None else f"{compression} level {level}"
        for compression, level in config.codecs
    ]
    text = f"compression {' and '.join(codecs)}, {workers} workers"
    if any(image.has_tree or image.stack for image in config.images):
        from build_oci._native.sha256 import kernels

        text += f", SHA-256 of files by {os.environ.get('BUILD_OCI_SHA256') or kernels()[-1]}"
    explain(text)
