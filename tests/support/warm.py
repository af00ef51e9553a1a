"""Runs of the command in forks of a process that has imported it already: to start Python and to
import the modules takes longer than a small build.

`run` is for tests of what a build does. Those of how the process starts and ends, of its memory,
its descriptors and its locale start one of their own.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import build_oci

SOURCE = str(Path(build_oci.__file__).parents[1])
# What a build imports where it needs it first, besides the modules of the package.
LIBRARIES = (
    "ctypes", "deflate", "encodings.utf_8_sig", "hashlib", "isal.isal_zlib", "tarfile", "tempfile",
    "yaml", "zstandard",
)  # fmt: skip
# Variables that mean something to a build, but nothing to the start of the interpreter.
AT_RUN = ("BUILD_OCI_", "FAKECAP", "FAULT_", "ODD_", "SOURCE_DATE_EPOCH", "TMPDIR")
_MOST = 1 << 20  # bytes of a request

# Processes that wait for a request, by their LD_PRELOAD. Of many threads each has one.
_idle: defaultdict[str, list[_Server]] = defaultdict(list)


class _Server:
    def __init__(self, library: str) -> None:
        self._control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(other.fileno())],
                env={**os.environ, "PYTHONPATH": SOURCE, "LD_PRELOAD": library},
                pass_fds=[other.fileno()],
                start_new_session=True,
            )

    def run(
        self, request: str, text: bytes, timeout: float | None
    ) -> tuple[int, bytes, bytes] | None:
        """Exit status, standard output and standard error; None where it has not ended."""
        stdin = os.memfd_create("stdin")
        os.write(stdin, text)
        os.lseek(stdin, 0, os.SEEK_SET)
        pipes = [os.pipe(), os.pipe()]
        given = [stdin, *(writer for _, writer in pipes)]
        socket.send_fds(self._control, [request.encode()], given)
        for fd in given:
            os.close(fd)
        said: dict[int, bytes] = {reader: b"" for reader, _ in pipes}
        with selectors.DefaultSelector() as waiting:
            for reader in said:
                waiting.register(reader, selectors.EVENT_READ)
            while waiting.get_map():
                ready = waiting.select(timeout)
                if not ready:
                    os.killpg(self._process.pid, signal.SIGKILL)
                    self.close()
                    return None
                for key, _ in ready:
                    piece = os.read(key.fd, 1 << 16)
                    said[key.fd] += piece
                    if not piece:
                        waiting.unregister(key.fd)
                        os.close(key.fd)
        out, error = said.values()
        return int(self._control.recv(100)), out, error

    def close(self) -> None:
        self._control.close()
        self._process.wait()


def _fits(env: Mapping[str, str]) -> bool:
    """Whether a run in the environment ENV may be a fork: it differs from this process' own in no
    variable that Python or the C library reads when a process starts.
    """
    differ = {name for name in {*env, *os.environ} if env.get(name) != os.environ.get(name)} - {
        "LD_PRELOAD",
        "PYTHONPATH",
    }
    return env.get("PYTHONPATH", SOURCE) == SOURCE and all(
        name.startswith(AT_RUN) for name in differ
    )


def run(
    args: Sequence[str | Path],
    *,
    input: str,
    env: Mapping[str, str],
    cwd: str | Path = ".",
    umask: int = -1,
    timeout: float | None = None,
    python: str | Path = sys.executable,
    preexec: Callable[[], object] | None = None,
) -> subprocess.CompletedProcess[str]:
    """`build-oci ARGS`, as subprocess.run(check=False) has it: in a new process where another
    PYTHON, PREEXEC or ENV makes a difference, else in a fork, which SIGINT and SIGHUP end as they
    do by default, however this process was started.
    """
    if python != sys.executable or preexec is not None or not _fits(env):
        return subprocess.run(
            # -P: the package must be the installed one, not what happens to lie in CWD
            [python, "-P", "-m", "build_oci", *args],
            input=input, cwd=cwd, env=env, umask=umask, timeout=timeout, preexec_fn=preexec,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    words = [os.fspath(word) for word in args]
    request = json.dumps([words, dict(env), os.path.abspath(cwd), umask])
    idle = _idle[env.get("LD_PRELOAD", "")]
    server = idle.pop() if idle else _Server(env.get("LD_PRELOAD", ""))
    done = server.run(request, input.encode("utf-8", "surrogateescape"), timeout)
    if done is None:
        raise subprocess.TimeoutExpired(words, timeout or 0)
    idle.append(server)
    status, out, error = done
    return subprocess.CompletedProcess(words, status, out.decode(), error.decode())


def stop() -> None:
    """Ends the processes that wait."""
    for idle in _idle.values():
        while idle:
            idle.pop().close()


def _serve(control: socket.socket) -> None:
    """Forks for each request. Returns in the fork, which then is the command's process."""
    gc.freeze()
    while True:
        data, fds, _, _ = socket.recv_fds(control, _MOST, 3)
        if not data:
            os._exit(0)
        child = os.fork()
        if not child:
            break
        for fd in fds:
            os.close(fd)
        _, status = os.waitpid(child, 0)
        control.send(b"%d" % os.waitstatus_to_exitcode(status))
    control.close()
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    words, env, cwd, umask = json.loads(data)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    if umask >= 0:
        os.umask(umask)
    sys.argv = ["build-oci", *words]


def _main() -> None:
    from build_oci.__main__ import command

    for module in pkgutil.walk_packages(build_oci.__path__, "build_oci."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in LIBRARIES:
        importlib.import_module(name)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _serve(socket.socket(fileno=int(sys.argv[1])))
    command()


if __name__ == "__main__":
    _main()
