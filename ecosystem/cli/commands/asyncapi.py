"""`orders asyncapi`: the topics and messages, for programs."""

import json

import click

from ecosystem import services


@click.command()
def asyncapi() -> None:
    """Print topics and messages of all services as AsyncAPI.

    The document also says who sends and who receives each message. Brokers, prefix, partitions and replicas are those
    of the environment. Workers serve it at /asyncapi.json, for the services they run.

    \b
    orders asyncapi > docs/asyncapi.json
    """
    from runtime.common.settings import Settings
    from runtime.http.asyncapi import document

    settings = Settings()
    click.echo(json.dumps(document(services.build(services.NAMES, settings), settings, catalogue=True), indent=2))
