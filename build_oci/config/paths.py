"""The paths that a configuration names, looked at before anything is built."""

from __future__ import annotations

import os

from build_oci.config.model import BuildConfig, PreviousConfig
from build_oci.errors import BuildOciError, ConfigError, ParentError, UsageError


def check_paths(config: BuildConfig) -> None:
    """Looks at every path that CONFIG names: layers are directories that can be listed, parents
    hold an `index.json`.

    ConfigError with every problem.
    """
    problems: list[BuildOciError] = []
    for image in config.images:
        for directory, where in image.directories:
            if what := _unusable(directory):
                problems.append(UsageError(what, where=where, hint=_path_hint(directory)))
        for component in image.split.components if image.split else ():
            if component.kind == "file" and not os.path.isfile(component.path):
                what = (
                    "is not a regular file" if os.path.exists(component.path) else "does not exist"
                )
                problems.append(
                    UsageError(
                        f"`{component.path}` {what}",
                        where=component.where,
                        hint=_path_hint(component.path),
                    )
                )
        for source in image.images:
            problems += _layout_problems(source.image, source.where)
        if image.previous:
            problems += _previous_problems(image.previous)
    if problems:
        raise ConfigError(problems)


def _layout_problems(path: str, where: str) -> list[BuildOciError]:
    """Why the directory or the archive PATH cannot be read as an OCI layout."""
    if os.path.isfile(path):
        from build_oci.oci.archive_source import open_source

        try:
            open_source(path)
        except ParentError as error:
            return [UsageError(f"`{error.where}` {error.what}", where=where, hint=error.hint)]
        return []
    if what := _unusable(path):
        return [UsageError(what, where=where, hint=_path_hint(path))]
    if os.path.isfile(os.path.join(path, "index.json")):
        return []
    hint = f"`skopeo copy docker://IMAGE oci:{path}` makes one of an image"
    return [
        UsageError(f"`{path}` is no OCI layout: it has no `index.json`", where=where, hint=hint)
    ]


def _not_yet(what: str, where: str) -> UsageError:
    return UsageError(
        what, where=where, hint="`optional: true` builds without it until there is one"
    )


def _previous_problems(previous: PreviousConfig) -> list[BuildOciError]:
    problems: list[BuildOciError] = []
    if previous.image is not None:
        from build_oci.oci.archive_source import is_layout

        empty = os.path.isdir(previous.image) and not is_layout(previous.image)
        if not empty and os.path.lexists(previous.image):
            problems += _layout_problems(previous.image, previous.where)
        elif not previous.optional:
            what = "holds no `index.json`" if empty else "does not exist"
            problems.append(_not_yet(f"`{previous.image}` {what}", previous.where))
    if previous.plan is not None and not os.path.lexists(previous.plan):
        if not previous.optional:
            problems.append(_not_yet(f"`{previous.plan}` does not exist", previous.plan_where))
    elif previous.plan is not None and not os.path.isfile(previous.plan):
        problems.append(
            UsageError(
                f"`{previous.plan}` is not a regular file",
                where=previous.plan_where,
                hint="it is the plan of an earlier build",
            )
        )
    return problems


def _unusable(path: str) -> str:
    """Why PATH cannot be used as a directory, or nothing.

    Opening and entering it is the only proof.
    """
    try:
        with os.scandir(path) as entries:
            next(entries, None)
        os.stat(os.path.join(path, "."))
    except (OSError, ValueError) as error:
        return f"cannot use the directory `{path}`: {getattr(error, 'strerror', None) or error}"
    return ""


def _path_hint(path: str) -> str:
    if os.path.isfile(path):
        return "this is a file: unpack it if it is an archive, and name the directory"
    if path.startswith("~"):
        return "`~` means nothing here: write the path of the home directory"
    return (
        f"a relative path starts at the current directory, {os.getcwd()}"
        if not os.path.isabs(path)
        else ""
    )
