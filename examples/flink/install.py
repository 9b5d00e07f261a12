# ruff: noqa: E501
"""Fetches Apache Flink once, into a folder of the cache in which Kafka's jars are kept.

The engine comes from the PyPI package `apache-flink-libraries`, of which only these jars are kept; the Kafka connector
and the SQL gateway, which the SQL client needs, come from Maven Central. All are pinned by SHA-256.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from ecosystem.embedded.kafka.install import cache_dir
from ecosystem.embedded.locks import exclusive_lock
from ecosystem.embedded.maven import JarUnavailable, fetch_jar, jar_name, missing_jars, sha256

VERSION = "2.2.1"

_PACKAGE = f"apache-flink-libraries=={VERSION}"
_OF_PACKAGE = {
    f"lib/flink-cep-{VERSION}.jar": "9c4c0eea99584931dcc0cdbbd904263ba9e1393dc9942330ffa9649b2bce721e",  # the planner loads it
    f"lib/flink-dist-{VERSION}.jar": "4c1afceccc6081c8bcc07dc28ffe5449aabd6ce8699cda171def581acf021197",
    f"lib/flink-json-{VERSION}.jar": "7dbf8a6afab7374eddecee362686bc23fa2af0324bd3f36612e14dd792630edd",
    f"lib/flink-table-api-java-uber-{VERSION}.jar": "ae078ccfcad824f0df0689b0267e934c9d74ce713a0ae8b106deeccfe5cfabd6",
    f"lib/flink-table-planner-loader-{VERSION}.jar": "e6632e829c3cd4afccc7ddd7d8674fc974d46ee22066288be1404c4a500aa696",
    f"lib/flink-table-runtime-{VERSION}.jar": "38838c391c42516d2b270ee09437c3f9d09d1d43ca7fa6147a914dfa40026a52",
    "lib/log4j-api-2.24.3.jar": "5b4a0a0cd0e751ded431c162442bdbdd53328d1f8bb2bae5fc1bbeee0f66d80f",
    "lib/log4j-core-2.24.3.jar": "7eb4084596ae25bd3c61698e48e8d0ab65a9260758884ed5cbb9c6e55c44a56a",
    "lib/log4j-slf4j-impl-2.24.3.jar": "40dec251164d1576e000968cd02e56a1125f46b91fb694a06dfa168f1335da48",
    f"opt/flink-python-{VERSION}.jar": "0c08e5eafb368e06f473c2c95a97fab8bf427bc411a690dc670e7d4e5c5f8402",  # the client loads it
    f"opt/flink-sql-client-{VERSION}.jar": "1a02a824c77d3957f311351408498031ddd60352679bf50065da0c0fef309967",
}
"""Jars of the package that this example needs: path in the package to SHA-256."""

_OF_MAVEN = {
    f"org.apache.flink:flink-sql-gateway:{VERSION}": "fde5f0f6e868c84de01312a4922404f9571c68a6d879e91fc602bbafa5d735aa",
    "org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2": "5605c691d11a501382c383fecba37a7a552467da5ab7ba904ef5d6f3d62c5616",
}

_PIP_TIMEOUT_S = 600
"""Seconds for the download of the package (300 MB)."""


class FlinkError(Exception):
    """Flink could not be fetched or started. The text is meant for the user."""


class FlinkUnavailable(FlinkError):
    """Flink is not in the cache and cannot be fetched."""


def ensure_flink(console: Console, fallback: Path) -> list[Path]:
    """Returns the class path of the SQL client; fetches missing jars into the cache directory, or into `fallback`.

    Raises `FlinkUnavailable`, with cause and remedy.
    """
    home = cache_dir(fallback) / f"flink-{VERSION}"
    try:
        with (
            exclusive_lock(home / ".lock", wait=True),
            tempfile.TemporaryDirectory(dir=home, prefix=".fetch-") as folder,
        ):
            if missing := _missing_of_package(home):
                console.print(f"Fetching Apache Flink {VERSION} from PyPI into {home}, once (300 MB)", soft_wrap=True)
                _fetch_package(missing, Path(folder), home)
            for coordinate in missing_jars(home, _OF_MAVEN):
                fetch_jar(coordinate, _OF_MAVEN[coordinate], Path(folder), home)
    except OSError as error:
        raise FlinkUnavailable(f"Flink cannot be kept in {home}: {error}. Set FAUST_ORDERS_CACHE.") from error
    except JarUnavailable as error:
        raise FlinkUnavailable(f"{error}\nThe first start needs network access.") from error
    return [*(home / Path(jar).name for jar in _OF_PACKAGE), *(home / jar_name(c) for c in _OF_MAVEN)]


def _missing_of_package(home: Path) -> list[str]:
    return [jar for jar, digest in _OF_PACKAGE.items() if sha256(home / Path(jar).name) != digest]


def _fetch_package(jars: list[str], staging: Path, home: Path) -> None:
    """Unpacks the package by pip into `staging`, and moves the jars by renames."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-compile",
        "--target",
        staging,
        _PACKAGE,
    ]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise JarUnavailable(f"pip did not fetch {_PACKAGE} within {_PIP_TIMEOUT_S} s") from error
    if done.returncode:
        raise JarUnavailable(f"pip could not fetch {_PACKAGE}: {done.stderr.strip()}")
    for jar in jars:
        path = staging / "pyflink" / jar
        if (found := sha256(path)) != _OF_PACKAGE[jar]:
            raise JarUnavailable(f"{jar} of {_PACKAGE} has the wrong SHA-256: {found}, expected {_OF_PACKAGE[jar]}")
        path.replace(home / path.name)
