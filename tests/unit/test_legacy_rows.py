"""Rows of exports: what becomes of a line, where reading goes on, and what is refused."""

import pytest

from ecosystem.imports.conversion import Converter, InvalidRow
from ecosystem.imports.errors import ImportStopped
from ecosystem.imports.files import FileRows
from ecosystem.imports.mapping import ImportMapping, load

CSV = """
name = "pay"
topic = "payments"
source = { kind = "csv", files = "pay*.csv", separator = ";", encoding = "cp1252" }

[fields]
id = { column = "NO", prefix = "legacy-" }
orderId = "ORDER"
amount = { column = "AMOUNT", comma = true }
ccy = { constant = "EUR" }
"""
FIXED = """
name = "crm"
topic = "customers"

[source]
kind = "fixed-width"
files = "*.txt"
columns.NO = [1, 6]
columns.FIRST = [7, 16]
columns.LAST = [17, 26]
columns.MAIL = [27, 56]
columns.CLASS = [57, 57]

[fields]
id = { column = "NO", digits = 0 }
firstName = "FIRST"
lastName = "LAST"
email = "MAIL"
address = { constant = "unknown" }
level = { column = "CLASS", values = { A = "gold", B = "silver" } }
"""
HEADER = b"NO;ORDER;AMOUNT\r\n"


@pytest.fixture
def mapping(tmp_path):
    def write(text):
        path = tmp_path / "mapping.toml"
        path.write_text(text)
        return load(path)

    return write


@pytest.fixture
def export(tmp_path, mapping):
    """A reader of the export `pay.csv`, at given positions."""

    def opened(positions=None, *, follow=True, text=CSV):
        own = mapping(text)
        wanted = [rule.column for rule in own.fields.values() if rule.column]
        return FileRows(own.name, own.source, tmp_path, positions or {}, wanted, follow=follow)

    return opened


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pay.csv"


async def all_rows(source):
    """Rows until there are no more; each batch is acknowledged."""
    rows = []
    while batch := await source.poll():
        rows += batch.rows
        await source.acknowledge(batch)
    return rows


def messages(mapping, rows):
    return [Converter(mapping).convert(row.columns) for row in rows]


async def test_a_growing_file_yields_each_complete_line_once(export, path, mapping):
    path.write_bytes(HEADER + b"1;o-1;12,50\r\n2;o-2;3")
    source = export()
    first = await all_rows(source)
    assert [row.place for row in first] == ["pay.csv:2"]
    with path.open("ab") as file:
        file.write(b",00\r\n\r\n3;o-3;1,00\r\n")
    second = await all_rows(source)
    assert [row.place for row in second] == ["pay.csv:3", "pay.csv:5"]
    found = messages(mapping(CSV), first + second)
    assert [(p.id, p.order_id, str(p.amount), p.ccy) for p in found] == [
        ("legacy-1", "o-1", "12.50", "EUR"),
        ("legacy-2", "o-2", "3.00", "EUR"),
        ("legacy-3", "o-3", "1.00", "EUR"),
    ]


async def test_reading_goes_on_at_any_committed_position(export, path, monkeypatch):
    monkeypatch.setattr("ecosystem.imports.files._CHUNK", 60)
    lines = [f"{n};o-{n};{n},00" for n in range(1, 40)]
    path.write_bytes(HEADER + "\n".join(lines).encode() + b"\n")
    expected = await all_rows(export())
    positions, found, batches = {}, [], 0
    while batch := await export(positions).poll():
        found += batch.rows
        positions = {batch.source: batch.position}
        batches += 1
    assert batches > 5
    assert found == expected
    assert len(found) == 39


async def test_without_follow_the_last_line_needs_no_line_feed(export, path):
    path.write_bytes(HEADER + b"1;o-1;12,50")
    assert await all_rows(export()) == []
    assert len(await all_rows(export(follow=False))) == 1


async def test_files_are_read_in_the_order_of_their_names(export, tmp_path):
    (tmp_path / "pay-2.csv").write_bytes(HEADER + b"2;o-2;1\n")
    (tmp_path / "pay-1.csv").write_bytes(HEADER + b"1;o-1;1\n")
    assert [row.place for row in await all_rows(export())] == ["pay-1.csv:2", "pay-2.csv:2"]


@pytest.mark.parametrize("content", [HEADER + b"9;o-9;9,00\r\n", b""], ids=["replaced", "emptied"])
async def test_a_file_that_is_not_the_one_before_stops_the_import(export, path, content):
    path.write_bytes(HEADER + b"1;o-1;12,50\r\n")
    batch = await export().poll()
    path.write_bytes(content)
    with pytest.raises(ImportStopped, match="was replaced or shortened"):
        await export({batch.source: batch.position}).poll()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1;o-1", "row has 2 values, not 3"),
        (b'1;"o-1;2,00', "row is no CSV"),
        (b"1;o-\x81;2,00", "row must be cp1252"),
    ],
)
async def test_a_line_that_cannot_be_parsed_is_a_row_with_a_reason(export, path, line, reason):
    path.write_bytes(HEADER + line + b"\r\n2;o-2;1,00\r\n")
    bad, good = await all_rows(export())
    assert bad.raw == line
    assert reason in bad.error
    assert good.error is None


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"NO": "1", "ORDER": "o", "AMOUNT": "cheap"}, r"amount \(column AMOUNT\) must be an amount such as 9.90"),
        ({"NO": "1", "ORDER": "", "AMOUNT": "1"}, r"orderId \(column ORDER\) is missing"),
        ({"NO": "1", "AMOUNT": "1,00001"}, "orderId .* has no column ORDER in the source; amount .* at most 4 digits"),
    ],
)
def test_a_row_without_a_valid_message_names_field_and_column(mapping, columns, reason):
    with pytest.raises(InvalidRow, match=reason):
        Converter(mapping(CSV)).convert(columns)


async def test_fixed_width_with_zero_padded_numbers_and_coded_values(export, mapping, tmp_path):
    line = f"{42:06}{'Zoë':10}{'Brook':10}{'zoe@example.org':30}A"
    (tmp_path / "crm.txt").write_text(f"{line}\n{line[:-1]}X\n", "utf-8")
    good, bad = await all_rows(export(text=FIXED))
    [customer] = messages(mapping(FIXED), [good])
    assert (customer.id, customer.first_name, customer.email, customer.level) == (42, "Zoë", "zoe@example.org", "gold")
    with pytest.raises(InvalidRow, match=r"level \(column CLASS\) must be one of A, B"):
        Converter(mapping(FIXED)).convert(bad.columns)


@pytest.mark.parametrize(
    ("text", "number"), [("0001250", "12.50"), ("7", "0.07"), ("-0100", "-1.00")], ids=lambda value: value
)
def test_digits_without_a_point(mapping, text, number):
    own = mapping(CSV.replace("comma = true", "digits = 2"))
    [amount] = messages(own, [type("Row", (), {"columns": {"NO": "1", "ORDER": "o", "AMOUNT": text}})])
    assert str(amount.amount) == number


async def test_a_first_line_without_the_columns_stops_the_import(export, path):
    path.write_bytes(b"NO,ORDER,AMOUNT\n1,o,1\n")
    with pytest.raises(ImportStopped, match=r"pay.csv:1: column NO, ORDER, AMOUNT is missing.*`separator`"):
        await export().poll()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('topic = "payments"', 'topic = "orders"', "topic must be one of customers, payments, warehouse-inventory"),
        ("orderId", "order", "fields: order is no field of payments"),
        ('orderId = "ORDER"\n', "", "fields: orderId of payments is missing"),
        ("cp1252", "utf-16", "source.csv.encoding 'utf-16' is no encoding such as"),
        ('kind = "csv"', 'kind = "xml"', "source"),
        ("comma = true", "coma = true", "fields.amount.coma"),
        ("[fields]", "[fields", "no TOML"),
    ],
)
def test_a_wrong_mapping_names_the_entry_and_the_remedy(mapping, old, new, reason):
    assert isinstance(mapping(CSV), ImportMapping)
    with pytest.raises(ImportStopped) as stopped:
        mapping(CSV.replace(old, new))
    assert reason in str(stopped.value)
