"""A progress bar on a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Report = Callable[[str, int, int | None], None]
"""Called with what is done now, how much of it, and of how much."""


@contextmanager
def progress() -> Iterator[Report]:
    """Shows what is reported as a bar on standard error, if that is a terminal."""
    errors = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("connecting", total=None)
        yield lambda doing, done, total: bar.update(task, description=doing, completed=done, total=total)
