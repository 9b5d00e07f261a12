"""Runs `python -m bench.compare` as a user does."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


async def compared(out: Path, *options: str) -> tuple[dict[str, Any], str]:
    """Runs the bench with these options. Returns the report, which it writes to `out`, and what it prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.compare", *options, "--json", str(out)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    text = (await process.communicate())[0].decode()
    assert process.returncode == 0, text
    return json.loads(out.read_text()), text
