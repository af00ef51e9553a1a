"""The configuration: YAML text -> BuildConfig, frozen and validated, every problem with its
line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from build_oci.codec.table import DEFAULT_LEVELS, HIGHEST_LEVELS
from build_oci.config.document import BadValue, Document, is_mapping, shown
from build_oci.config.images import image_config
from build_oci.config.keys import CODEC_PAIRS, TOP_KEYS, Codec, Compression
from build_oci.config.model import BuildConfig
from build_oci.config.reader import Reader, Section, must_be
from build_oci.errors import UsageError
from build_oci.oci.media_types import LAST_EPOCH, REF_NAME_KEY

MIB = 1 << 20
REF_NAME = "[A-Za-z0-9]+([-._:@+/]+[A-Za-z0-9]+)*"


def load_config(text: str | bytes, *, source: str = "<stdin>") -> BuildConfig:
    """The configuration in TEXT, one YAML document; SOURCE is what errors call it.

    ConfigError holds every problem of the document.
    """
    document = Document(text, source)
    reader = Reader(document)
    try:
        if not is_mapping(document.root):
            must_be("a mapping, with `images` among its keys", document.root)
    except BadValue as bad:
        document.problem(document.place(document.root, ""), bad.what, bad.hint)
        document.finish()
    top = reader.section(document.root, "", TOP_KEYS)
    _ref_names(document, top)
    codecs = _codecs(document, top)
    if not top.values["images"] and not document.has_problems:  # else the problem may be the images
        document.warn(
            top.places.get("images", top.place), "no images to build: the index will be empty"
        )
    images = tuple(image_config(document, section) for section in top.values["images"])
    return BuildConfig(
        codecs=codecs,
        skip_xattrs=top.values["skip-xattrs"],
        trust_checksum_xattrs=top.values["trust-checksum-xattrs"],
        preserve_hardlinks=top.values["hardlinks"],
        prefetch_limit=top.values["prefetch-limit-mb"] * MIB,
        annotations=dict(top.values["annotations"]),
        ref_name=top.values["ref-name"],
        images=images,
        warnings=document.finish(),
    )


def _codecs(document: Document, top: Section) -> tuple[Codec, ...]:
    compressions = _compressions(document, top)
    level = top.values["compression-level"]
    if level is None:
        return tuple(
            Codec(compression, DEFAULT_LEVELS[compression]) for compression in compressions
        )
    place = top.places["compression-level"]
    if Compression.DISABLED in compressions:
        document.warn(place, "has no effect: compression is `disabled`")
        return tuple(Codec(compression, None) for compression in compressions)
    for compression in compressions:
        if level > (highest := HIGHEST_LEVELS[compression]):
            hint = (
                "with two codecs the level is for both; without it each has its default"
                if len(compressions) > 1
                else "`zstd` goes up to 22"
            )
            document.problem(
                place, f"must be from 1 to {highest} with `{compression}`, not {level}", hint
            )
    return tuple(Codec(compression, level) for compression in compressions)


def _compressions(document: Document, top: Section) -> tuple[Compression, ...]:
    """What `compression`, or `gzip`, asks for, with gzip first: clients that know no zstd take the
    first image of their platform.
    """
    given: tuple[Compression, ...] = top.values["compression"]
    compressions = tuple(sorted(given, key=lambda compression: compression is not Compression.GZIP))
    # Where there are problems, one of them may be in these.
    if len(given) != 1 and compressions not in CODEC_PAIRS and not document.has_problems:
        document.problem(
            top.places["compression"],
            "a list names `gzip` and one of `zstd`, `zstd:chunked`, or one compression alone",
            "write `compression: [gzip, zstd]`, or one without brackets",
        )
    if "gzip" in top.places:
        former: Compression = top.values["gzip"]
        if "compression" in top.places and compressions != (former,):
            asked = ", ".join(compressions)
            document.problem(
                top.places["gzip"],
                f"means `{former}`, but `compression` says `{asked}`",
                "remove `gzip`",
            )
        return (former,)
    return compressions or (Compression.ZSTD,)


def _ref_names(document: Document, top: Section) -> None:
    """Warnings of names that clients cannot find an image by."""
    name = top.values["ref-name"]
    if name is not None and not re.fullmatch(REF_NAME, name):
        document.warn(
            top.places["ref-name"],
            f"`{shown(name)}` is not a name of the image-spec:"
            " letters and digits, `-._:@/+` between them",
        )
    seen: dict[str, str] = {}
    two = len(top.values["compression"]) > 1
    for section in top.values["images"]:
        given = (
            section.values["index-annotations"].get(REF_NAME_KEY)
            if "index-annotations" in section.places
            else None
        )
        if given is None:
            continue
        place = section.places["index-annotations"]
        if two:
            document.warn(
                place,
                f"the {REF_NAME_KEY} names the image with gzip only;"
                " `ref-name` at the top names both",
            )
        if given in seen:
            document.warn(
                place,
                f"`{shown(given)}` is the {REF_NAME_KEY} of {seen[given]} too:"
                " clients find only one of them by it",
            )
        seen.setdefault(given, section.place.path)


def source_date_epoch(environ: Mapping[str, str]) -> int | None:
    """SOURCE_DATE_EPOCH in seconds, None where it is not set or empty; UsageError if it is not a
    whole number from 0 to the year 9999.
    """
    text = environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    # `created` has four digits for the year.
    if not re.fullmatch("[0-9]{1,20}", text) or int(text) > LAST_EPOCH:
        raise UsageError(
            f"must be a whole number of seconds from 0 to {LAST_EPOCH}, not `{shown(text)}`",
            where="SOURCE_DATE_EPOCH",
            hint=(
                "unset it to keep the times of the files, or set it:"
                " `SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)`"
            ),
        )
    return int(text)
