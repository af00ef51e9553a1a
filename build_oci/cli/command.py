"""The command line: arguments, standard input, signals, exit status.

What is printed goes to standard error.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from build_oci.cli.arguments import PARSERS, completion, parser, subcommand
from build_oci.cli.signals import Signals
from build_oci.cli.streams import flush, is_terminal, occupy_standard_descriptors, say
from build_oci.errors import (
    MEMORY_HINT,
    OPEN_FILES,
    OPEN_FILES_HINT,
    BuildOciError,
    Cancelled,
    ConfigError,
    UsageError,
    counted,
    printable,
    shortened,
    size_text,
)

if TYPE_CHECKING:
    import argparse

    from build_oci.config.model import BuildConfig
    from build_oci.image.result import BuiltImage


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line ARGV (default: that of the process); the exit status."""
    occupy_standard_descriptors()
    status = 1
    signals = Signals()
    try:
        with signals.handled():
            status = _run(sys.argv[1:] if argv is None else argv, signals)
    except SystemExit as leave:  # how argparse ends after --help and --version
        status = leave.code if isinstance(leave.code, int) else 1
    except BaseException as error:
        if os.environ.get("BUILD_OCI_DEBUG") == "1":
            import traceback

            say(traceback.format_exc().rstrip("\n"))
        if signals.caught:
            # Whatever a thread or a clean-up made of it in the end, the signal was the cause.
            status = 128 + signals.caught
            say(f"build-oci: error: stopped by {signal.Signals(signals.caught).name}")
        else:
            failure = _explain(error)
            status = failure.exit_status
            for line in failure.lines():
                say(line)
    flush(sys.stdout)
    return status


def _run(argv: Sequence[str], signals: Signals) -> int:
    command, arguments = subcommand(argv)
    if command:
        return _SUBCOMMANDS[command](PARSERS[command]().parse_args(arguments), signals)
    options = parser().parse_args(arguments)
    if options.schema:
        import json

        from build_oci.cli.compare import schema

        print(json.dumps(schema(options.schema), indent=2))
        return 0
    if options.print_completion:
        print(completion(options.print_completion))
        return 0
    from build_oci.config.load import load_config, source_date_epoch
    from build_oci.config.paths import check_paths

    warn = _warner(options, say)
    epoch = source_date_epoch(os.environ)
    text, source = _read(options.file, quiet=options.quiet)
    try:
        config = load_config(text, source=source)
    except ConfigError as error:
        # A key that is misspelt here may be the one that is missing there.
        for warning in error.warnings:
            warn(warning)
        raise
    if options.strict and config.warnings:
        raise ConfigError([UsageError(warning, hint=_STRICT) for warning in config.warnings])
    for warning in config.warnings:
        warn(warning)
    talks = options.verbose or (is_terminal(sys.stderr) and not options.quiet)
    _check_files(options)
    if options.check:
        from build_oci.check import check_output, check_parents, check_plans
        from build_oci.oci.archive import open_output

        check_paths(config)
        check_plans(config)
        check_parents(config)
        check_output(config, open_output(options.output).folder)
        if talks:
            say(
                f"build-oci: nothing is wrong with {source}: {counted(len(config.images), 'image')}"
            )
        return 0
    _build(config, options, epoch, talks, signals)
    return 0


_STRICT = "this is a warning, which --strict makes an error"


def _warner(options: argparse.Namespace, speak: Callable[[str], None]) -> Callable[[str], None]:
    def warn(text: str) -> None:
        if getattr(options, "strict", False):
            raise BuildOciError(text, hint=_STRICT)
        if not options.quiet:
            speak(f"build-oci: warning: {shortened(printable(text))}")

    return warn


def _verify(options: argparse.Namespace) -> int:
    from build_oci.verify.verifier import verify
    from build_oci.work.cpus import usable_cpus

    def problem(text: str) -> None:
        say(f"build-oci: error: {text}")

    def note(text: str) -> None:
        if options.verbose:
            say(f"build-oci: note: {text}")

    def warning(text: str) -> None:
        if not options.quiet:
            say(f"build-oci: warning: {text}")

    workers = options.workers or usable_cpus()
    found = verify(
        options.layout,
        workers=workers,
        problem=problem,
        note=note,
        warning=warning,
        bootc=options.bootc,
    )
    if options.verbose or (is_terminal(sys.stderr) and not options.quiet):
        what = counted(found.mismatches, "mismatch") if found.mismatches else "nothing is wrong"
        if found.warnings:
            what += f", {counted(found.warnings, 'warning')}"
        counts = ", ".join(
            map(counted, (found.images, found.layers, found.entries), ("image", "layer", "entry"))
        )
        say(f"build-oci: {printable(options.layout)}: {what}: {counts}, {size_text(found.size)}")
    return 1 if found.mismatches else 0


def _check_files(options: argparse.Namespace) -> None:
    from build_oci.oci.output_files import check_writable

    for option in ("metrics", "digestfile"):
        if path := getattr(options, option, None):
            check_writable(path, f"--{option}")


def _merge(options: argparse.Namespace, signals: Signals) -> int:
    from build_oci.merge import merge
    from build_oci.oci.output_files import write_file

    _check_files(options)
    merged = merge(
        options.layouts,
        options.output,
        workers=options.workers,
        sync=not options.no_sync,
        warn=_warner(options, say),
        started=signals.cancel_by,
    )
    if options.digestfile:
        write_file(options.digestfile, merged.digest.encode(), "--digestfile", signals.check)
    if options.verbose or (is_terminal(sys.stderr) and not options.quiet):
        say(
            f"build-oci: {merged.digest}: {counted(merged.images, 'image')},"
            f" {counted(merged.blobs, 'blob')}, {size_text(merged.size)}"
        )
    return 0


def _compare(options: argparse.Namespace, signals: Signals) -> int:
    from build_oci.cli.compare import compare

    return _or_trouble(lambda: compare(options, signals.check))


def _show(options: argparse.Namespace) -> int:
    from build_oci.cli.compare import show

    return _or_trouble(lambda: show(options))


def _or_trouble(run: Callable[[], int]) -> int:
    """Like diff: 1 says that the images differ, so trouble of any kind is 2."""
    try:
        return run()
    except (SystemExit, KeyboardInterrupt, Cancelled):
        raise
    except BaseException as error:
        failure = _explain(error)
        failure.exit_status = 2
        raise failure from error


_SUBCOMMANDS: dict[str, Callable[[argparse.Namespace, Signals], int]] = {
    "verify": lambda options, signals: _verify(options),
    "merge": _merge,
    "compare": _compare,
    "show": lambda options, signals: _show(options),
}


def _build(
    config: BuildConfig,
    options: argparse.Namespace,
    epoch: int | None,
    talks: bool,
    signals: Signals,
) -> None:
    from build_oci.cli.metrics import as_json, metrics, summary
    from build_oci.oci.output_files import write_file
    from build_oci.pipeline import build
    from build_oci.progress import ignore
    from build_oci.work.cpus import usable_cpus

    workers = options.workers or usable_cpus()
    started = time.monotonic()
    names = [printable(str(image.platform)) for image in config.images]
    bars = is_terminal(sys.stderr) and not options.quiet
    reports = None
    if bars or options.progress in ("bar", "plain"):
        from build_oci.cli.bars import reporter

        reports = reporter(options.progress, names, say, terminal=bars)
    speak = reports.say if reports else say

    def explain(text: str) -> None:
        if options.verbose:
            speak(f"build-oci: {shortened(printable(text))}")

    def on_image(image: BuiltImage) -> None:
        if talks:
            speak(summary(image, options.output))

    try:
        result = build(
            config,
            output=options.output,
            workers=workers,
            epoch=epoch,
            warn=_warner(options, speak),
            started=signals.cancel_by,
            on_progress=reports or ignore,
            explain=explain,
            on_image=on_image,
            sync=not options.no_sync,
            prune=options.prune,
            differences=bool(options.verbose or options.metrics),
        )
    finally:
        if reports:
            reports.close()
    if options.metrics:
        document = metrics(config, result, workers=workers, seconds=time.monotonic() - started)
        write_file(options.metrics, as_json(document), "--metrics", signals.check)
    if options.digestfile:
        write_file(options.digestfile, result.digest.encode(), "--digestfile", signals.check)


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
            raise UsageError(
                "is closed", where="standard input", hint="name the configuration with -f FILE"
            )
        if is_terminal(sys.stdin) and not quiet:
            say(
                "build-oci: waiting for the configuration (YAML) on standard input; end it with"
                " Ctrl-D, or name a file with -f FILE"
            )
        return sys.stdin.buffer.read(MAX_SIZE + 1), "<stdin>"
    except OSError as error:
        where = "standard input" if file == "-" else file
        hint = (
            "name the configuration with -f FILE"
            if file == "-"
            else f"-f names a file; a relative path starts at {os.getcwd()}"
        )
        raise UsageError(
            f"cannot read the configuration: {error.strerror or error}", where=where, hint=hint
        ) from error


# ---- errors


# What the interpreter, a codec and the dynamic linker say without a MemoryError.
_EXHAUSTED = ("can't start new thread", "not enough memory", "failed to map segment")


def _explain(error: BaseException) -> BuildOciError:
    """ERROR as one that a user can read."""
    if isinstance(error, BuildOciError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Cancelled("stopped by SIGINT")
    if failure := _too_many_files(error):
        return failure
    exhausted = any(text in str(error) for text in _EXHAUSTED)
    if exhausted or isinstance(error, MemoryError):
        return BuildOciError(
            f"out of memory{f' or threads: {error}' if exhausted else ''}",
            hint=MEMORY_HINT,
        )
    if isinstance(error, OSError):
        return BuildOciError(
            error.strerror or str(error) or type(error).__name__, where=_text(error.filename)
        )
    what = f"internal error: {type(error).__name__}: {error}"
    return BuildOciError(
        what, hint="this is a bug, please report it; BUILD_OCI_DEBUG=1 shows where it is"
    )


def _too_many_files(error: BaseException) -> BuildOciError | None:
    """ERROR, if the reason is that too many files are open: it may stand in the chain of another.
    What imports a module late in a build gets an ImportError of it, with the reason as text.
    """
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        if OPEN_FILES in str(cause):
            where = getattr(cause, "path", None) or getattr(cause, "filename", None)
            return BuildOciError(
                f"cannot be opened: {OPEN_FILES}", where=_text(where), hint=OPEN_FILES_HINT
            )
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    return None


def _text(name: object) -> str | bytes:
    return name if isinstance(name, str | bytes) else "" if name is None else str(name)
