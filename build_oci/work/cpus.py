"""The CPUs that this process may really use, and the SHA-256 kernel for them."""

from __future__ import annotations

import os
from contextlib import suppress

from build_oci.errors import UsageError


def usable_cpus(root: str = "/", affinity: int | None = None) -> int:
    """The CPUs this process may really use: its affinity, less what the CPU quota of its control
    groups allows, at least 1.

    ROOT is where `proc` and `sys` are found, AFFINITY the number of CPUs it may run on (default:
    asks the kernel).
    """
    cpus = len(os.sched_getaffinity(0)) if affinity is None else affinity
    with suppress(OSError, UnicodeDecodeError):
        for line in _text_of(os.path.join(root, "proc/self/cgroup")).splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            mounts = ["unified", "."] if not controllers else [controllers, "cpu"]
            for mount in mounts:
                cpus = min(cpus, _quota(os.path.join(root, "sys/fs/cgroup", mount), group, cpus))
    return max(cpus, 1)


def _text_of(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _quota(mount: str, group: str, cpus: int) -> int:
    """The smallest quota from GROUP up to the top of MOUNT in whole CPUs, rounded up; CPUS where
    there is none.

    Inside a container the group may be named as the host sees it; what does not exist here has no
    quota.
    """
    names = [name for name in group.split("/") if name not in ("", ".", "..")]
    for depth in range(len(names), -1, -1):
        folder = os.path.join(mount, *names[:depth])
        with suppress(OSError, ValueError):
            if os.path.exists(os.path.join(folder, "cpu.max")):
                quota, period = _text_of(os.path.join(folder, "cpu.max")).split()
            else:
                quota, period = (
                    _text_of(os.path.join(folder, f"cpu.cfs_{name}_us"))
                    for name in ("quota", "period")
                )
            # No quota is `max` in version 2 and -1 in version 1.
            if quota != "max" and int(quota) > 0 and int(period) > 0:
                cpus = min(cpus, -(-int(quota) // int(period)))
    return cpus


def sha256_kernel() -> int:
    """The SHA-256 kernel for the files of a tree: what BUILD_OCI_SHA256 demands, else the fastest.
    UsageError if this CPU lacks it.
    """
    from build_oci._native.sha256 import kernel_id

    try:
        return kernel_id(os.environ.get("BUILD_OCI_SHA256") or "auto")
    except ValueError as error:
        raise UsageError(
            str(error), where="BUILD_OCI_SHA256", hint="unset it to have the fastest"
        ) from None
