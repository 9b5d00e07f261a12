"""Customers as people write them down: what more they must have than a customer that is read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from ecosystem.cli.rows import BadFile, CsvError, Form, opened
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
    """A customer with nothing missing, of a level that exists, and with an address that e-mails can be sent to."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    first_name: _Name
    last_name: _Name
    email: Annotated[str, Field(max_length=254), AfterValidator(_addressable)]  # the length: RFC 5321, 4.5.3.1.3
    address: Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_text)]
    level: CustomerLevel = CustomerLevel.BRONZE


FORM = Form(NewCustomer, "id", "customer")


def check(path: Path) -> int:
    """How many customers the file holds. Raises `BadFile` with all that is wrong in it, and `OSError`."""
    count, faults = 0, list[CsvError]()
    with opened(path) as file:
        for row in FORM.rows(file):
            if isinstance(row, CsvError):
                faults.append(row)
            else:
                count += 1
    if faults:
        raise BadFile(str(path), faults)
    return count


def read(path: Path) -> Iterator[NewCustomer]:
    """The customers of a file, which has been checked. Raises `BadFile` where it has changed since."""
    with opened(path) as file:
        for row in FORM.rows(file):
            if isinstance(row, CsvError):
                raise BadFile(str(path), [row])
            yield row
