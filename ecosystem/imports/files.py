"""Rows of files that grow, and of files that are added to a folder.

A row is a line: an export that breaks a text into lines must quote the line feed otherwise. So a damaged row costs one
line, and a file can be read on from any line.
"""

import csv
import hashlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from ecosystem.imports.errors import ImportStopped, SourceUnavailable
from ecosystem.imports.mapping import Columns, FileSource
from ecosystem.imports.positions import FilePosition, ImportPosition
from ecosystem.imports.source import Batch, Row

_CHUNK = 256 * 1024
"""Bytes that are read at a time, and the longest line."""
_LINES = 500
"""Lines of a batch at most."""
_DIGEST_BYTES = 4096
"""Bytes before a position that must stay as they are."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class FileRows:
    """Implements `ecosystem.imports.source.Source` for files.

    Arguments:
        name: of the import.
        source: which files, and how they are written.
        folder: folder of the mapping file.
        positions: committed positions by file, relative to the folder.
        wanted: columns that every file must have.
        follow: whether files may grow: a last line without a line feed is not complete yet.
    """

    def __init__(
        self,
        name: str,
        source: FileSource,
        folder: Path,
        positions: Mapping[str, ImportPosition],
        wanted: Collection[str],
        *,
        follow: bool,
    ) -> None:
        self._name = name
        self._source = source
        self._folder = folder
        self._wanted = wanted
        self._follow = follow
        self._positions = {file: p.file or FilePosition() for file, p in positions.items()}
        self._checked: set[str] = set()

    async def poll(self) -> Batch | None:
        paths = sorted(self._folder.glob(self._source.files))
        if not paths and not self._follow:
            raise ImportStopped(f"no file matches {self._folder / self._source.files}")
        return next((batch for path in paths if (batch := self._batch(path))), None)

    async def acknowledge(self, batch: Batch) -> None:
        if batch.position.file is not None:
            self._positions[batch.source] = batch.position.file

    async def close(self) -> None:
        pass

    def _batch(self, path: Path) -> Batch | None:
        name = path.relative_to(self._folder).as_posix()
        position = self._positions.get(name, FilePosition())
        try:
            size = path.stat().st_size
            if size < position.offset or name not in self._checked:
                self._check(path, position)
                self._checked.add(name)
            if size == position.offset:
                return None
            with path.open("rb") as file:
                file.seek(position.offset)
                lines = self._complete(path, file.read(_CHUNK), at_end=position.offset + _CHUNK >= size)[:_LINES]
            header = self._header(path)
        except OSError as error:
            raise SourceUnavailable(f"{path}: {error.strerror}") from error
        if not lines or header is None:
            return None
        read = b"".join(lines)
        after = FilePosition(
            offset=position.offset + len(read),
            line=position.line + len(lines),
            digest=self._digest(path, position, read),
        )
        rows = [
            row
            for number, line in enumerate(lines, position.line + 1)
            if (row := self._row(f"{name}:{number}", line, header, first=number == 1))
        ]
        return Batch(name, rows, ImportPosition(source=f"{self._name}/{name}", file=after))

    def _complete(self, path: Path, chunk: bytes, *, at_end: bool) -> list[bytes]:
        """The complete lines of a chunk, with their line feeds."""
        lines = _split(chunk)
        if lines and not lines[-1].endswith(b"\n") and not (at_end and not self._follow):
            unfinished = lines.pop()
            if len(unfinished) == _CHUNK:
                raise ImportStopped(f"{path}: a line is longer than {_CHUNK} bytes: it is no file of rows")
        return lines

    def _check(self, path: Path, position: FilePosition) -> None:
        """Raises `ImportStopped` if the file is not the one that was read up to the position."""
        with path.open("rb") as file:
            file.seek(max(0, position.offset - _DIGEST_BYTES))
            tail = file.read(min(position.offset, _DIGEST_BYTES))
        if position.offset and hashlib.sha256(tail).hexdigest() != position.digest:
            raise ImportStopped(
                f"{path} was replaced or shortened: what was read up to line {position.line} has changed. Give each "
                "export a name of its own, for example with its date, or import the file again under another `name`."
            )

    def _digest(self, path: Path, position: FilePosition, read: bytes) -> str:
        if len(read) < _DIGEST_BYTES:
            with path.open("rb") as file:
                start = max(0, position.offset + len(read) - _DIGEST_BYTES)
                file.seek(start)
                read = file.read(position.offset + len(read) - start)
        return hashlib.sha256(read[-_DIGEST_BYTES:]).hexdigest()

    def _header(self, path: Path) -> tuple[str, ...] | None:
        """The names of the columns; `None` if the file does not have its first line yet."""
        if self._source.columns is not None:
            return tuple(self._source.columns)
        with path.open("rb") as file:
            first = file.readline(_CHUNK)
        if not first.endswith(b"\n") and self._follow:
            return None
        try:
            names = tuple(self._values(first.removeprefix(_BYTE_ORDER_MARK)))
        except ValueError as error:
            raise ImportStopped(f"{path}:1: row {error}") from error
        if missing := [name for name in self._wanted if name not in names]:
            raise ImportStopped(
                f"{path}:1: column {', '.join(missing)} is missing: the first line names {', '.join(names)}. A file "
                "without such a line needs `columns` in the mapping; another separator needs `separator`."
            )
        return names

    def _row(self, place: str, line: bytes, header: tuple[str, ...], *, first: bool) -> Row | None:
        """Parses a line; `None` for a line without content, and for the names of the columns."""
        raw = line.rstrip(b"\r\n")
        if first:
            raw = raw.removeprefix(_BYTE_ORDER_MARK)
        if not raw.strip(b" \x1a\x00") or (first and self._source.columns is None):
            return None
        try:
            return Row(place, raw, self._columns(raw, header))
        except ValueError as error:
            return Row(place, raw, None, error=f"row {error}")

    def _columns(self, raw: bytes, header: tuple[str, ...]) -> Columns:
        if isinstance(self._source.columns, dict):
            text = self._text(raw)
            return {name: text[first - 1 : last] for name, (first, last) in self._source.columns.items()}
        values = list(self._values(raw))
        if len(values) != len(header):
            raise ValueError(f"has {len(values)} values, not {len(header)}: quote texts that contain the separator")
        return dict(zip(header, values, strict=True))

    def _values(self, raw: bytes) -> Iterator[str]:
        text = self._text(raw.rstrip(b"\r\n"))
        try:
            [values] = csv.reader([text], delimiter=self._source.separator, strict=True)
        except csv.Error as error:
            raise ValueError(f"is no CSV: {error}") from error
        return (value.strip() for value in values)

    def _text(self, raw: bytes) -> str:
        try:
            return raw.decode(self._source.encoding)
        except UnicodeDecodeError as error:
            raise ValueError(f"must be {self._source.encoding}: {error.reason} at byte {error.start + 1}") from error


def _split(chunk: bytes) -> list[bytes]:
    """Splits at line feeds only: `splitlines` would also split at a lone carriage return."""
    parts = chunk.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
