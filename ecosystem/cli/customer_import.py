"""Customers of a CSV file: checked more strictly than the customers that services read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from ecosystem.cli.csv_files import CsvError, CsvSchema, InvalidFile, open_csv
from schemas.addresses import address
from schemas.messages import Customer, CustomerLevel


def _addressable(email: str) -> str:
    try:
        address(email)
    except ValueError:
        raise PydanticCustomError("email", "must be an address such as franz@example.org") from None
    return email


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise PydanticCustomError("one_line", "must be printable text on one line")
    return text


def _text(text: str) -> str:
    if not all(c.isprintable() or c in "\r\n\t" for c in text):
        raise PydanticCustomError("text", "must be text without control characters")
    return text


_Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_one_line)]


class NewCustomer(Customer):
    """A customer with all fields, a level that exists, and an address that e-mails can be sent to."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    first_name: _Name
    last_name: _Name
    email: Annotated[str, Field(max_length=254), AfterValidator(_addressable)]  # RFC 5321, 4.5.3.1.3
    address: Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_text)]
    level: CustomerLevel = CustomerLevel.BRONZE


SCHEMA = CsvSchema(NewCustomer, "id", "customer")


def check_file(path: Path) -> int:
    """Counts the customers of a file. Raises `InvalidFile` with all errors in it, and `OSError`."""
    count, errors = 0, list[CsvError]()
    with open_csv(path) as file:
        for row in SCHEMA.rows(file):
            if isinstance(row, CsvError):
                errors.append(row)
            else:
                count += 1
    if errors:
        raise InvalidFile(str(path), errors)
    return count


def read_file(path: Path) -> Iterator[NewCustomer]:
    """Yields the customers of a checked file. Raises `InvalidFile` where it has changed since the check."""
    with open_csv(path) as file:
        for row in SCHEMA.rows(file):
            if isinstance(row, CsvError):
                raise InvalidFile(str(path), [row])
            yield row
