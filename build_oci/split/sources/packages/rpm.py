"""rpm (Fedora, CentOS, openSUSE): an SQLite data base with the header of each package.

A header is a number of index entries and a number of bytes of data (both 32 bits, big-endian), the
entries, the data. An entry is a tag, a type, an offset into the data and a count of values. Strings
end with a zero byte; numbers are big-endian. When a tag stands there twice, the later entry holds:
rpm puts what it changed in a header behind the region that the package was signed with.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from build_oci.errors import TreeError
from build_oci.split.sources.packages import Package, source_name
from build_oci.split.tree import TreeIndex

if TYPE_CHECKING:
    import sqlite3

FOLDERS = (b"usr/lib/sysimage/rpm", b"var/lib/rpm", b"usr/share/rpm")
_NAME = b"/rpmdb.sqlite"
_OLD_NAMES = (b"/Packages", b"/Packages.db")
_MOST_BYTES = 2 << 30
_MOST_HEADER = 64 << 20
_STEPS = 100_000  # of SQLite's virtual machine, between two checks
_MOST_CHECKS = 2_000
_FILES = 4  # that SQLite opens for a data base, at the most, and one to spare

NAME, OLD_FILE_NAMES, FILE_STATES, SOURCE_RPM, CHANGELOG_TIME = 1000, 1027, 1029, 1044, 1080
DIR_INDEXES, BASE_NAMES, DIR_NAMES = 1116, 1117, 1118
_CHAR, _INT32, _STRING, _STRING_ARRAY = 1, 4, 6, 8
_WANTED = {
    NAME: (_STRING,),
    OLD_FILE_NAMES: (_STRING_ARRAY,),
    FILE_STATES: (_CHAR,),
    SOURCE_RPM: (_STRING,),
    CHANGELOG_TIME: (_INT32,),
    DIR_INDEXES: (_INT32,),
    BASE_NAMES: (_STRING_ARRAY,),
    DIR_NAMES: (_STRING_ARRAY,),
}
_STATE_REPLACED = 1
SELECT = "SELECT hnum, blob FROM Packages ORDER BY hnum"


def packages(tree: TreeIndex, warn: Callable[[str], None]) -> Iterator[Package]:
    """The packages in the order of their numbers in the data base."""
    found = {index for folder in FOLDERS if (index := tree.find(folder + _NAME)) is not None}
    for index in sorted(found):
        yield from _read(tree, tree.paths[index])
    if not found:
        for folder in FOLDERS:
            for name in _OLD_NAMES:
                if tree.find(folder + name) is not None:
                    what = (
                        "is a data base of an older rpm, which is not read; `rpmdb --rebuilddb`"
                        " makes a new one"
                    )
                    warn(f"{tree.where(folder + name)}: {what}")


def _read(tree: TreeIndex, path: bytes) -> Iterator[Package]:
    for number, blob in _rows(tree, path):
        try:
            header = Header(blob)
            name = header.string(NAME)
            source = header.string(SOURCE_RPM)
            dates = header.numbers(CHANGELOG_TIME)
            entries = map(tree.find, header.paths())
        except ValueError as error:
            raise tree.broken(path, f"the package number {number} {error}") from None
        yield Package(source_name(tree, path, source_of(source) or name), entries, dates)


def source_of(source_rpm: bytes) -> bytes:
    """`bash` for `bash-5.2.26-3.fc40.src.rpm`."""
    return source_rpm.rsplit(b"-", 2)[0] if source_rpm.count(b"-") >= 2 else b""


class Header:
    """The header of one package, as the data base holds it.

    ValueError for anything that is not of the form above.
    """

    def __init__(self, blob: bytes) -> None:
        if len(blob) < 8:
            raise ValueError("has a header of less than 8 bytes")
        entries, size = struct.unpack_from(">II", blob)
        if len(blob) != 8 + 16 * entries + size:
            raise ValueError(
                f"has a header of {len(blob)} bytes that says of itself {8 + 16 * entries + size}:"
                " it is cut or damaged"
            )
        self._blob = blob
        self._data = 8 + 16 * entries
        self._entries: dict[int, tuple[int, int, int]] = {}
        for tag, kind, offset, count in struct.iter_unpack(
            ">IIII", memoryview(blob)[8 : self._data]
        ):
            if tag in _WANTED:
                if kind not in _WANTED[tag]:
                    raise ValueError(f"has the tag {tag} with a wrong type")
                if offset >= size or count > size:
                    raise ValueError(f"has the tag {tag} beyond the end of its data")
                self._entries[tag] = (kind, self._data + offset, count)

    def string(self, tag: int) -> bytes:
        """The string TAG, empty where there is none."""
        values = self.strings(tag, 1)
        return values[0] if values else b""

    def strings(self, tag: int, most: int | None = None) -> list[bytes]:
        """The strings of TAG, empty where there are none."""
        if tag not in self._entries:
            return []
        _, start, count = self._entries[tag]
        count = count if most is None else most
        # Each string takes at least its zero byte, so a count has an upper bound in the data.
        values = self._blob[start:].split(b"\0", count)
        if len(values) <= count:
            raise ValueError(f"has strings in the tag {tag} that do not end")
        del values[count:]
        return values

    def numbers(self, tag: int) -> tuple[int, ...]:
        """The numbers of TAG, empty where there are none."""
        if tag not in self._entries:
            return ()
        _, start, count = self._entries[tag]
        if start + 4 * count > len(self._blob):
            raise ValueError(f"has the tag {tag} beyond the end of its data")
        return struct.unpack_from(f">{count}I", self._blob, start)

    def paths(self) -> Iterator[bytes]:
        """The paths of the package's files but those that another package has replaced."""
        names, indexes, directories = (
            self.strings(BASE_NAMES),
            self.numbers(DIR_INDEXES),
            self.strings(DIR_NAMES),
        )
        if len(names) != len(indexes) or any(index >= len(directories) for index in indexes):
            raise ValueError("has file names without a directory")
        old = self.strings(OLD_FILE_NAMES)
        states = b""
        if FILE_STATES in self._entries:
            _, start, count = self._entries[FILE_STATES]
            states = self._blob[start : start + count]
        replaced = (
            {number for number, state in enumerate(states) if state == _STATE_REPLACED}
            if _STATE_REPLACED in states
            else set()
        )

        def joined() -> Iterator[bytes]:
            yield from old
            for number, (name, index) in enumerate(zip(names, indexes, strict=True)):
                if number not in replaced:
                    yield (directories[index] + name)[1:]

        return joined()


# -- SQLite


def _rows(tree: TreeIndex, path: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and header of each package."""
    try:
        import sqlite3
    except ModuleNotFoundError as error:  # some builds of Python leave it out
        raise TreeError(
            "cannot be read: this Python has no module sqlite3",
            where=tree.where(path),
            hint="use a Python that has it, or leave `packages` out of `split.components`",
        ) from error
    checks = 0
    stopped: list[BaseException] = []

    def checked() -> int:
        # An exception would be lost on its way through SQLite.
        nonlocal checks
        checks += 1
        try:
            tree.check()
        except BaseException as error:
            stopped.append(error)
        return bool(stopped) or checks > _MOST_CHECKS

    with _connected(tree, path) as connection:
        try:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_HEADER)
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            connection.set_progress_handler(checked, _STEPS)
            kinds = connection.execute(
                "SELECT type FROM sqlite_master WHERE name = 'Packages'"
            ).fetchall()
            if kinds != [("table",)]:  # a view could compute for ever
                raise tree.broken(path, "has no table `Packages`")
            for number, blob in connection.execute(SELECT):
                if type(number) is not int or not isinstance(blob, bytes):
                    raise tree.broken(path, "has a row in `Packages` that is no package")
                yield number, blob
        # What SQLite says of a damaged file may quote it, and then is not always text.
        except (sqlite3.Error, UnicodeDecodeError, OverflowError, MemoryError) as error:
            if stopped:
                raise stopped[0] from None
            if checks > _MOST_CHECKS:
                raise tree.broken(path, "takes too long to read") from error
            raise _refused(tree, path, error) from error


@contextmanager
def _connected(tree: TreeIndex, path: bytes) -> Iterator[sqlite3.Connection]:
    """A connection that can only read, and that changes nothing in the tree, not even by a
    journal.
    """
    import sqlite3

    with ExitStack() as stack:
        file = tree.open(path, _MOST_BYTES)
        stack.callback(os.close, file)
        log = path + b"-wal"
        name = f"file:/proc/self/fd/{file}?mode=ro&immutable=1"
        there = tree.entry(log)
        if not _has_name(file) or (there is not None and tree.view.sizes[there]):
            import tempfile  # 10 ms, which a tree without such a data base does not pay

            # What lies in a write-ahead log is read only by a connection that may write.
            # Where no more files may be open, tempfile finds no directory, and does not say why.
            os.close(os.dup(file))
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="build-oci-rpmdb-"))
            copy = os.path.join(folder, "rpmdb.sqlite")
            _copy(tree, file, copy)
            if there is not None:
                logged = tree.open(log, _MOST_BYTES)
                stack.callback(os.close, logged)
                _copy(tree, logged, copy + "-wal")
            name = f"file:{copy}"
        try:
            connection = sqlite3.connect(name, uri=True, check_same_thread=False)
        except sqlite3.Error as error:
            raise _refused(tree, path, error) from error
        stack.callback(connection.close)
        yield connection


def _refused(tree: TreeIndex, path: bytes, error: Exception) -> TreeError:
    """What SQLite says of the data base PATH. That too many files are open it does not say."""
    files: list[int] = []
    try:
        for _ in range(_FILES):
            files.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as reason:
        return tree.broken(path, f"cannot be opened: {reason.strerror}")
    finally:
        for file in files:
            os.close(file)
    return tree.broken(path, f"cannot be read: {error or 'there is not enough memory'}")


def _has_name(file: int) -> bool:
    """Is the open FILE there under the name that /proc tells? SQLite follows that link by itself. A
    file of an image has none.
    """
    try:
        target = os.readlink(f"/proc/self/fd/{file}")
        return os.path.samestat(os.stat(target), os.fstat(file))
    except OSError:
        return False


def _copy(tree: TreeIndex, file: int, target: str) -> None:
    with os.fdopen(os.dup(file), "rb") as source, open(target, "wb") as copy:
        while piece := source.read(1 << 20):
            tree.check()
            copy.write(piece)
