#!/usr/bin/env bash
# The package on musl libc: makes a CPython with musl-gcc (zlib and libffi with it, all from Debian's source packages), builds the wheel
# there from the source archive, runs the native tests on musllinux wheels of what they need, builds an image, and holds its digests against
# those of this machine's C library.
# Needs musl-tools, gcc, make, xz, bzip2, pkg-config and Debian's mirror; says so and ends with 77 where that is not to be had. The CPython
# is made once, in three minutes, and kept.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

python=${1:?the interpreter that has build-oci and its build requirements installed}
root=${XDG_CACHE_HOME:-$HOME/.cache}/build-oci-tests/musl
machine=$(uname -m)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cannot() {
    echo "test-musl skipped: $1" >&2
    exit 77
}

# logged WHAT COMMAND...: the command's output only where it fails, and then the end.
logged() {
    "${@:2}" > "$work/log" 2>&1 < /dev/null || { tail -n 15 "$work/log" >&2; echo "test-musl: $1 failed" >&2; exit 1; }
}

inside=(
    env -i PATH="$root/venv/bin:/usr/bin:/bin" LANG=C.UTF-8 HOME="$HOME" PYTHONSAFEPATH=1 SOURCE_DATE_EPOCH=1700000000
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
)

# sources TOOL ARGUMENTS: Debian's apt on lists of its own, which are of source packages; the machine's are left alone.
sources() {
    "$1" -qq -o Dir::Etc::SourceList="$work/apt/none" -o Dir::Etc::SourceParts="$work/apt/parts" -o Dir::State::Lists="$work/apt/lists" \
        -o Dir::Cache="$work/apt/cache" -o APT::Sandbox::User=root "${@:2}"
}

# unpack PACKAGE: the source package as its authors released it, into $work/PACKAGE; the newest version that the mirror really has.
unpack() {
    local version
    mkdir "$work/$1"
    cd "$work/$1"
    for version in $(sources apt-cache showsrc --only-source "$1" | sed -n 's/^Version: //p' | sort --unique --version-sort --reverse); do
        if sources apt-get source --download-only "$1=$version" > "$work/log" 2>&1; then
            tar -xf ./*.orig.tar.* --strip-components=1
            return
        fi
        rm -f ./*
    done
    tail -n 5 "$work/log" >&2
    cannot "the source package $1 cannot be had"
}

cpython() {
    local version file
    for file in apt-get xz bzip2 pkg-config; do
        command -v "$file" > /dev/null || cannot "$file is not installed, and a CPython is to be made"
    done
    version=$(apt-cache depends python3 2> /dev/null | sed -n 's/^ *Depends: \(python3\.[0-9]*\)$/\1/p' | head -n 1)
    [ -n "$version" ] || cannot "apt does not know of a python3"
    mkdir -p "$work/apt"/{parts,lists/partial,cache/archives/partial}
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/{debian,ubuntu}.sources; do
        [ ! -e "$file" ] || sed -E 's/^Types:.*/Types: deb-src/; s/^deb /deb-src /' "$file" > "$work/apt/parts/${file##*/}"
    done
    [ ! -e "$work/apt/parts/sources.list" ] || mv "$work/apt/parts/sources.list" "$work/apt/parts/main.list"
    sources apt-get update > "$work/log" 2>&1 || { tail -n 5 "$work/log" >&2; cannot "the lists of source packages cannot be had"; }
    for file in zlib libffi "$version"; do (unpack "$file"); done

    echo "a CPython for musl ($version) is made in $root"
    rm -rf --one-file-system "$root"
    mkdir -p "$root/kernel" "$root/bin"
    # Of the machine's headers only the kernel's, which know no C library. Asked for its multiarch name, the compiler answers with glibc's,
    # and CPython's build would take the headers from there.
    for file in /usr/include/linux /usr/include/asm-generic "/usr/include/$machine-linux-gnu/asm"; do ln -s "$file" "$root/kernel/"; done
    cat > "$root/bin/cc" << EOF
#!/bin/sh
case "\$*" in *-print-multiarch*) echo "$machine-linux-musl" && exit ;; esac
exec musl-gcc -idirafter "$root/kernel" "\$@"
EOF
    chmod +x "$root/bin/cc"
    export CC="$root/bin/cc" PKG_CONFIG_LIBDIR="$root/needs/lib/pkgconfig"
    (
        cd "$work/zlib"
        CFLAGS='-O2 -fPIC' logged "zlib's configure" ./configure --static --prefix="$root/needs"
        logged zlib make -j"$(nproc)" install
        cd "$work/libffi"
        logged "libffi's configure" ./configure --build="$machine-linux-musl" --prefix="$root/needs" --libdir="$root/needs/lib" \
            --disable-shared --with-pic --disable-docs --disable-multi-os-directory
        logged libffi make -j"$(nproc)" install
        cd "$work/$version"
        logged "CPython's configure" ./configure --build="$machine-linux-musl" --prefix="$root/python" --disable-test-modules \
            --with-ensurepip=install OPT='-DNDEBUG -O2' CPPFLAGS="-I$root/needs/include" LDFLAGS="-L$root/needs/lib"
        logged CPython make -j"$(nproc)"
        logged "CPython's installation" make install
    )
    "$root/python/bin/python3" -c 'import zlib, ctypes, venv'
    touch "$root/.ready"
}

for tool in musl-gcc make readelf; do
    command -v "$tool" > /dev/null || cannot "$tool is not installed"
done
[ -e "/usr/include/$machine-linux-gnu/asm" ] || cannot "the kernel's headers are not where Debian has them"
[ -e "$root/.ready" ] || cpython

echo "the wheel is built there"
logged "the source archive" "$python" -m build --no-isolation --sdist --outdir "$work"
mkdir "$work/src" "$work/dist"
tar -xzf "$work"/*.tar.gz --strip-components=1 -C "$work/src"
[ -x "$root/venv/bin/pip" ] || "$root/python/bin/python3" -m venv "$root/venv"
series=$("$root/venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# fetch WHAT...: wheels for musl by this machine's pip, since the CPython there has no TLS; whether they fit, its own pip says.
fetch() {
    local platforms=(--platform "linux_$machine") minor
    for minor in 0 1 2; do platforms+=(--platform "musllinux_1_${minor}_$machine"); done
    logged "fetching wheels" "$python" -m pip download --quiet --dest "$root/wheels" --only-binary=:all: --implementation cp \
        --python-version "$series" "${platforms[@]}" "$@"
}
put=("${inside[@]}" pip install --quiet --no-index --find-links "$root/wheels")

fetch 'setuptools>=77' wheel 'Cython>=3.1'
"${put[@]}" --upgrade setuptools wheel Cython
"${inside[@]}" pip wheel --quiet --no-deps --no-index --no-build-isolation --wheel-dir "$work/dist" "$work/src"
wheel=$(ls "$work"/dist/*.whl)
fetch "${wheel}[test]"
"${put[@]}" "${wheel}[test]"
"${put[@]}" --force-reinstall --no-deps "$wheel"
rm "$root"/wheels/build_oci-*
for module in "$root"/venv/lib/python*/site-packages/build_oci/_native/*.so; do
    if readelf -d "$module" | grep -q 'NEEDED.*libc\.so\.6'; then
        echo "test-musl: $module needs glibc" >&2
        exit 1
    fi
done

echo "the native tests run there"
(cd "$work/src" && "${inside[@]}" python -m pytest -q -m "not clients" tests/native tests/codec/test_compression.py tests/layer/test_layer_tar.py)

echo "an image is built there and here"
PYTHONPATH=tests/support "$python" tests/elsewhere/same_digests.py / "${inside[@]}" build-oci
