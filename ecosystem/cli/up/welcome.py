"""Texts of `orders up` when it is ready: addresses, and commands that bring an order to SHIPPED."""

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

_JSON = "-H 'Content-Type: application/json'"


def command() -> str:
    """Returns how to call `orders` from here: by its path if it is not on `PATH`."""
    script = Path(sys.executable).with_name("orders")
    if shutil.which("orders") or not script.exists():
        return "orders"
    return shlex.quote(os.path.relpath(script))


def address_lines(addresses: Mapping[str, str]) -> str:
    """Returns one line for each name and its address."""
    width = max(map(len, addresses)) + 1
    return "\n".join(f"  {name:<{width}} {address}" for name, address in addresses.items())


def first_order_commands(url: Callable[[str], str], emails: Path | None) -> str:
    """Returns shell commands that bring an order to SHIPPED, one after the other.

    Arguments:
        url: returns the base URL of a service.
        emails: folder of delivered e-mails; `None` if another mail server delivers them.
    """
    find_email = f"\n  grep -l 'X-Order-Id: my-order' {shlex.quote(str(emails))}/*" if emails else ""
    return f"""\
An order of your own, all the way to SHIPPED:

  curl -s {url("orders")}/v1/orders {_JSON} \\
    -d '{{"id": "my-order", "customerId": 1, "product": "mug", "quantity": 2, "price": 12.00}}'
  curl -s {url("orders")}/v1/orders/my-order/validated
  {command()} pay my-order
  curl -s {url("checkin")}/api/SOA/home/checkin {_JSON} \\
    -d '{{"internetNo": "8850049302", "orderNo": "my-order", "staffCode": "cs_eng_ftth", "jobStatus": "homecheckedin",
         "checkinLatitude": 13.7827811, "checkinLongitude": 100.5465937, "checkinDate": "2021-03-18 10:13:43"}}'
  curl -s {url("fulfilment")}/v1/orders/my-order/fulfilment
  curl -s {url("orders")}/v1/orders/my-order{find_email}

Messages as they arrive: {command()} tail
"""
