"""A service of another package is found by its entry point alone, and a broken one stops nobody else."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ecosystem.services import NAMES

APP = '''"""Credit validator: judges every order by the credit of its customer."""

from credit_check.settings import CreditSettings
from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.model.service import Input, Service
from schemas.topics import ORDER_VALIDATIONS, ORDERS


def build(settings: Settings) -> ServiceDefinition:
    limit = settings.of(CreditSettings).credit_limit
    return ServiceDefinition(
        Service("credit", inputs=(Input(ORDERS, lambda order, ctx: limit),), outputs=(ORDER_VALIDATIONS,))
    )
'''
SETTINGS = """from pydantic import Field

from runtime.common.settings import ServiceSettings


class CreditSettings(ServiceSettings):
    credit_limit: float = Field(default=50, description="Credit of every customer")
    credit_database_url: str = Field(default="", description="Database of credits")
    credit_port: int = Field(default=4711, description="Port")
"""
ONE_FILE = APP.replace("from credit_check.settings import CreditSettings\n", SETTINGS.replace("class", "\nclass"))


def folder(app=APP, settings=SETTINGS):
    return {"credit_check/__init__.py": "", "credit_check/app.py": app, "credit_check/settings.py": settings}


class Packages:
    """Distributions outside the repository, in a folder on the path of the processes that are started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, distribution="credit-check", files=None, entry_points="credit = credit_check.app:build"):
        files = dict(files or folder())
        information = f"{distribution.replace('-', '_')}-1.0.dist-info"
        files |= {
            f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n",
            f"{information}/entry_points.txt": f"[faust_orders.services]\n{entry_points}\n",
        }
        for path, text in files.items():
            (self.folder / path).parent.mkdir(exist_ok=True)
            (self.folder / path).write_text(text)

    def python(self, *arguments, **environment):
        env = {**os.environ, "PYTHONPATH": str(self.folder), "COLUMNS": "200", **environment}
        return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, timeout=120)

    def orders(self, *arguments, **environment):
        return self.python("-m", "ecosystem.cli", *arguments, **environment)

    def evaluate(self, expression):
        done = self.python("-c", f"from ecosystem import services\nfrom runtime.common.settings import *\n{expression}")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip(), done.stderr


@pytest.fixture
def packages(tmp_path):
    return Packages(tmp_path)


def listed(output):
    """Services in the help of `orders run`, and the beginning of their summaries."""
    return dict(re.findall(r"^  ([a-z-]+) {2,}(\S.+)$", output.partition("\nServices:\n")[2], re.MULTILINE))


def test_a_service_of_another_package_is_listed_without_importing_its_module(packages):
    packages.install(files=folder(f"{APP}\nprint('imported')\n"))
    done = packages.orders("run", "--help")
    assert done.returncode == 0, done.stderr
    assert set(listed(done.stdout)) == {*NAMES, "credit"}
    assert listed(done.stdout)["credit"].startswith("Credit validator: judges every order")
    assert "imported" not in done.stdout


@pytest.mark.parametrize(
    ("files", "entry_point"),
    [(None, "credit_check.app:build"), ({"credit.py": ONE_FILE}, "credit:build")],
    ids=["folder", "one file"],
)
def test_a_service_of_another_package_is_built_and_its_core_port_and_database_are_known(packages, files, entry_point):
    packages.install(files=files, entry_points=f"credit = {entry_point}")
    said, _ = packages.evaluate(
        "[built] = services.build(['credit'], Settings(credit_limit=1))\n"
        "print(built.service.name, *services.CORE, services.port(['credit']), services.DATABASES['credit'])"
    )
    assert said == "credit orders credit details fraud inventory 4711 CREDIT_DATABASE_URL"


def test_settings_of_another_package_are_listed_and_checked_when_a_worker_starts(packages):
    packages.install()
    done = packages.orders("settings")
    assert "| `CREDIT_LIMIT` | `50` | Credit of every customer |" in done.stdout.partition("## `credit`")[2]
    done = packages.orders("run", "credit", "fraud", CREDIT_LIMIT="much", FRAUD_LIMIT="more", PARTITIONS="0")
    assert done.returncode == 2
    assert re.findall("variable ([A-Z_]+) must", done.stderr) == ["PARTITIONS", "CREDIT_LIMIT", "FRAUD_LIMIT"]


def test_a_service_that_cannot_be_imported_is_named_and_stops_no_other(packages):
    packages.install(files=folder("import nowhere_to_be_found\n"))
    done = packages.orders("run", "fraud", "credit")
    assert done.returncode == 2
    assert re.fullmatch(
        "Error: the service 'credit' of package credit-check cannot be imported from credit_check.app:build: "
        "ModuleNotFoundError: No module named 'nowhere_to_be_found'. Mend or uninstall that package\n",
        done.stderr,
    )
    said, warned = packages.evaluate("print(*(d.service.name for d in services.build_all(Settings())))")
    assert said.split() == list(NAMES)
    assert "service skipped name=credit reason=" in warned


@pytest.mark.parametrize("source", ["raise ValueError('no')", "def build(:", "raise ImportError"])
def test_settings_that_cannot_be_imported_stop_no_other_service(packages, source):
    packages.install(files=folder(settings=source))
    assert packages.orders("run", "--help").returncode == 0
    done = packages.orders("run", "credit")
    assert done.returncode == 2
    assert "the service 'credit' of package credit-check cannot be imported" in done.stderr


def test_two_packages_with_one_name_are_both_named(packages):
    packages.install()
    packages.install("credit-bureau", files={"credit.py": ONE_FILE}, entry_points="credit = credit:build")
    assert set(listed(packages.orders("run", "--help").stdout)) == {*NAMES, "credit"}
    done = packages.orders("run", "credit")
    assert done.returncode == 2
    assert "the service 'credit' is declared by package" in done.stderr
    assert {"credit-check", "credit-bureau"} <= set(re.findall(r"[\w-]+", done.stderr))
    assert "uninstall one of them" in done.stderr


def test_an_entry_point_has_the_name_of_its_service(packages):
    packages.install(entry_points="credits = credit_check.app:build")
    done = packages.orders("run", "credits")
    assert done.returncode == 2
    assert "'credits' of package credit-check builds one named 'credit'" in done.stderr


def test_without_any_service_the_remedy_is_said(packages):
    done = packages.python(
        "-c", "import importlib.metadata as m\nm.entry_points = lambda **_: ()\nfrom ecosystem import services"
    )
    assert "install this one anew, with `make install`" in done.stderr
