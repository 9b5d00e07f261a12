"""`orders asyncapi`: topics and messages of all services as one AsyncAPI document."""

import json

import click

from ecosystem import services


@click.command()
def asyncapi() -> None:
    """Print topics and messages of all services as AsyncAPI.

    The document names the producers and consumers of each message. Brokers, prefix, partitions and replicas come from
    the environment. A worker serves the document of its own services at /asyncapi.json.

    \b
    orders asyncapi > docs/asyncapi.json
    """
    from runtime.common.settings import Settings
    from runtime.http.asyncapi import document

    settings = Settings()
    click.echo(json.dumps(document(services.build_all(settings), settings, catalogue=True), indent=2))
