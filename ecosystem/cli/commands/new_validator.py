"""`orders new-validator`: write the skeleton of a validator."""

from pathlib import Path

import click

from ecosystem import services
from ecosystem.cli import validator_skeleton


@click.command("new-validator")
@click.argument("name")
def new_validator(name: str) -> None:
    """Write the package of a validator into this directory.

    It has a rule, a setting, the declaration and a test, all of which work at once. Change the rule and install it
    beside this package (docs/tutorial/add-a-validator.md).

    \b
    orders new-validator bulk        writes bulk_check/
    """
    if name in services.NAMES:
        raise click.UsageError(f"there is a service {name!r} already: choose another NAME")
    try:
        files = validator_skeleton.skeleton(name)
    except validator_skeleton.InvalidName as error:
        raise click.UsageError(f"NAME {error}") from error
    folder = next(iter(files)).partition("/")[0]
    try:
        validator_skeleton.write(files, Path())
    except FileExistsError as error:
        raise click.UsageError(f"{folder} exists already: choose another NAME, or another directory") from error
    except OSError as error:
        raise click.ClickException(f"cannot write {error.filename or folder}: {error.strerror}") from error
    for path in files:
        click.echo(path)
