"""Sorting more than fits into memory: RocksDB in a temporary folder, of which only the order of its keys is used."""

import itertools
import struct
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rocksdict import DBCompressionType, Rdict, WriteBatch, WriteOptions

from ecosystem.audit.facts import Fact, FactGroup, Source, pack, unpack
from ecosystem.audit.report import AuditError
from runtime.state import rocks

_MEMORY_MB = 32
_AT_ONCE = 2000
_LENGTH = struct.Struct(">BH")  # what the key is of; its length, so that none is the beginning of another


class Sorted:
    """Facts in, in whatever order; facts out, grouped by order id or by product and in the order of their logs."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="orders-audit-", dir=folder)
        options = rocks.options(_MEMORY_MB)
        options.set_compression_type(DBCompressionType.lz4())
        self._db = Rdict(self._folder.name, options)
        self._unlogged = WriteOptions()
        self._unlogged.disable_wal = True  # type: ignore[method-assign,assignment]  # its stub takes it for a method
        self._batch = WriteBatch(raw_mode=True)
        self.count = 0
        """Facts taken so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()
        self._folder.cleanup()

    def add(self, key: bytes, fact: Fact) -> None:
        """Takes a fact about the order, product or customer `key` is. Keys have 65,535 bytes at most."""
        self.count += 1
        place, said = pack(fact)
        self._batch.put(_LENGTH.pack(fact.source.group, len(key)) + key + place, said)
        if len(self._batch) >= _AT_ONCE:
            self._write()

    def orders(self) -> Iterator[tuple[str, list[Fact]]]:
        """Every order with all of its facts."""
        for key, facts in itertools.groupby(self._grouped(FactGroup.ORDER), lambda item: item[0]):
            yield key.decode(), [fact for _, fact in facts]

    def products(self) -> Iterator[str]:
        """Every product of which there is a fact."""
        for key, _ in itertools.groupby(self._grouped(FactGroup.PRODUCT), lambda item: item[0]):
            yield key.decode()

    def codes(self) -> Iterator[tuple[str, Iterator[Fact]]]:
        """Every product that the product service has or had, with all facts of it, to be read one after the other."""
        for key, facts in itertools.groupby(self._grouped(FactGroup.CODE), lambda item: item[0]):
            yield key.decode(), (fact for _, fact in facts)

    def events(self) -> Iterator[tuple[str, list[Fact]]]:
        """Every change of a product and every alert, by its id, with all facts of it."""
        for key, facts in itertools.groupby(self._grouped(FactGroup.EVENT), lambda item: item[0]):
            yield key.decode(), [fact for _, fact in facts]

    def of_shop(self) -> list[Fact]:
        """All facts of all products together."""
        return [fact for _, fact in self._grouped(FactGroup.SHOP)]

    def of_product(self, product: str, source: Source) -> Iterator[Fact]:
        """Its facts from one source."""
        key = product.encode()
        start = _LENGTH.pack(FactGroup.PRODUCT, len(key)) + key + bytes([source])
        for _, fact in self._facts(start, start[:-1] + bytes([source + 1])):
            yield fact

    def of_customer(self, number: int) -> list[Fact]:
        """All facts of a customer, as they were when orders or products were last asked for."""
        key = str(number).encode()
        start = _LENGTH.pack(FactGroup.CUSTOMER, len(key)) + key
        return [fact for _, fact in self._written(start, start + b"\xff")]

    def _grouped(self, group: FactGroup) -> Iterator[tuple[bytes, Fact]]:
        return self._facts(bytes([group]), bytes([group + 1]))

    def _facts(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, Fact]]:
        self._write()
        return self._written(start, end)

    def _written(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, Fact]]:
        items: Iterable[tuple[Any, Any]] = self._db.items(from_key=start)  # bytes both, in raw mode
        for raw, said in items:
            if raw >= end:
                return
            _, length = _LENGTH.unpack_from(raw)
            behind = _LENGTH.size + length
            yield raw[_LENGTH.size : behind], unpack(raw[behind:], said)

    def _write(self) -> None:
        if not len(self._batch):
            return
        batch, self._batch = self._batch, WriteBatch(raw_mode=True)
        try:
            self._db.write(batch, self._unlogged)
        except Exception as error:  # rocksdict has one exception for everything
            raise AuditError(f"what was read cannot be sorted in {self._folder.name}: {error}") from error
