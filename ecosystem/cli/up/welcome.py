"""What `orders up` says when it is ready: where everything is, and how to bring an order of one's own to SHIPPED."""

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

_JSON = "-H 'Content-Type: application/json'"


def command() -> str:
    """How the reader of this calls `orders`: by its path, as long as it is not on theirs."""
    script = Path(sys.executable).with_name("orders")
    if shutil.which("orders") or not script.exists():
        return "orders"
    return shlex.quote(os.path.relpath(script))


def places(found: Mapping[str, str]) -> str:
    """A line for each name and where it is."""
    width = max(map(len, found)) + 1
    return "\n".join(f"  {name:<{width}} {where}" for name, where in found.items())


def walk(url: Callable[[str], str], emails: Path | None) -> str:
    """Commands for a shell, one after the other, which bring an order to SHIPPED.

    Arguments:
        url: gives the base URL of a service.
        emails: folder of delivered e-mails, if it is ours.
    """
    look = f"\n  grep -l 'X-Order-Id: my-order' {shlex.quote(str(emails))}/*" if emails else ""
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
  curl -s {url("orders")}/v1/orders/my-order{look}

Messages as they arrive: {command()} tail
"""
