"""Runs a short test of the core on several versions of Kafka: `make kafka-versions`.

Each version is resolved and fetched from Maven Central, and started by the recipe of the embedded Kafka. Without
arguments: the newest patch of 3.7, 3.9, 4.0 and 4.1, and the newest release. Prints a table in Markdown.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ecosystem.embedded.kafka import Cluster, KafkaError
from ecosystem.embedded.kafka.install import cache_dir

LINES = ("3.7", "3.9", "4.0", "4.1")
TESTS = ("tests/e2e/test_one_order.py", "tests/integration/test_exactly_once.py")
_GROUP, _ARTIFACT = "org.apache.kafka", "kafka_2.13"
_TIMEOUT_S = 600


def newest() -> list[str]:
    """The newest patch of each line, and the newest release, as Maven Central has them."""
    from jgo.maven import MavenContext

    project = MavenContext().project(_GROUP, _ARTIFACT)
    project.update()
    releases = [v for v in project.metadata.versions if all(part.isdigit() for part in v.split("."))]
    releases.sort(key=lambda version: [int(part) for part in version.split(".")])
    of_lines = [[v for v in releases if v.startswith(f"{line}.")][-1] for line in LINES]
    return list(dict.fromkeys([*of_lines, releases[-1]]))


def jars(version: str) -> list[Path]:
    """The class path of a version, with all its dependencies; fetched once."""
    import jgo
    from jgo.maven import PythonResolver

    folder = cache_dir(Path(tempfile.gettempdir())) / "kafka-versions" / version
    built = jgo.build(f"{_GROUP}:{_ARTIFACT}:{version}", cache_dir=folder, resolver=PythonResolver())
    found = sorted(Path(built.path).rglob("*.jar"))
    if not found:
        raise KafkaError(f"Maven Central has no {_ARTIFACT} {version}")
    return found


def tried(version: str, home: Path) -> tuple[bool, str]:
    """Whether the tests pass on a version, and how long they took, or why they did not."""
    with Cluster(home / version, jars=jars(version)) as cluster:
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", *TESTS],
            env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": cluster.bootstrap_servers},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
        last = done.stdout.strip().splitlines()[-1:] or ["no output"]
        return done.returncode == 0, f"{time.monotonic() - started:.0f} s" if done.returncode == 0 else last[0]


def main(versions: list[str]) -> int:
    failed = False
    print("| Kafka | result |\n| --- | --- |", flush=True)
    with tempfile.TemporaryDirectory(prefix="kafka-versions-") as home:
        for version in versions or newest():
            try:
                passed, detail = tried(version, Path(home))
            except (KafkaError, subprocess.TimeoutExpired, RuntimeError) as error:
                passed, detail = False, str(error)
            failed = failed or not passed
            print(f"| {version} | {'passed' if passed else 'failed'}, {detail} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
