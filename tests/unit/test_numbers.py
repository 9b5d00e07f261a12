"""Numbers that people type: plain digits, wherever they are typed."""

import io
from decimal import Decimal

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from ecosystem.cli import customer_import, product_import
from ecosystem.cli.commands.shared import Real, Whole
from ecosystem.cli.csv_files import InvalidFile, decoded
from ecosystem.cli.main import main
from runtime.common.settings import settings_classes
from schemas.numbers import decimal, whole
from tests.unit.test_help import COMMANDS

NO_WHOLE = [
    *(
        "2_000",
        "+5",
        " 5",
        "5 ",
        "5\n",
        "\t5",
        "1e3",
        "1E3",
        "5.0",
        "5.",
        "0x10",
        "0b1",
        "1,000",
        "1 000",
        "--5",
        "- 5",
        "",
        "-",
    ),
    *("\N{ARABIC-INDIC DIGIT THREE}", "\N{FULLWIDTH DIGIT FIVE}", "\N{SUPERSCRIPT TWO}", "1\N{NO-BREAK SPACE}000"),
    *("\N{MINUS SIGN}5", "Infinity", "NaN", "inf", "true", "None", "9" * 5000),
]
NO_DECIMAL = [
    *(text for text in NO_WHOLE if text != "5.0"),
    "1_0.0",
    "1.0_0",
    ".5",
    "1.5e3",
    "sNaN",
    "-Infinity",
    "1.2.3",
    "9,90",
    "1.000,50",
]
"""Text that Python, pydantic or click take for a number, or a person does."""


@pytest.mark.parametrize("text", [*NO_WHOLE, "007", "00", "-0", "-07"])
def test_what_is_no_whole_number_is_refused(text):
    with pytest.raises(ValueError, match="must be a whole number"):
        whole(text)


@pytest.mark.parametrize("text", [*NO_DECIMAL, "007", "007.5", "00.5"])
def test_what_is_no_decimal_number_is_refused(text):
    with pytest.raises(ValueError, match="must be a number"):
        decimal(text)


@pytest.mark.parametrize(
    ("read", "text", "remedy"),
    [
        (whole, "007", "write 7"),
        (whole, "-007", "write -7"),
        (decimal, "09.90", "write 9.90"),
        (decimal, "9,90", "write 9.90"),
    ],
)
def test_the_remedy_is_named(read, text, remedy):
    with pytest.raises(ValueError, match=f"{remedy}$"):
        read(text)


@given(st.integers(-(10**40) + 1, 10**40 - 1))
def test_every_whole_number_has_one_way_to_be_written(number):
    assert whole(str(number)) == decimal(str(number)) == number


@given(st.decimals(min_value=-(10**15), max_value=10**15, places=4))
def test_every_amount_can_be_written(number):
    assert decimal(f"{number:f}") == number


@given(st.text(st.characters(categories=["N", "Z", "P", "S"]), max_size=6))
def test_what_is_read_is_what_is_written(text):
    for read in (whole, decimal):
        try:
            number = read(text)
        except ValueError:
            continue
        assert f"{number:f}" == text if read is decimal else str(number) == text


def params():
    return [(path, param) for path, command in COMMANDS.items() for param in command.params]


def test_every_option_of_every_command_reads_plain_digits():
    loose = click.types.IntParamType, click.types.FloatParamType
    found = [
        (path, p.name) for path, p in params() if isinstance(p.type, loose) and not isinstance(p.type, Whole | Real)
    ]
    assert found == []
    assert sum(isinstance(p.type, Whole | Real) for _, p in params()) >= 20


@pytest.mark.parametrize(
    "arguments",
    [
        ["stock", "set", "mug", "{}"],
        ["post", "--price", "{}"],
        ["post", "--quantity", "{}"],
        [
            "customers",
            "add",
            "{}",
            "--first-name",
            "F",
            "--last-name",
            "K",
            "--email",
            "f@example.org",
            "--address",
            "P",
        ],
        ["checkin", "o1", "--latitude", "{}"],
        ["products", "add", "mug", "Mug", "{}"],
        ["dead-letters", "show", "orders", "{}@1"],
        ["run", "details", "--port", "{}"],
    ],
)
@pytest.mark.parametrize("text", ["2_000", "+5", " 5", "1e3", "\N{ARABIC-INDIC DIGIT THREE}", "NaN", "Infinity"])
def test_no_command_guesses_a_number(arguments, text):
    result = CliRunner().invoke(main, [argument.format(text) for argument in arguments])
    assert (result.exit_code, repr(text)[1:-1] in result.output) == (2, True), result.output


@pytest.mark.parametrize("text", NO_WHOLE[:-1])
def test_settings_are_plain_digits(text, monkeypatch):
    monkeypatch.setenv("PARTITIONS", text)
    result = CliRunner().invoke(main, ["asyncapi"])
    assert result.exit_code == 2
    assert "Error: the environment variable PARTITIONS must be a whole number" in result.output


NUMBERS = [
    (kind, n) for kind in settings_classes() for n, f in kind.model_fields.items() if f.annotation in {int, float}
]


@pytest.mark.parametrize(("kind", "name"), NUMBERS)
def test_every_setting_that_is_a_number_is_plain_digits(kind, name, monkeypatch):
    for text in ("1_0", "+1", " 1 ", "1e1", "\N{ARABIC-INDIC DIGIT THREE}", "inf", "07"):
        monkeypatch.setenv(name.upper(), text)
        with pytest.raises(ValueError, match="must be a"):
            kind()


def rows(form, text):
    return form.read_all("f.csv", decoded(io.BufferedReader(io.BytesIO(text))))


CUSTOMERS = b"id,firstName,lastName,email,address\n"
ROW = b"%s,F,K,f@example.org,Praha\n"


@pytest.mark.parametrize(
    "text", [t for t in NO_WHOLE if t.strip(" ") != "5" and "\n" not in t and "," not in t] + ["007"]
)
def test_an_id_is_plain_digits(text):
    with pytest.raises(InvalidFile, match=r"^f.csv:3: id must be a whole number"):
        rows(customer_import.SCHEMA, CUSTOMERS + ROW % b"1" + ROW % text.encode())


@pytest.mark.parametrize(
    "text", [t for t in NO_DECIMAL if t.strip(" ") != "5" and "\n" not in t and "," not in t] + ["007"]
)
def test_a_price_is_plain_digits(text):
    with pytest.raises(InvalidFile, match=r"^f.csv:2: price must be an amount"):
        rows(product_import.SCHEMA, b"code,name,price\nmug,Mug,%s\n" % text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff{}".encode(),
        "\ufeff{}".encode("utf-16-le"),
        "\ufeff{}".encode("utf-16-be"),
        b"{}",
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_what_spreadsheets_write_is_read(text, end):
    encoding = "utf-16-be" if text[:2] == b"\xfe\xff" else "utf-16-le" if text[:2] == b"\xff\xfe" else "utf-8"
    lines = "code,name,price", '"mug","Mug ""é""",12.50', "", ",,", " , ,", "jug,Jug,1", ",,,"
    mark = "" if text == b"{}" else "\ufeff"
    found = rows(product_import.SCHEMA, (mark + end.join(lines) + end).encode(encoding))
    assert [(row.code, row.name, row.price) for row in found] == [
        ("mug", 'Mug "é"', Decimal("12.50")),
        ("jug", "Jug", Decimal(1)),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            b"code;name;price\nmug;Mug;9,90\n",
            r"1: price is missing: the columns are separated by ';'; separate them by commas",
        ),
        (b"code\tname\tprice\nmug\tMug\t9\n", r"1: code is missing: the columns are separated by tabs"),
        (b"code,name,price\nmug,Mug,9,90\n", r"2: row has more values .* write 9.90 for 9,90"),
        (b'code,name,price\nmug,Mug,"9,90"\n', r"2: price must be an amount with a point, not a comma: write 9.90"),
        (b"code,name,price\nmug,M\x00ug,9\n", r"2: name .*control"),
        (b"code,name,price\nmug\x00,Mug,9\n", r"2: code .*control"),
        (b"code,name,price\nm\xfcg,Mug,9\n", r"2: code must be UTF-8"),
        (b"c\x00o\x00d\x00e\x00", r"1: code is missing"),
        (b"\xff\xfec\x00o", r"1: row must be UTF-16"),
        (b"\xff\xfe" + "code,name,price\nmug,M".encode("utf-16-le") + b"\x00\xd8", r"row must be UTF-16"),
        (b"", r"1: code is missing"),
        (b"\n\n", r"1: code is missing"),
        (b"code,name,price,code\n", r"1: code occurs twice"),
        (b'code,name,price\nmug,"' + b"M" * 200_000, r"row is no CSV: field larger.*; is the quote missing"),
        (b'code,name,price\nmug,"Mug,9\n', r"row is no CSV"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_its_remedy(text, said):
    with pytest.raises(InvalidFile, match=f"f.csv:.*{said}"):
        rows(product_import.SCHEMA, text)


def test_a_file_of_no_rows_is_a_file_of_nothing():
    assert rows(product_import.SCHEMA, b"code,name,price\r\n") == []
    assert rows(product_import.SCHEMA, b"\xef\xbb\xbfcode,name,price") == []
