"""The `orders` command."""

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click
from pydantic import ValidationError

from ecosystem.cli.commands.asyncapi import asyncapi
from ecosystem.cli.commands.audit import audit
from ecosystem.cli.commands.backlog import backlog
from ecosystem.cli.commands.cancel import cancel
from ecosystem.cli.commands.checkin import checkin
from ecosystem.cli.commands.checks import checks
from ecosystem.cli.commands.customers import customers
from ecosystem.cli.commands.dead_letters import dead_letters
from ecosystem.cli.commands.doctor import doctor
from ecosystem.cli.commands.generate import generate
from ecosystem.cli.commands.get import get
from ecosystem.cli.commands.history import maintain
from ecosystem.cli.commands.import_ import import_
from ecosystem.cli.commands.new_validator import new_validator
from ecosystem.cli.commands.past import explain, history, list_
from ecosystem.cli.commands.pay import pay
from ecosystem.cli.commands.post import post
from ecosystem.cli.commands.products import products
from ecosystem.cli.commands.rebuild import rebuild
from ecosystem.cli.commands.replay import replay
from ecosystem.cli.commands.run import run
from ecosystem.cli.commands.settings import settings
from ecosystem.cli.commands.stock import stock
from ecosystem.cli.commands.tail import tail
from ecosystem.cli.commands.timings import timings
from ecosystem.cli.commands.topics import topics
from ecosystem.cli.commands.up import up
from ecosystem.cli.commands.watch import watch
from ecosystem.cli.commands.webhooks import webhooks
from ecosystem.cli.commands.what_if import what_if
from ecosystem.cli.output import CLOSED_PIPE, OutputError, guarded
from ecosystem.entry_points import ServiceError
from ecosystem.services import InvalidSettings
from runtime.common.settings import settings_classes
from schemas.validation import field_errors


class _Main(click.Group):
    """Group whose commands all end in the same way when output cannot be written (`ecosystem/cli/output.py`)."""

    def main(self, *args: Any, **extra: Any) -> Any:
        with guarded() as output:
            try:
                try:
                    return super().main(*args, **extra)
                finally:
                    sys.stdout.flush()
            except ValidationError as error:
                if error.title not in {kind.__name__ for kind in settings_classes()}:
                    raise
                _exit_for_settings([error])
            except InvalidSettings as error:
                _exit_for_settings(error.errors)
            except ServiceError as error:
                click.echo(f"Error: {error}", err=True)
                sys.exit(2)
            except UnicodeEncodeError as error:  # an argument that is not UTF-8
                click.echo(f"Error: {error.object!a} is not UTF-8 text", err=True)
                sys.exit(2)
            except OutputError:
                pass
            finally:
                if output.closed:
                    sys.exit(CLOSED_PIPE)
                if output.failure is not None:
                    click.echo(f"Error: cannot write to standard output: {output.failure.strerror}", err=True)
                    sys.exit(1)


def _exit_for_settings(errors: Sequence[ValidationError]) -> NoReturn:
    wrong = [(invalid.field.partition(".")[0], invalid.reason) for error in errors for invalid in field_errors(error)]
    for name, reason in dict.fromkeys(wrong):  # several services may read the same variable
        click.echo(f"Error: the environment variable {name.upper()} {reason}", err=True)
    sys.exit(2)


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="faust-orders")
def main() -> None:
    """Order validation on Kafka: run it, generate load, inspect it.

    \b
    orders up                        everything on this machine, Kafka included
    orders post --product mug        place an order and see its outcome
    orders pay my-order              pay it; with `orders checkin` it is shipped
    orders tail                      print messages as they arrive

    Settings come from the environment (KAFKA_BOOTSTRAP_SERVERS, HTTP_PORT, STATE_DIR, ...). Without them every
    command finds what `orders up` started from the same directory.
    """


_COMMANDS = (
    up,
    run,
    post,
    get,
    watch,
    list_,
    history,
    explain,
    cancel,
    pay,
    checkin,
    checks,
    stock,
    products,
    customers,
    webhooks,
    import_,
    generate,
    tail,
    topics,
    asyncapi,
    settings,
    new_validator,
    audit,
    backlog,
    doctor,
    timings,
    dead_letters,
    what_if,
    replay,
    maintain,
    rebuild,
)
for _command in _COMMANDS:
    main.add_command(_command)
