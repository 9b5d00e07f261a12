"""Customers from a CSV file: what is sound is read, and what is not is told by line and field."""

import csv
import io

import pytest

from ecosystem.cli.csv_files import MAX_ERRORS_SHOWN, InvalidFile
from ecosystem.cli.customer_import import SCHEMA, check_file, read_file

HEADER = ",".join(SCHEMA.columns)
SOUND = '15,Franz,Kafka,franz@example.org,"Oppelthaus, Praha",gold'


@pytest.fixture
def csv_file(tmp_path):
    def written(*lines, encoding="utf-8"):
        path = tmp_path / "customers.csv"
        path.write_bytes("\n".join(lines).encode(encoding))
        return path

    return written


def test_sound_rows_are_read(csv_file):
    path = csv_file(
        "\ufeff" + HEADER, SOUND, "", " 16 , Max , Brod ,max@example.org,Praha,", '17,Ž,"O""Hara",z@example.org,"a\nb"'
    )
    assert check_file(path) == 3
    franz, max_, z = read_file(path)
    assert franz.model_dump() == {
        "id": 15,
        "first_name": "Franz",
        "last_name": "Kafka",
        "email": "franz@example.org",
        "address": "Oppelthaus, Praha",
        "level": "gold",
    }
    assert (max_.id, max_.first_name, max_.level) == (16, "Max", "bronze")
    assert (z.first_name, z.last_name, z.address) == ("Ž", 'O"Hara', "a\nb")


def row(**changes):
    values = dict(zip(SCHEMA.columns, next(csv.reader([SOUND])), strict=True)) | changes
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values.values())
    return text.getvalue().rstrip("\n")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (row(id="x"), "3: id must be a whole number such as 15"),
        (row(id=""), "3: id must be a whole number such as 15"),
        (row(id=str(2**63)), f"3: id must be at most {2**63 - 1}"),
        (row(firstName=""), "3: firstName must not be empty"),
        (row(lastName="a\nb"), "4: lastName must be printable text on one line"),
        (row(lastName="x" * 201), "3: lastName must have at most 200 characters"),
        (row(email="franz"), "3: email must be an address such as franz@example.org"),
        (row(email="franz@"), "3: email must be an address"),
        (row(email=""), "3: email must be an address"),
        (row(email="a@b.c, d@e.f"), "3: email must be an address"),
        (row(email="ž@example.org"), "3: email must be an address"),
        (row(address=" "), "3: address must not be empty"),
        (row(level="gould"), "3: level must be 'platinum', 'gold', 'silver' or 'bronze'"),
        (row(id="15"), "3: id occurs in line 2 already: each customer must occur once"),
        ("16,Max", "3: email is missing"),
        (row(id="16") + ",more", "3: row has more values"),
        ('16,"Max', "3: row is no CSV"),
    ],
)
def test_what_is_wrong_is_told_with_file_line_field_and_what_to_do(csv_file, bad, said):
    path = csv_file(HEADER, SOUND, bad)
    with pytest.raises(InvalidFile) as caught:
        check_file(path)
    assert f"{path}:{said}" in str(caught.value)


def test_what_is_not_utf_8_is_told(csv_file):
    path = csv_file(HEADER, SOUND.replace("Kafka", "Käfka"), encoding="latin-1")
    with pytest.raises(InvalidFile, match=r":2: lastName must be UTF-8$"):
        check_file(path)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("", "id is missing: the first line names the columns, id,firstName,lastName,email,address,level"),
        (HEADER.replace("email", "mail"), "email is missing"),
        (HEADER.replace("level", "levl"), "'levl' is not a column: the columns are id, firstName"),
        (HEADER + ",id", "id occurs twice"),
        (HEADER.replace(",", ";"), "firstName is missing"),
    ],
)
def test_what_is_wrong_with_the_columns_is_told_once(csv_file, header, said):
    path = csv_file(header, "x" if header else "", "y")
    with pytest.raises(InvalidFile) as caught:
        check_file(path)
    assert f"{path}:1: {said}" in str(caught.value)
    assert ":2:" not in str(caught.value)


def test_all_faults_are_told_up_to_a_number(csv_file):
    path = csv_file(HEADER, *[row(id=str(n), email="x", level="y") for n in range(MAX_ERRORS_SHOWN)])
    with pytest.raises(InvalidFile) as caught:
        check_file(path)
    *shown, last = str(caught.value).splitlines()
    assert [line.split(" ")[:2] for line in shown[:3]] == [
        [f"{path}:2:", "email"],
        [f"{path}:2:", "level"],
        [f"{path}:3:", "email"],
    ]
    assert (len(shown), last) == (MAX_ERRORS_SHOWN, f"and {MAX_ERRORS_SHOWN} more")


def test_a_file_that_changed_since_is_not_read_on(csv_file):
    path = csv_file(HEADER, SOUND, row(id="x"))
    customers = read_file(path)
    assert next(customers).id == 15
    with pytest.raises(InvalidFile, match=":3: id"):
        next(customers)
