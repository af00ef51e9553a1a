"""The command line: arguments, standard input, signals, exit status. What is printed goes to standard error."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

from build_oci.cli.arguments import completion, parser, verify_parser
from build_oci.errors import BuildOciError, Cancelled, ConfigError, UsageError, counted, printable

if TYPE_CHECKING:
    import argparse
    from types import FrameType

    from build_oci.config.load import BuildConfig

STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line ARGV (default: that of the process); the exit status."""
    _occupy_standard_descriptors()
    status = 1
    signals = _Signals()
    try:
        with signals.handled():
            status = _run(sys.argv[1:] if argv is None else argv, signals)
    except SystemExit as leave:  # how argparse ends after --help and --version
        status = leave.code if isinstance(leave.code, int) else 1
    except BaseException as error:
        if os.environ.get("BUILD_OCI_DEBUG") == "1":
            import traceback

            _say(traceback.format_exc().rstrip("\n"))
        if signals.caught:
            # Whatever a thread or a clean-up made of it in the end, the signal was the cause.
            status = 128 + signals.caught
            _say(f"build-oci: error: stopped by {signal.Signals(signals.caught).name}")
        else:
            failure = _explain(error)
            status = failure.exit_status
            for line in failure.lines():
                _say(line)
    _flush(sys.stdout)
    return status


def _run(argv: Sequence[str], signals: _Signals) -> int:
    if argv[:1] == ["verify"]:
        return _verify(verify_parser().parse_args(argv[1:]))
    options = parser().parse_args(argv)
    if options.schema:
        import json

        from build_oci.config.schema import schema

        print(json.dumps(schema(), indent=2))
        return 0
    if options.print_completion:
        print(completion(options.print_completion))
        return 0
    from build_oci.config.load import check_paths, load_config, source_date_epoch

    warn = _warner(options, _say)
    epoch = source_date_epoch(os.environ)
    text, source = _read(options.file, quiet=options.quiet)
    try:
        config = load_config(text, source=source)
    except ConfigError as error:
        # A key that is misspelt here may be the one that is missing there.
        for warning in error.warnings:
            warn(warning)
        raise
    for warning in config.warnings:
        warn(warning)
    talks = options.verbose or (_is_terminal(sys.stderr) and not options.quiet)
    if options.metrics:
        from build_oci.cli.metrics import check_writable

        check_writable(options.metrics)
    if options.check:
        check_paths(config)
        if talks:
            _say(f"build-oci: nothing is wrong with {source}: {counted(len(config.images), 'image')}")
        return 0
    _build(config, options, epoch, talks, signals)
    return 0


def _warner(options: argparse.Namespace, say: Callable[[str], None]) -> Callable[[str], None]:
    def warn(text: str) -> None:
        if not options.quiet:
            say(f"build-oci: warning: {printable(text)}")

    return warn


def _verify(options: argparse.Namespace) -> int:
    from build_oci.verify.documents import Verifier
    from build_oci.work.crew import usable_cpus

    def problem(text: str) -> None:
        _say(f"build-oci: error: {text}")

    def note(text: str) -> None:
        if options.verbose:
            _say(f"build-oci: note: {text}")

    found = Verifier(options.layout, workers=options.workers or usable_cpus(), problem=problem, note=note)
    found.run()
    if options.verbose or (_is_terminal(sys.stderr) and not options.quiet):
        what = counted(found.mismatches, "mismatch") if found.mismatches else "nothing is wrong"
        counts = ", ".join(map(counted, (found.images, found.layers, found.entries), ("image", "layer", "entry")))
        _say(f"build-oci: {printable(options.layout)}: {what}: {counts}, {found.size / 1e6:,.1f} MB")
    return 1 if found.mismatches else 0


def _build(config: BuildConfig, options: argparse.Namespace, epoch: int | None, talks: bool, signals: _Signals) -> None:
    from build_oci.cli.metrics import metrics, summary, write_metrics
    from build_oci.pipeline import build
    from build_oci.progress import ignore, reporter
    from build_oci.work.crew import usable_cpus

    workers = options.workers or usable_cpus()
    started = time.monotonic()
    names = [f"{image.os}/{image.architecture}" for image in config.images]
    bars = _is_terminal(sys.stderr) and not options.quiet
    reports = reporter(options.progress, names, _say, terminal=bars)
    say = reports.say if reports else _say

    def explain(text: str) -> None:
        if options.verbose:
            say(f"build-oci: {printable(text)}")

    try:
        result = build(
            config,
            output=options.output,
            workers=workers,
            epoch=epoch,
            warn=_warner(options, say),
            started=signals.cancel_by,
            on_progress=reports or ignore,
            explain=explain,
        )
    finally:
        if reports:
            reports.close()
    if options.metrics:
        write_metrics(options.metrics, metrics(config, result, workers=workers, seconds=time.monotonic() - started))
    if talks:
        for image in result.images:
            _say(summary(image))


# ---- input


def _read(file: str, *, quiet: bool) -> tuple[bytes, str]:
    """The text of the configuration and what errors call it."""
    from build_oci.config.document import MAX_SIZE

    try:
        # One byte more than the most there may be shows that there is too much, be it without end.
        if file != "-":
            with open(file, "rb") as stream:
                return stream.read(MAX_SIZE + 1), file
        if sys.stdin is None:
            raise UsageError("is closed", where="standard input", hint="name the configuration with -f FILE")
        if _is_terminal(sys.stdin) and not quiet:
            _say("build-oci: waiting for the configuration (YAML) on standard input; end it with Ctrl-D, or name a file with -f FILE")
        return sys.stdin.buffer.read(MAX_SIZE + 1), "<stdin>"
    except OSError as error:
        where = "standard input" if file == "-" else file
        hint = "name the configuration with -f FILE" if file == "-" else f"-f names a file; a relative path starts at {os.getcwd()}"
        raise UsageError(f"cannot read the configuration: {error.strerror or error}", where=where, hint=hint) from error


# ---- errors and signals


# What the interpreter, a codec and the dynamic linker say without a MemoryError.
_EXHAUSTED = ("can't start new thread", "not enough memory", "failed to map segment")


def _explain(error: BaseException) -> BuildOciError:
    """ERROR as one that a user can read."""
    if isinstance(error, BuildOciError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Cancelled("stopped")
    exhausted = any(text in str(error) for text in _EXHAUSTED)
    if exhausted or isinstance(error, MemoryError):
        return BuildOciError(
            f"out of memory{f' or threads: {error}' if exhausted else ''}",
            hint="lower `prefetch-limit-mb`, or the number of workers with -j",
        )
    if isinstance(error, OSError):
        return BuildOciError(error.strerror or str(error) or type(error).__name__, where=_text(error.filename))
    what = f"internal error: {type(error).__name__}: {error}"
    return BuildOciError(what, hint="this is a bug, please report it; BUILD_OCI_DEBUG=1 shows where it is")


def _text(name: object) -> str | bytes:
    return name if isinstance(name, str | bytes) else "" if name is None else str(name)


class _Stopped(KeyboardInterrupt):
    """A signal asked to stop. No `except Exception` swallows it, every `finally` sees it."""


class _Signals:
    """The first stopping signal raises _Stopped in the main thread or, once there is a build, cancels it; later ones change nothing.

    One that comes when the build is moving its files to their places is too late: the image is complete and the exit status is 0.
    """

    def __init__(self) -> None:
        self.caught = 0  # the number of the signal
        self._cancel: Callable[[], None] | None = None

    def cancel_by(self, cancel: Callable[[], None]) -> None:
        """From now on call CANCEL rather than raise."""
        self._cancel = cancel

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if not self.caught:
            self.caught = number
            if self._cancel is None:
                raise _Stopped
            self._cancel()

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Have the handler in place, and put the former ones back."""
        former: dict[int, Any] = {}
        try:
            if threading.current_thread() is threading.main_thread():
                for number in STOPPING_SIGNALS:
                    # What nohup or a shell's & ignores stays ignored.
                    if signal.getsignal(number) is not signal.SIG_IGN:
                        former[number] = signal.signal(number, self._stop)
            yield
        finally:
            for caught, handler in former.items():
                signal.signal(caught, signal.SIG_DFL if handler is None else handler)


# ---- standard streams


def _say(line: str) -> None:
    """LINE on standard error, in one piece: several threads may have something to say. Nobody listening is no error."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(line + "\n")
    except (OSError, ValueError):
        return
    finally:
        _flush(sys.stderr)


def _flush(stream: TextIO | None) -> None:
    """Flushes STREAM; where nobody reads it, the rest goes to /dev/null, else the interpreter exits with a status of its own."""
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno() if stream is not None else null)
            os.close(null)


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def _occupy_standard_descriptors() -> None:
    """Opens /dev/null where descriptor 0, 1 or 2 is closed: a blob opened under that number would receive what is printed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
