"""A network as Docker makes it: a namespace, an address and a name for each container, and a name server for all."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

_PREFIX = "10.213.7"
GATEWAY = f"{_PREFIX}.1"
"""Address of the switch, where the name server and the tests themselves are."""

_HOLDER = [
    "unshare",
    "--net",
    "--mount",
    "--",
    sys.executable,
    "-c",
    "import signal; print(flush=True); signal.pause()",
]
_NAMES = f"""
import json, socket, struct, sys
names = json.loads(sys.argv[1])
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("{GATEWAY}", 53))
print(flush=True)
while True:
    question, client = server.recvfrom(512)
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode())
        at += 1 + question[at]
    (kind,) = struct.unpack_from(">H", question, at + 1)
    known = names.get(".".join(labels).lower())
    found = known if known and kind == 1 else []
    flags = 0x8180 if known else 0x8183
    answer = question[:2] + struct.pack(">HHHHH", flags, 1, len(found), 0, 0) + question[12 : at + 5]
    for address in found:
        answer += struct.pack(">HHHIH", 0xC00C, 1, 1, 5, 4) + socket.inet_aton(address)
    server.sendto(answer, client)
"""


def missing() -> str | None:
    """Why there can be no such network here; `None` if there can."""
    if os.geteuid() != 0:
        return "network namespaces of their own need root"
    absent = [name for name in ("ip", "unshare", "nsenter", "mount") if shutil.which(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (apt install iproute2 util-linux mount)"
    if subprocess.run(["unshare", "--net", "--mount", "true"], check=False, capture_output=True).returncode:
        return "this machine does not let root make network namespaces"
    return None


class Network:
    """Namespaces joined by a bridge, without a way to the outside.

    Arguments:
        names: of the containers.
        aliases: further names of some.
        folder: for a file.
    """

    def __init__(self, names: list[str], aliases: dict[str, list[str]], folder: Path) -> None:
        self.addresses = {name: f"{_PREFIX}.{number}" for number, name in enumerate(names, 2)}
        self._aliases = aliases
        self._resolver = folder / "resolv.conf"
        self._holders: dict[str, int] = {}
        self._switch = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def inside(self, name: str | None) -> list[str]:
        """The beginning of a command that runs it in a container's namespaces; in those of the switch for None."""
        return ["nsenter", f"--target={self._holders[name] if name else self._switch}", "--net", "--mount", "--"]

    def _build(self) -> None:
        self._resolver.write_text(f"nameserver {GATEWAY}\noptions timeout:1 attempts:2\n")
        self._switch = self._hold()
        switch = self.inside(None)
        self._run(*switch, "ip", "link", "set", "lo", "up")
        self._run(*switch, "ip", "link", "add", "bridge", "type", "bridge")
        self._run(*switch, "ip", "address", "add", f"{GATEWAY}/24", "dev", "bridge")
        self._run(*switch, "ip", "link", "set", "bridge", "up")
        self._mount(switch)
        for number, (name, address) in enumerate(self.addresses.items()):
            self._holders[name] = holder = self._hold()
            peer = ["peer", "name", "eth0", "netns", str(holder)]
            self._run(*switch, "ip", "link", "add", f"port{number}", "type", "veth", *peer)
            self._run(*switch, "ip", "link", "set", f"port{number}", "master", "bridge", "up")
            self._run(*self.inside(name), "ip", "link", "set", "lo", "up")
            self._run(*self.inside(name), "ip", "address", "add", f"{address}/24", "dev", "eth0")
            self._run(*self.inside(name), "ip", "link", "set", "eth0", "up")
            self._mount(self.inside(name))
        self._serve_names()

    def _hold(self) -> int:
        holder = subprocess.Popen(_HOLDER, stdout=subprocess.PIPE)
        self._stack.callback(_end, holder)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n"
        return holder.pid

    def _mount(self, inside: list[str]) -> None:
        self._run(*inside, "mount", "--make-rprivate", "/")
        self._run(*inside, "mount", "--bind", str(self._resolver), "/etc/resolv.conf")

    def _serve_names(self) -> None:
        names: dict[str, list[str]] = {name: [address] for name, address in self.addresses.items()}
        for name, aliases in self._aliases.items():
            for alias in aliases:
                names.setdefault(alias, []).append(self.addresses[name])
        command = [*self.inside(None), sys.executable, "-c", _NAMES, json.dumps(names)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE)
        self._stack.callback(_end, server)
        assert server.stdout is not None
        assert server.stdout.readline() == b"\n"

    @staticmethod
    def _run(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, text=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
