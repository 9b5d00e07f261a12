"""The order flow on Restate: fetches its server by npm and its Python SDK by pip, and runs `bench/peers/restate`."""

import os
import shutil
import sys
from pathlib import Path

from bench.comparison.building import build_folder, run_build
from bench.comparison.processes import StartError
from bench.comparison.system import System, ask
from ecosystem.embedded.ports import free_ports

SOURCE = Path(__file__).parents[1] / "peers" / "restate"
_BUILD_TIMEOUT_S = 600


def missing() -> str | None:
    """Says what to install before the peer can run; `None` if nothing is missing."""
    if shutil.which("npm"):
        return None
    return "The Restate peer fetches its server by npm: apt install npm"


def build() -> Path:
    """Fetches server and SDK, once for each choice of versions. Returns their folder. Raises `StartError`."""
    if why := missing():
        raise StartError(why)
    versions = (SOURCE / "requirements.txt", SOURCE / "package.json")
    folder, is_built = build_folder("restate", *versions)
    if not is_built:
        shutil.copy(SOURCE / "package.json", folder)
        run_build(["npm", "install", "--no-audit", "--no-fund", "--silent"], folder, _BUILD_TIMEOUT_S)
        run_build([sys.executable, "-m", "venv", "--clear", "venv"], folder, _BUILD_TIMEOUT_S)
        pip = [str(folder / "venv" / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        run_build([*pip, "--requirement", str(SOURCE / "requirements.txt")], folder, _BUILD_TIMEOUT_S)
        (folder / "built").touch()
    return folder


def _server(folder: Path) -> Path:
    """Returns the binary for this platform: npm installs only the fitting one."""
    found = sorted(folder.glob("node_modules/@restatedev/restate-server-*/bin/restate-server"))
    if not found:
        raise StartError(f"npm installed no Restate server for this platform in {folder}")
    return found[0]


class Restate(System):
    """One node of Restate, and the services by one worker of Granian.

    Arguments:
        folder: for logs and data.
    """

    api = "restate"
    uses_broker = False

    def __init__(self, folder: Path) -> None:
        super().__init__("Restate", folder)

    def prepare(self) -> None:
        build()

    def launch(self) -> None:
        built = build()
        services, ingress, admin, node = free_ports(4)
        self.urls = [f"http://127.0.0.1:{ingress}"]
        command = [built / "venv" / "bin" / "granian", "--interface", "asgi", "--http", "2", "--no-ws"]
        command += ["--host", "127.0.0.1", "--port", str(services), "--workers", "1", "--log-level", "warning"]
        self.processes.start("services", [*command, "--working-dir", str(SOURCE), "services:app"], os.environ)
        settings = {
            "RESTATE_NODE_NAME": "bench",
            "RESTATE_CLUSTER_NAME": "bench",
            "RESTATE_BASE_DIR": str(self.folder / "data"),
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
            "RESTATE_DISABLE_TELEMETRY": "true",
            "RESTATE_LOG_FILTER": "warn",
            # One partition: with few cores each more costs a log of its own, and none is used in full.
            "RESTATE_DEFAULT_NUM_PARTITIONS": "1",
            # With the default of 1,000, more open orders than that stall each other.
            "RESTATE_WORKER__INVOKER__CONCURRENT_INVOCATIONS_LIMIT": "100000",
        }
        self.processes.start("Restate", [_server(built), "--no-logo"], os.environ | settings)
        deployment = {"uri": f"http://127.0.0.1:{services}", "force": True}
        address = f"http://127.0.0.1:{admin}/deployments"
        self.processes.wait_until(lambda: ask(address, deployment) is not None, "the registration at Restate")

    def order(self, number: int) -> bool:
        body = {"id": f"first-{number}", "customerId": 1, "product": "product-0", "quantity": 1, "price": 1}
        return ask(f"{self.urls[0]}/OrderFlow/first-{number}/run", body) is not None

    def versions(self) -> dict[str, str]:
        server, sdk = (SOURCE / "package.json").read_text(), (SOURCE / "requirements.txt").read_text().split()
        return {
            "Restate": server.split('restate-server": "')[1].split('"')[0],
            "SDK": ", ".join(sdk),
            "settings": "one node, one partition, durable log with the default fsync",
        }
