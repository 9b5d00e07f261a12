"""`docker-compose.yml` as Compose reads it: variables filled in, services of the chosen profiles."""

import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[2]

_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?::-([^}]*))?\})")


class Mount(NamedTuple):
    """A file of the repository, or of `configs`, and its path in the container; `source` is None for a volume."""

    source: Path | None
    target: str


class Container(NamedTuple):
    """A service of the file."""

    name: str
    image: str
    command: list[str]
    environment: dict[str, str]
    mounts: list[Mount]
    aliases: list[str]
    depends_on: dict[str, str]
    health: list[str]


def read(profile: str, folder: Path, variables: dict[str, str] | None = None) -> dict[str, Container]:
    """The services of a profile, and those without one. Texts of `configs` are written to files below `folder`."""
    raw = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    document = _filled(raw, variables or {})
    files = {}
    for name, config in document["configs"].items():
        files[name] = folder / f"config-{name}"
        files[name].write_text(config["content"])
    chosen = {n: s for n, s in document["services"].items() if profile in s.get("profiles", [profile])}
    return {name: _container(name, service, files) for name, service in chosen.items()}


def _filled(value: Any, variables: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner, variables) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, variables) for inner in value]
    if isinstance(value, str):
        return _VARIABLE.sub(lambda m: m[1] or variables.get(m[2], m[3] or ""), value)
    return value


def _container(name: str, service: dict[str, Any], files: dict[str, Path]) -> Container:
    mounts = [Mount(files[config["source"]], config["target"]) for config in service.get("configs", [])]
    for volume in service.get("volumes", []):
        source, target, *_ = volume.split(":")
        mounts.append(Mount(ROOT / source if source.startswith(".") else None, target))
    depends = service.get("depends_on", {})
    test = service.get("healthcheck", {}).get("test", [])
    return Container(
        name,
        service["image"],
        [*_words(service.get("entrypoint", [])), *_words(service.get("command", []))],
        {key: str(value) for key, value in service.get("environment", {}).items()},
        mounts,
        service.get("networks", {}).get("default", {}).get("aliases", []),
        {key: value["condition"] for key, value in depends.items()},
        test[1:] if test[:1] == ["CMD"] else [],
    )


def _words(command: str | list[str]) -> list[str]:
    return shlex.split(command) if isinstance(command, str) else command
