"""Fresh virtual environments with this project, for packages that tests install by pip."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 300


class Environment:
    """A virtual environment of its own, with pip.

    The project's dependencies are not downloaded again: a `.pth` file adds those of the running environment, and with
    them the project, unless it is installed here from another folder.
    """

    def __init__(self, folder):
        self.folder = folder
        self.bin = folder / "bin"
        self.python = str(self.bin / "python")
        run([sys.executable, "-m", "venv", str(folder)])
        site = next(folder.glob("lib/python*/site-packages"))
        (site / "dependencies.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
        self.script("orders")

    def script(self, name):
        """Makes the command of the project, as its installation would."""
        path = self.bin / name
        path.write_text(f"#!{self.python}\nfrom ecosystem.cli.main import main\nmain()\n")
        path.chmod(0o755)

    def install(self, package, *options):
        run([self.python, "-m", "pip", "install", "--quiet", *options, str(package)])

    def orders(self, *arguments, **environment):
        """Output of `orders`, which must succeed."""
        return run([str(self.bin / "orders"), *arguments], **environment)


def run(command, cwd=None, **environment):
    """Runs a command that must succeed. Returns what it says."""
    env = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}} | environment
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def lines_of_code(path):
    """Lines that are neither blank, comment nor docstring."""
    text = re.sub(r'""".*?"""', "", path.read_text("utf-8"), flags=re.DOTALL)
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]
