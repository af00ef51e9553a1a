#!/usr/bin/env bash
# The package on AArch64, emulated by qemu in a Debian of its own: builds the wheel from the source archive, runs the native tests there (the
# Armv8 SHA-256 kernel against the portable one among them), builds an image, and holds its digests against those of this machine.
# As root, with debootstrap and qemu-user-static; says so and ends with 77 where that is not to be had. `make test-aarch64` calls it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

python=${1:?the interpreter that has build-oci and its build requirements installed}
root=${XDG_CACHE_HOME:-$HOME/.cache}/build-oci-tests/arm64
work=$(mktemp -d)
mounted=()

cleanup() {
    for path in "${mounted[@]}"; do umount "$path"; done
    rm -rf "$work"
}
trap cleanup EXIT

cannot() {
    echo "test-aarch64 skipped: $1" >&2
    exit 77
}

inside=(
    chroot "$root" /usr/bin/env -i PATH=/usr/bin:/bin LANG=C.UTF-8 HOME=/root PYTHONSAFEPATH=1 SOURCE_DATE_EPOCH=1700000000
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
)

[ "$(id -u)" = 0 ] || cannot "it needs root"
for tool in debootstrap qemu-aarch64-static; do
    command -v "$tool" > /dev/null || cannot "$tool is not installed"
done
if [ ! -e /proc/sys/fs/binfmt_misc/register ]; then
    mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc 2> /dev/null || cannot "binfmt_misc cannot be mounted"
fi
[ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ] || update-binfmts --enable qemu-aarch64 || cannot "qemu-aarch64 cannot be registered"

if [ ! -e "$root/.ready" ]; then
    echo "a Debian for arm64 is unpacked into $root"
    rm -rf --one-file-system "$root"
    mkdir -p "$root"
    debootstrap --arch=arm64 --variant=minbase --include=python3-venv,python3-dev,gcc,libc6-dev,ca-certificates bookworm "$root" > "$work/log" ||
        { tail -n 5 "$work/log"; cannot "debootstrap for arm64 failed"; }
    touch "$root/.ready"
fi
for file in /etc/resolv.conf /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
    [ ! -e "$file" ] || cp "$file" "$root$file"
done
for path in proc dev; do
    mount --bind "/$path" "$root/$path"
    mounted+=("$root/$path")
done

echo "the wheel is built there"
rm -rf "$root/src" "$root/dist"
mkdir "$root/src"
"$python" -m build --no-isolation --sdist --outdir "$work" > /dev/null
tar -xzf "$work"/*.tar.gz --strip-components=1 -C "$root/src"
[ -x "$root/venv/bin/pip" ] || "${inside[@]}" python3 -m venv /venv
"${inside[@]}" /venv/bin/pip install --quiet --upgrade 'setuptools>=77' wheel 'Cython>=3.1'
"${inside[@]}" /venv/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /dist /src
wheel=$(basename "$root"/dist/*.whl)
"${inside[@]}" /venv/bin/pip install --quiet "/dist/${wheel}[test]"
"${inside[@]}" /venv/bin/pip install --quiet --force-reinstall --no-deps "/dist/$wheel"

echo "the native tests run there"
"${inside[@]}" bash -c 'cd /src && /venv/bin/python -m pytest -q -m "not clients and not once" tests/native tests/layer/test_layer_tar.py'

echo "an image is built there and here"
PYTHONPATH=tests/support "$python" tests/elsewhere/same_digests.py "$root" "${inside[@]}" /venv/bin/build-oci
