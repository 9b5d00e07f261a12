"""A producer on franz-go, the pure Go client, built once from `franz/main.go`."""

import asyncio
import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.foreign.record import Foreign, Place, WriteError

SOURCE = Path(__file__).with_name("franz")
_USUAL_PLACE = "/usr/local/go/bin"
_BUILD_S = 300


def build(folder: Path) -> Path:
    """The program. Skips the test where there is no Go, or no way to the modules."""
    go = shutil.which("go", path=os.pathsep.join((os.environ.get("PATH", ""), _USUAL_PLACE)))
    if go is None:
        pytest.skip("franz-go writes nothing: Go is not installed")
    program = folder / "franz"
    command = [go, "build", "-o", str(program), "."]
    done = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, timeout=_BUILD_S)
    if done.returncode and "dial tcp" in done.stderr:
        pytest.skip(f"franz-go writes nothing: its modules cannot be fetched: {done.stderr[:200]}")
    assert done.returncode == 0, done.stderr
    return program


class Franz:
    """`tests.foreign.record.Writer`."""

    def __init__(self, program: Path, servers: str) -> None:
        self._command = [str(program), servers]

    async def write(self, record: Foreign) -> Place:
        process = await asyncio.create_subprocess_exec(*self._command, stdin=-1, stdout=-1, stderr=-1)
        said, complaint = await process.communicate(json.dumps(_fields(record)).encode() + b"\n")
        assert process.returncode == 0, complaint.decode()
        place = json.loads(said)
        if place["Error"]:
            raise WriteError(place["Error"])
        return Place(place["Partition"], place["Offset"])

    async def stop(self) -> None:
        pass


def _fields(record: Foreign) -> dict:
    return {
        "Topic": record.topic,
        "Key": _base64(record.key),
        "Value": _base64(record.value),
        "Headers": [{"Name": _base64(name), "Value": _base64(value)} for name, value in record.headers],
        "Partition": record.partition,
        "TimestampMs": record.timestamp_ms,
        "Codec": record.codec,
        "Partitioner": record.partitioner or "",
        "Transaction": record.transaction or "",
    }


def _base64(raw: bytes | None) -> str | None:
    return None if raw is None else base64.b64encode(raw).decode()
