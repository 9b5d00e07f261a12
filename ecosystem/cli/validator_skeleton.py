"""Skeleton of a package with one validator, as `orders new-validator` writes it."""

import re
from pathlib import Path

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_NAME_LENGTH = 25
"""The lines with the name stay short."""


class InvalidName(ValueError):
    """A name that a validator cannot have. The text says what it must be."""


def skeleton(name: str) -> dict[str, str]:
    """Returns the files of the package: contents by path, which begins with the package's folder.

    Arguments:
        name: name of the service, such as `bulk`; package and check are named after it.

    Raises `InvalidName`.

    >>> list(skeleton("bulk"))[:2]
    ['bulk_check/README.md', 'bulk_check/pyproject.toml']
    """
    if not _NAME.fullmatch(name) or len(name) > _NAME_LENGTH:
        raise InvalidName(
            f"{name!r} must begin with a letter and have up to {_NAME_LENGTH} small letters, digits and single "
            "hyphens, as in `bulk`"
        )
    snake = name.replace("-", "_")
    values = {
        "<name>": name,
        "<package>": f"{snake}_check",
        "<distribution>": f"{name}-check",
        "<snake>": snake,
        "<Class>": "".join(map(str.capitalize, name.split("-"))) + "Settings",
        "<CHECK>": f"{snake.upper()}_CHECK",
        "<LIMIT>": f"{snake.upper()}_LIMIT",
    }
    return {_fill(f"<package>/{path}", values): _fill(text, values) for path, text in _FILES.items()}


def write(files: dict[str, str], folder: Path) -> None:
    """Writes the files. Raises `FileExistsError` if the package's folder is there."""
    package = folder / next(iter(files)).partition("/")[0]
    package.mkdir()
    for path, text in files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text, "utf-8")


def _fill(text: str, values: dict[str, str]) -> str:
    for key, value in values.items():
        text = text.replace(key, value)
    return text


_README = """\
# <CHECK>

A validator of Faust Orders: an order of more pieces than `<LIMIT>` fails.

```sh
python -m pip install --editable .
python -m pytest tests
orders run <name>
```
"""

_PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "<distribution>"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["faust-orders"]

[project.entry-points."faust_orders.services"]
<name> = "<package>.app:build"

[tool.setuptools]
packages = ["<package>"]

[tool.pytest.ini_options]
pythonpath = ["."]
asyncio_default_fixture_loop_scope = "function"

[tool.ruff]
line-length = 120
lint.extend-select = ["B", "I", "UP"]
"""

_INIT = '''\
"""Validator <CHECK>."""
'''

_APP = '''\
"""<CHECK>: fails orders of too many pieces."""

from functools import partial

from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.validator import validator

from .processors import judge
from .settings import <Class>


def build(settings: Settings) -> ServiceDefinition:
    """Builds the service definition."""
    rule = partial(judge, limit=settings.of(<Class>).<snake>_limit)
    return validator("<name>", "<CHECK>", judge=rule)
'''

_PROCESSORS = '''\
"""The rule of <CHECK>. Pure."""

from runtime.model.service import Context
from schemas.messages import Order


def judge(order: Order, ctx: Context, limit: int) -> str | None:
    """Returns why the order fails; `None` if it passes."""
    if order.quantity > limit:
        return f"the order has {order.quantity} pieces, the limit is {limit}"
    return None
'''

_SETTINGS = '''\
"""Settings of <CHECK>: each field is an environment variable."""

from pydantic import Field
from runtime.common.settings import ServiceSettings


class <Class>(ServiceSettings):
    """Limit of an order."""

    <snake>_limit: int = Field(default=20, gt=0, description="Orders above it fail")
'''

_TEST = '''\
"""<CHECK> in memory, with virtual time and without a broker."""

from decimal import Decimal

from runtime.common.settings import Settings
from runtime.testing import TopologyTestDriver
from schemas.messages import Order
from schemas.topics import ORDER_VALIDATIONS, ORDERS

from <package>.app import build


def verdict(quantity: int) -> tuple[str, str | None]:
    """Returns result and reason of the verdict on an order of this quantity, at 12 each."""
    driver = TopologyTestDriver(build(Settings(<snake>_limit=20)).service)
    order = Order(id="o-1", customer_id=7, product="mug", quantity=quantity, price=Decimal(12), created_at=driver.now)
    driver.send(ORDERS, order)
    [found] = driver.values(ORDER_VALIDATIONS)
    assert found.check_type == "<CHECK>"
    return found.validation_result, found.reason


def test_a_small_order_passes() -> None:
    assert verdict(quantity=1) == ("PASS", None)


def test_an_order_above_the_limit_fails_with_the_reason() -> None:
    result, reason = verdict(quantity=21)
    assert result == "FAIL"
    assert reason is not None
    assert "the limit is 20" in reason
'''

_FILES = {
    "README.md": _README,
    "pyproject.toml": _PYPROJECT,
    "<package>/__init__.py": _INIT,
    "<package>/app.py": _APP,
    "<package>/processors.py": _PROCESSORS,
    "<package>/settings.py": _SETTINGS,
    "tests/test_<package>.py": _TEST,
}
