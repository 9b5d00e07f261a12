"""What `--help` says fits the terminal."""

import click
import pytest
from click.testing import CliRunner

from ecosystem.cli.main import main


def tree(command=main, path=()):
    """Every command and group there is, by the words that lead to it."""
    yield path, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from tree(below, (*path, name))


COMMANDS = dict(tree())


@pytest.mark.parametrize("columns", [80, 100, 200])
@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_is_not_cut(path, columns):
    result = CliRunner().invoke(main, [*path, "--help"], prog_name="orders", env={"COLUMNS": str(columns)})
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert [line for line in lines if len(line) > columns] == []
    assert "<=None" not in result.output
    if not isinstance(COMMANDS[path], click.Group):
        return
    listed = lines[lines.index("Commands:") + 1 :]
    assert [line.split()[0] for line in listed] == sorted(COMMANDS[path].commands), "a line each"
    assert [line for line in listed if "..." in line or "…" in line or not line.endswith(".")] == []
