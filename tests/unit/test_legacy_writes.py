"""What `orders import` writes for a row, and what it says to a stranger. Nothing here needs a broker or a database."""

import pytest
from click.testing import CliRunner

from ecosystem.cli.main import main
from ecosystem.imports.importer import Importer
from ecosystem.imports.mapping import load
from ecosystem.imports.source import Row
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings

TABLE = """
name = "legacy"
topic = "{topic}"
source = {{ kind = "table", table = "shop.stock" }}

[fields]
"""
STOCK = TABLE.format(topic="warehouse-inventory") + 'product = "article"\ncount = "pieces"\n'
PAYMENTS = TABLE.format(topic="payments") + 'id = "id"\norderId = "id"\nccy = "ccy"\namount = "amount"\n'


@pytest.fixture
def mapping(tmp_path):
    def write(text):
        path = tmp_path / "mapping.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def writes(mapping):
    """Topic, key and value of what is written for a change of a row from `before` to `after`."""

    def written(text, after, before=None):
        importer = Importer(Settings(), load(mapping(text)), lambda _: pytest.fail("not opened"))
        found = list(importer._writes(Row("shop.stock:7", b"{}", after, before)))
        assert all(w.partition == partition_of(w.key or b"", 4) for w in found)
        assert all(dict(w.headers)["imported-from"] == b"legacy shop.stock:7" for w in found)
        return [(w.topic, w.key, w.value, dict(w.headers).get("error", b"").decode()) for w in found]

    return written


MUG, FEWER = {"article": "mug", "pieces": "7"}, {"article": "mug", "pieces": "6"}
TOPIC, VALUE = "warehouse-inventory", b'{"product":"mug","count":7}'


@pytest.mark.parametrize(
    ("after", "before", "expected"),
    [
        (MUG, None, [(TOPIC, b"mug", VALUE, "")]),
        (MUG, FEWER, [(TOPIC, b"mug", VALUE, "")]),
        (MUG, {**MUG, "shelf": "A1"}, []),
        (None, MUG, [(TOPIC, b"mug", None, "")]),
        (MUG, {"article": "cup", "pieces": "7"}, [(TOPIC, b"cup", None, ""), (TOPIC, b"mug", VALUE, "")]),
        (MUG, {"article": "mug", "pieces": "-7"}, [(TOPIC, b"mug", VALUE, "")]),
        (None, {"article": "mug", "pieces": "-7"}, []),
    ],
    ids=["inserted", "changed", "other column", "deleted", "renamed", "was invalid", "was invalid, deleted"],
)
def test_a_change_of_a_row_becomes_the_messages_that_say_so(writes, after, before, expected):
    assert writes(STOCK, after, before) == expected


def test_a_deleted_row_of_a_topic_without_tombstones_is_dead_lettered(writes):
    row = {"id": "p-1", "ccy": "EUR", "amount": "1.50"}
    [(topic, key, value, error)] = writes(PAYMENTS, None, row)
    assert (topic, key, value) == ("payments.dead-letters", None, b"{}")
    assert error == "shop.stock:7: row is deleted, or has another key, which payments cannot express"


def said(*arguments):
    result = CliRunner().invoke(main, ["import", *map(str, arguments)], env={"IMPORT_DATABASE_URL": ""})
    return result.exit_code, result.output


def test_the_statements_for_a_table_are_shown(mapping):
    code, text = said(mapping(STOCK), "--show-sql")
    assert code == 0
    assert 'CREATE TABLE "shop"."stock_orders_import"' in text
    assert 'AFTER INSERT OR UPDATE OR DELETE ON "shop"."stock"' in text
    assert 'EXECUTE FUNCTION "shop"."stock_orders_import_add"()' in text
    assert "$table" not in text
    assert "AS $$" in text


def test_a_table_needs_an_address(mapping):
    assert said(mapping(STOCK), "--install") == (
        1,
        "Error: a table needs the address of its database: --database-url, or IMPORT_DATABASE_URL\n",
    )


def test_a_file_needs_no_queue(mapping):
    text = STOCK.replace('{ kind = "table", table = "shop.stock" }', '{ kind = "csv", files = "*.csv" }')
    code, answer = said(mapping(text), "--install")
    assert (code, "source is no table: it needs no queue" in answer) == (1, True)


def test_a_mapping_that_is_not_there_is_named(tmp_path):
    assert said(tmp_path / "none.toml") == (1, f"Error: {tmp_path / 'none.toml'}: No such file or directory\n")
