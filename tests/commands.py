"""The command `orders`, run as a process."""

import asyncio
import os
import sys

from tests.workers import PATIENCE_S


async def orders(deployment, *arguments, **environment):
    """Runs `orders` in the deployment. Returns the exit code and the output."""
    mine = {"KAFKA_BOOTSTRAP_SERVERS": deployment.servers, "TOPIC_PREFIX": deployment.prefix, **environment}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ecosystem.cli", *arguments, env=os.environ | mine, stdout=-1, stderr=-2
    )
    async with asyncio.timeout(PATIENCE_S):
        said, _ = await process.communicate()
    return process.returncode, said.decode()
