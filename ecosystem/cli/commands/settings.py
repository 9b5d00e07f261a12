"""`orders settings`: all settings of workers as Markdown."""

from collections import Counter
from collections.abc import Iterable

import click
from pydantic.fields import FieldInfo

from ecosystem import services
from runtime.common.database_settings import DatabaseSettings
from runtime.common.kafka_settings import KafkaSettings
from runtime.common.settings import Settings
from runtime.tracing.settings import TraceSettings

_INTRODUCTION = """\
# Settings

A worker is configured by environment variables: those of the runtime (`runtime/common/settings.py`), and those of its
services (`settings.py` of each). Numbers are plain digits. A password, key or URL of a database may also be in a file:
`SMTP_PASSWORD_FILE` names that of `SMTP_PASSWORD`. Which of them matter in production: `docs/how-to/deploy.md`. This
page is the output of `orders settings`."""

_OF_COMMANDS = """\
## Read by the `orders` command

| variable | default | meaning |
| --- | --- | --- |
| `ORDERS_URL`, `FULFILMENT_URL`, `PORTAL_URL`, `PRODUCTS_URL` | what `orders up` runs, else port 8080 | Base URLs of the services |
| `CHECKIN_URL` | what `orders up` runs, else port 3000 | Base URL of the check-in service |
| `ORDERS_DATA` | `.data` | Where `orders up` keeps its data |
| `FAUST_ORDERS_CACHE` | `~/.cache/faust-orders` | Where Kafka's jars are kept |

`orders up` sets port and state folder of each of its workers; everything else in the environment reaches them
unchanged. It skips ports that are in use; two that start at the same time, each on data of its own, choose different
ports."""  # noqa: E501  a row of a table is one line


@click.command()
def settings() -> None:
    """Print the settings of runtime and services as Markdown.

    Includes the services of all installed packages.

    \b
    orders settings > docs/reference/settings.md
    """
    click.echo(page())


def page() -> str:
    """Returns the page: tables of the runtime, of traces, of what several services read, and of each service."""
    by_service = {name: _fields(name) for name in services.NAMES}
    readers = Counter(field for fields in by_service.values() for field in fields)
    shared = {name: field for fields in by_service.values() for name, field in fields.items() if readers[name] > 1}
    kafka, database = KafkaSettings.model_fields, DatabaseSettings.model_fields
    runtime = {name: info for name, info in Settings.model_fields.items() if name not in {*kafka, *database}}
    tables = [
        _table("Connection to Kafka", kafka.items()),
        _table("Connection to PostgreSQL", database.items()),
        _table("Runtime", runtime.items()),
        _table("Traces", TraceSettings.model_fields.items()),
        _table("Several services", shared.items()),
    ]
    for name, fields in by_service.items():
        if own := {field: info for field, info in fields.items() if field not in shared}:
            tables.append(_table(f"`{name}`", own.items()))
    return "\n\n".join([_INTRODUCTION, *tables, _OF_COMMANDS])


def _fields(service: str) -> dict[str, FieldInfo]:
    return {name: info for kind in services.SETTINGS.get(service, ()) for name, info in kind.model_fields.items()}


def _table(title: str, fields: Iterable[tuple[str, FieldInfo]]) -> str:
    rows = [f"| `{name.upper()}` | {_shown(info.default)} | {info.description} |" for name, info in fields]
    return "\n".join([f"## {title}", "", "| variable | default | meaning |", "| --- | --- | --- |", *rows])


def _shown(default: object) -> str:
    if default is None or default in {"", ()}:
        return "none"
    return f"`{','.join(map(str, default))}`" if isinstance(default, tuple) else f"`{default}`"
