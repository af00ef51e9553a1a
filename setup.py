"""Builds the native extensions; everything else about the package stands in pyproject.toml."""

import copy
import dis
import os
import sys
import sysconfig
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

NATIVE = Path("build_oci") / "_native"
KERNEL = NATIVE / "kernel"

# One wheel serves CPython 3.11 and every later one. A free-threaded interpreter has no stable ABI
# to build for.
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
LIMITED_API = "0x030B0000"

SHA256 = ["sha256/sha256.c", "sha256/sha256_avx.c", "sha256/sha256_x86.c", "sha256/sha256_arm.c"]
TREE = ["arena.c", "tree/fingerprint.c", "tree/tree.c", "tree/xattr.c"]
CONTENT = ["tree/inodes.c", "pack/content.c", "pack/digest.c", *SHA256]
TAR_READER = ["tar/block.c", "tar/records.c", "tar/reader.c", "tar/reader_member.c"]
LOWER = ["parent/lower.c", "parent/lower_table.c"]
CHUNKED = [
    "crc64",
    "rolling",
    "text",
    "metadata",
    "parts",
    "plan_parts",
    "member_header",
    "path_set",
    "splitter",
]

# The kernels each extension is made of, besides its own .pyx.
KERNELS: dict[str, list[str]] = {
    "memory": [],
    "deflate": ["join/deflate.c", "join/huffman.c", "join/noise.c"],
    "zstd": ["join/zstd_sequences.c", "join/zstd_frame.c"],
    "sha256": [*SHA256, "sha256/files.c"],
    "lower": [*TREE, *TAR_READER, *LOWER, "parent/claims.c", *SHA256],
    "compare": [*TREE, *TAR_READER, "compare/compare.c", "compare/compare_layer.c", *SHA256],
    "unpack": [*TREE, *TAR_READER, *LOWER, "parent/unpack.c", *SHA256],
    "diff": [*TREE, *CONTENT, "tar/records.c", *LOWER, "parent/diff.c"],
    "walk": [
        *TREE,
        "tree/inodes.c",
        "tree/exclude.c",
        "tree/checksum.c",
        "tree/paths.c",
        "pack/content.c",
        "tree/walk.c",
        "tree/walk_xattrs.c",
    ],
    "tar": [
        *TREE,
        *CONTENT,
        "tar/header.c",
        "tar/name.c",
        "tar/records.c",
        "pack/partition.c",
        "pack/pack.c",
        "pack/recipe.c",
        "pack/layer_recipe.c",
        "pack/archive_check.c",
        "tar/block.c",
    ],
    "chunked": [
        *TREE,
        *CONTENT,
        "tar/block.c",
        "tar/header.c",
        "tar/name.c",
        "tar/records.c",
        *(f"chunked/{name}.c" for name in CHUNKED),
    ],
}
# Headers are included by their base names, which are unique.
FOLDERS = [str(KERNEL), *sorted(str(path) for path in KERNEL.iterdir() if path.is_dir())]

MACROS: list[tuple[str, str | None]] = [("_GNU_SOURCE", None), ("_FILE_OFFSET_BITS", "64")]
if not FREE_THREADED:
    MACROS.append(("Py_LIMITED_API", LIMITED_API))
    # Flags of code objects, which the stable ABI does not tell: Cython would ask the module
    # `inspect` for them (see without_inspect).
    MACROS += [(f"CO_{name}", str(flag)) for flag, name in dis.COMPILER_FLAG_NAMES.items()]

# A symbol that is missing would otherwise show only when the module is imported.
COMPILE = [
    "-std=c11",
    "-O3",
    "-fno-strict-aliasing",
    "-Wall",
    "-Wno-unused-function",  # Cython writes some; tools/lint looks for those of the kernels
    "-Werror=implicit-function-declaration",
]
LINK = []
if os.environ.get("BUILD_OCI_SANITIZE"):
    COMPILE += [
        "-UNDEBUG",
        "-g",
        "-O1",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        "-fno-omit-frame-pointer",
    ]
    LINK += ["-fsanitize=address,undefined"]
else:
    COMPILE += ["-DNDEBUG"]  # the sanitizer and fuzz builds check the assertions
    # Python's own flags ask for debug information: two thirds of the size of a wheel.
    COMPILE += ["-g0"]


class BuildExtensions(build_ext):
    """build_ext that compiles as many extensions at once as it may use processors, and says what is
    missing when the compiler or the Python headers are.
    """

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.parallel is None:
            self.parallel = len(os.sched_getaffinity(0))

    def build_extension(self, ext: Extension) -> None:
        """Two extensions may share a kernel, so each has object files of its own."""
        own = copy.copy(self)
        own.build_temp = str(Path(self.build_temp) / ext.name)
        super(BuildExtensions, own).build_extension(ext)

    def build_extensions(self) -> None:
        headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
        if not headers.exists():
            sys.exit(
                f"build-oci: error: {headers} is missing: the native extensions need the headers of"
                " this Python\nhint: install them (Debian: python3-dev, Fedora: python3-devel), or"
                " install a ready-made wheel"
            )
        try:
            super().build_extensions()
        except Exception as error:
            sys.exit(
                f"build-oci: error: the native extensions could not be compiled: {error}\nhint: a C"
                " compiler is needed (Debian: gcc libc6-dev, Fedora: gcc); or install a ready-made"
                " wheel"
            )


def extension(name: str) -> Extension:
    """The extension build_oci._native.NAME with its kernels."""
    sources = [str(NATIVE / f"{name}.pyx")] + [str(KERNEL / kernel) for kernel in KERNELS[name]]
    return Extension(
        f"build_oci._native.{name}",
        sources=sources,
        depends=[str(path) for path in sorted(KERNEL.rglob("*.h"))],
        include_dirs=FOLDERS,
        define_macros=MACROS,
        extra_compile_args=COMPILE,
        extra_link_args=LINK,
        py_limited_api=not FREE_THREADED,
    )


def without_inspect(extensions: list[Extension]) -> list[Extension]:
    """Keep what Cython made from importing `inspect`, which takes 5 ms, a tenth of the start of a
    build, for numbers that are macros.
    """
    for made in extensions:
        source = Path(next(iter(made.sources)))
        text = source.read_text(encoding="utf-8")
        source.write_text(
            text.replace('PyImport_ImportModule("inspect")', 'PyImport_ImportModule("sys")'),
            encoding="utf-8",
        )
    return extensions


setup(
    ext_modules=without_inspect(
        cythonize(
            [extension(name) for name in KERNELS],
            build_dir="build/cython",
            compiler_directives={"language_level": 3, "freethreading_compatible": True},
        )
    ),
    cmdclass={"build_ext": BuildExtensions},
    options={} if FREE_THREADED else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
