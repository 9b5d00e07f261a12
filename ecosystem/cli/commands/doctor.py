"""`orders doctor`: checks a deployment, and says what mends it."""

import json
import sys
from dataclasses import asdict

import click
from rich.console import Console
from rich.markup import escape

from ecosystem.cli import discovery
from ecosystem.cli.commands.shared import Real, bootstrap_option, perform
from ecosystem.clients.readable import printable
from ecosystem.clients.wording import counted
from ecosystem.doctor.finding import Finding, Level

_STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}


@click.command()
@click.option("--json", "json_", is_flag=True, help="Print one JSON object per finding")
@click.option(
    "--timeout", type=Real(0.1, 600), default=20.0, show_default=True, metavar="SECONDS", help="Limit of each check"
)
@bootstrap_option
def doctor(json_: bool, timeout: float, bootstrap: str | None) -> None:
    """Check a deployment: what is wrong, why, and what mends it.

    Looks at brokers and their settings, transactions, topics and their settings, keys in wrong partitions, the URLs of
    workers, databases and migrations, clocks, the mail server, and the folder of the state. It reads only: it creates
    no topic, joins no group, commits nothing and sends no e-mail, so it can run beside workers in production.

    Give it the environment of a worker. Exit code 1 if there is a problem; warnings alone give 0.

    \b
    orders doctor
    orders doctor --json | jq 'select(.level != "ok")'
    """
    from ecosystem.doctor.run import diagnose

    found = perform(diagnose(discovery.settings(bootstrap), timeout), bootstrap=bootstrap)
    if json_:
        for finding in found:
            click.echo(json.dumps(asdict(finding)))
    else:
        _show(found)
    if any(finding.level is Level.PROBLEM for finding in found):
        sys.exit(1)


def _show(found: list[Finding]) -> None:
    console = Console(highlight=False)
    width = max(len(finding.check) for finding in found)
    for finding in found:
        style = _STYLES[finding.level]
        what = escape(printable(finding.what))
        console.print(f"[{style}]{finding.level:<8}[/] {finding.check:<{width}}  {what}", soft_wrap=True)
        if finding.level is not Level.OK:
            for name, text in (("why", finding.why), ("mend", finding.remedy)):
                console.print(f"{'':{9 + width}}  [dim]{name}:[/] {escape(printable(text))}", soft_wrap=True)
    counts = {level: sum(finding.level is level for finding in found) for level in Level}
    problems, warnings = counts[Level.PROBLEM], counts[Level.WARNING]
    console.print(f"{counted(problems, 'problem')}, {counted(warnings, 'warning')}")
