"""Files of other projects, read where their Go modules are published: the repository keeps no copy of them."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple


class NotInstalled(Exception):
    """A tool or file is missing and cannot be fetched. The text says what to install."""


class Module(NamedTuple):
    """A Go module: its path, its version, and the checksum of its files as in go.sum."""

    path: str
    version: str
    checksum: str


COMPOSE = Module("github.com/compose-spec/compose-go/v2", "v2.16.2", "h1:pTp1DqQwJzFd85GzlWsSszKA1ABrV/ySqsClujIcWA8=")
"""The compose specification's own parser. `schema/compose-spec.json` is the schema of compose files."""

ASYNCAPI = Module(
    "github.com/asyncapi/spec-json-schemas/v6", "v6.11.1", "h1:TE0iIAOsYWnEGf78hSaWxtaXJZCHRfqX+x4Y2OMEunc="
)
"""The schemas of AsyncAPI documents, one for each version of the specification."""


def go() -> str:
    """The `go` command. Raises `NotInstalled`."""
    if found := shutil.which("go") or shutil.which("/usr/local/go/bin/go"):
        return found
    raise NotInstalled("there is no Go (apt install golang-go)")


def folder_of(module: Module) -> Path:
    """The files of a module, downloaded once into Go's module cache. Raises `NotInstalled`."""
    command = [go(), "mod", "download", "-json", f"{module.path}@{module.version}"]
    with tempfile.TemporaryDirectory() as outside_of_any_module:
        done = subprocess.run(
            command,
            cwd=outside_of_any_module,
            env=os.environ | {"GOFLAGS": "-mod=mod"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
    try:
        found = json.loads(done.stdout)
    except ValueError:
        found = {"Error": done.stderr.strip()[-500:]}
    if "Dir" not in found:
        raise NotInstalled(f"{' '.join(command[1:])} failed: {found.get('Error')}")
    assert found["Sum"] == module.checksum, f"{module.path}@{module.version} is not what it was: {found['Sum']}"
    return Path(found["Dir"])
