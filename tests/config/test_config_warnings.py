"""Warnings of the configuration, and slips of keys (contract: config-keys)."""

from __future__ import annotations

import pytest
from configs import IMAGE, load, problems


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "gzp: gzip\ngzip: gzip\n" + IMAGE,
            "config.yaml:1: gzp: `gzp` is not a key; did you mean `gzip`?",
        ),
        (
            IMAGE + "  tags: [a]",
            "config.yaml:4: images[0].tags: `tags` is not a key, and is ignored",
        ),
        (
            IMAGE + "  gzip: disabled",
            "images[0].gzip: `gzip` is not a key here; it is one at the top of the document",
        ),
        (
            IMAGE + "  config: {Cmd: /bin/sh}",
            "images[0].config.Cmd: must be a list of strings: clients cannot read the image",
        ),
        (IMAGE + "  config: {Env: {A: b}}", "images[0].config.Env: must be a list of strings"),
        (IMAGE + "  config: {Env: [A]}", "images[0].config.Env[0]: has no `=`"),
        (
            IMAGE + "  config: {Labels: {a: 1}}",
            "images[0].config.Labels: must be a mapping of strings to strings",
        ),
        (
            IMAGE + "  config: {ExposedPorts: [80]}",
            "images[0].config.ExposedPorts: must be a mapping of names",
        ),
        (
            IMAGE + "  config: {cmd: [a]}",
            "images[0].config.cmd: is no name that clients know; did you mean `Cmd`?",
        ),
        (
            IMAGE + "  config: {working_dir: /}",
            (
                "images[0].config.working_dir: is no name that clients know; did you mean"
                " `WorkingDir`?"
            ),
        ),
        (
            "ref-name: a b\n" + IMAGE,
            "config.yaml:1: ref-name: `a b` is not a name of the image-spec",
        ),
        (
            IMAGE
            + "  index-annotations: {org.opencontainers.image.ref.name: x}\n"
            + IMAGE[IMAGE.index("- ") :]
            + "  index-annotations: {org.opencontainers.image.ref.name: x}",
            "`x` is the org.opencontainers.image.ref.name of images[0] too",
        ),
        (
            "compression: disabled\ncompression-level: 3\n" + IMAGE,
            "config.yaml:2: compression-level: has no effect",
        ),
        (
            "images:\n- {os: linux, architecture: x86_64}",
            (
                "images[0].architecture: `x86_64` is not a name that clients know; did you mean"
                " `amd64`?"
            ),
        ),
        ("images:\n- {os: linux, architecture: aarch64}", "did you mean `arm64`?"),
        (
            "images:\n- {os: Linux, architecture: amd64}",
            "images[0].os: `Linux` is not a name that clients know; did you mean `linux`?",
        ),
        ("images: []", "images: no images to build"),
        ("mode: oci", "config.yaml:1: no images to build"),
        (
            IMAGE + "  comment:",
            "config.yaml:4: images[0].comment: has no value, so it counts as not given",
        ),
        (IMAGE + "  config: [a]", "images[0].config: is not a mapping"),
    ],
)
def test_warning(text: str, warning: str) -> None:
    """contract: config-unknown-keys. An unknown key is a warning with the nearest known key; so is
    what works but cannot be meant.
    """
    (found,) = load(text).warnings
    assert warning in found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "comression: gzip\n" + IMAGE,
            "config.yaml:1: comression: `comression` is not a key | did you mean `compression`?",
        ),
        ("imags: []", "config.yaml:1: imags: `imags` is not a key | did you mean `images`?"),
        (
            IMAGE + "  layr: a",
            "config.yaml:4: images[0].layr: `layr` is not a key | did you mean `layer`?",
        ),
        (
            IMAGE + "  parent: {image: a, indx: 1}",
            "images[0].parent.indx: `indx` is not a key | did you mean `index`?",
        ),
    ],
)
def test_slip_of_a_key(text: str, problem: str) -> None:
    """contract: config-unknown-keys. A near miss of a key that is not given is an error, since the
    document then means something else.
    """
    assert problem in problems(text)[0]
