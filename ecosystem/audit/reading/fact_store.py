"""Sorts facts on disk: RocksDB in a temporary folder, used only for the order of its keys."""

import itertools
import struct
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rocksdict import Cache, DBCompressionType, Rdict, WriteBatch, WriteOptions

from ecosystem.audit.facts import Fact, pack, unpack
from ecosystem.audit.report import AuditError
from ecosystem.audit.sources import FactGroup, Source
from runtime.state import rocks

_CACHE_MB = 16
_WRITE_BUFFER_KB = 8192
_MAX_BATCH = 2000
_PREFIX = struct.Struct(">BH")  # group of the fact; length of its key, so that no key is a prefix of another


class FactStore:
    """Takes facts in any order; returns them by group, key, source, partition and offset."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="orders-audit-", dir=folder)
        options = rocks.options(Cache(_CACHE_MB * rocks.MIB), _WRITE_BUFFER_KB)
        options.set_compression_type(DBCompressionType.lz4())
        self._db = Rdict(self._folder.name, options)
        self._unlogged = WriteOptions()
        self._unlogged.disable_wal = True  # type: ignore[method-assign,assignment]  # its stub declares a method
        self._batch = WriteBatch(raw_mode=True)
        self.count = 0
        """Facts added so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()
        self._folder.cleanup()

    def add(self, key: bytes, fact: Fact) -> None:
        """Adds a fact about the order, product, customer or event `key`, which has at most 65,535 bytes."""
        self.count += 1
        position, content = pack(fact)
        self._batch.put(_PREFIX.pack(fact.source.group, len(key)) + key + position, content)
        if len(self._batch) >= _MAX_BATCH:
            self._write()

    def orders(self) -> Iterator[tuple[str, list[Fact]]]:
        """Yields every order with its facts."""
        for key, facts in itertools.groupby(self._grouped(FactGroup.ORDER), lambda item: item[0]):
            yield key.decode(), [fact for _, fact in facts]

    def products(self) -> Iterator[str]:
        """Yields every product of `FactGroup.PRODUCT`."""
        for key, _ in itertools.groupby(self._grouped(FactGroup.PRODUCT), lambda item: item[0]):
            yield key.decode()

    def codes(self) -> Iterator[tuple[str, Iterator[Fact]]]:
        """Yields every product of the product service with its facts; consume them before the next product."""
        for key, facts in itertools.groupby(self._grouped(FactGroup.CODE), lambda item: item[0]):
            yield key.decode(), (fact for _, fact in facts)

    def events(self) -> Iterator[tuple[str, list[Fact]]]:
        """Yields the id of every change and alert with its facts."""
        for key, facts in itertools.groupby(self._grouped(FactGroup.EVENT), lambda item: item[0]):
            yield key.decode(), [fact for _, fact in facts]

    def of_shop(self) -> list[Fact]:
        """Returns the facts of `FactGroup.SHOP`."""
        return [fact for _, fact in self._grouped(FactGroup.SHOP)]

    def of_product(self, product: str, source: Source) -> Iterator[Fact]:
        """Yields the facts of a product from one source."""
        key = product.encode()
        start = _PREFIX.pack(FactGroup.PRODUCT, len(key)) + key + bytes([source])
        for _, fact in self._facts(start, start[:-1] + bytes([source + 1])):
            yield fact

    def of_customer(self, number: int) -> list[Fact]:
        """Returns the facts of a customer that were added before the current iteration over orders."""
        key = str(number).encode()
        start = _PREFIX.pack(FactGroup.CUSTOMER, len(key)) + key
        return [fact for _, fact in self._written(start, start + b"\xff")]

    def _grouped(self, group: FactGroup) -> Iterator[tuple[bytes, Fact]]:
        return self._facts(bytes([group]), bytes([group + 1]))

    def _facts(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, Fact]]:
        self._write()
        return self._written(start, end)

    def _written(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, Fact]]:
        items: Iterable[tuple[Any, Any]] = self._db.items(from_key=start)  # both are bytes in raw mode
        for raw, content in items:
            if raw >= end:
                return
            _, length = _PREFIX.unpack_from(raw)
            end_of_key = _PREFIX.size + length
            yield raw[_PREFIX.size : end_of_key], unpack(raw[end_of_key:], content)

    def _write(self) -> None:
        if not len(self._batch):
            return
        batch, self._batch = self._batch, WriteBatch(raw_mode=True)
        try:
            self._db.write(batch, self._unlogged)
        except Exception as error:  # rocksdict raises plain Exception
            raise AuditError(
                f"cannot write temporary files to {self._folder.name}: {error}. Name another folder by --temp"
            ) from error
