"""What `make` does before anything is installed: find a Python, or have one fetched, and keep `.venv` in order."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEWEST = "3.14"
TOO_NEW = "3.15"

# Answers as a Python of another version would: version and modules are what the programs ask for.
PYTHON = """#!/bin/sh
case "$*" in
"-m venv --clear "*)
    mkdir -p "$4/bin"; rm -f "$4/bin/python"; cp "$0" "$4/bin/python"; echo "made $4" >> "{log}"; exit;;
"-m pip install "*uv.lock) cp "{folder}/spare-uv" "$(dirname "$0")/uv"; echo "pip $*" >> "{log}"; exit;;
"-m pip "*) echo "pip $*" >> "{log}"; exit;;
-V) echo "Python {version}"; exit;;
esac
exec "{real}" -ISc '
import sys
sys.modules["pip"] = sys
sys.version_info, sys.executable, sys.prefix = ({tuple}), sys.argv[1], sys.argv[1].rpartition("/bin/")[0]
{lacking}
exec(sys.argv[2])' "$0" "$2"
"""
# Has no Python until it has fetched one.
UV = """#!/bin/sh
case "$*" in
--version) ;;
"python find "*) [ -e "$UV_PYTHON_INSTALL_DIR/python3.13" ] && echo "$UV_PYTHON_INSTALL_DIR/python3.13";;
"python install "*) {install};;
esac
"""


class Machine:
    """A machine with nothing but the Pythons that a test puts there."""

    def __init__(self, folder):
        self.folder = folder
        self.path = folder / "bin"
        self.log = folder / "log"
        self.own = folder / "own"
        self.path.mkdir()
        for tool in ("sh", "dirname", "mkdir", "cp", "cat", "cksum", "rm", "ln", "env", "setpriv"):
            (self.path / tool).symlink_to(shutil.which(tool))

    def program(self, path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def python(self, name, version, *, ensurepip=True):
        text = PYTHON.format(
            log=self.log,
            folder=self.folder,
            real=sys.executable,
            version=f"{version}.1",
            tuple=f"{version.replace('.', ', ')}, 1",
            lacking="" if ensurepip else 'sys.modules["ensurepip"] = sys.modules["pip"] = None',
        )
        return self.program(self.path / name, text)

    def uv(self, path, *, reaches=True):
        fetched = self.python("../fetched", "3.13")
        install = f'mkdir -p "$UV_PYTHON_INSTALL_DIR"; cp "{fetched}" "$UV_PYTHON_INSTALL_DIR/python3.13"'
        return self.program(path, UV.format(install=install if reaches else 'echo "no way to the host" >&2; exit 1'))

    def run(self, *command, **environment):
        env = {"PATH": str(self.path), "HOME": str(self.folder / "home"), **environment}
        return subprocess.run(command, env=env, capture_output=True, text=True)

    def find(self, **environment):
        return self.run(ROOT / "tools/find-python", self.own, **environment)


@pytest.fixture
def machine(tmp_path):
    folder = tmp_path / "a machine"
    folder.mkdir()
    return Machine(folder)


def test_the_newest_that_is_supported_is_taken(machine):
    machine.python("python3", TOO_NEW)
    machine.python("python3.11", "3.11")
    newest = machine.python(f"python{NEWEST}", NEWEST)
    assert machine.find().stdout.strip() == str(newest)


def test_one_of_pyenv_is_found_although_it_is_not_in_use(machine):
    machine.python("python3", TOO_NEW)
    machine.python("python3.12", TOO_NEW)  # pyenv's stand-in for what is not in use fails like that
    pyenv = machine.python("../home/.pyenv/versions/3.12.1/bin/python3", "3.12")
    machine.python("../home/.pyenv/versions/3.10.2/bin/python3", "3.10")
    assert Path(machine.find().stdout.strip()).samefile(pyenv)


@pytest.mark.parametrize("version", [TOO_NEW, "3.8"])
def test_where_none_is_found_uv_fetches_one_into_our_folder(machine, version):
    machine.python("python3", version)
    machine.uv(machine.path / "uv")
    assert machine.find().stdout.strip() == str(machine.own / "python/python3.13")


@pytest.mark.parametrize("version", [TOO_NEW, "3.8"])
def test_uv_comes_from_the_registry_by_its_hash(machine, version):
    machine.python("python3", version)
    machine.uv(machine.folder / "spare-uv")
    assert machine.find().stdout.strip() == str(machine.own / "python/python3.13")
    assert f"--require-hashes --requirement {ROOT}/tools/uv.lock" in machine.log.read_text()
    machine.log.unlink()
    assert machine.find().stdout.strip() == str(machine.own / "python/python3.13")
    assert not machine.log.exists(), "installed again"


def test_a_python_that_cannot_be_fetched_is_told_with_the_remedy(machine):
    machine.python("python3", TOO_NEW)
    machine.uv(machine.path / "uv", reaches=False)
    found = machine.find()
    assert (found.returncode, found.stdout) == (1, "")
    assert "no way to the host" in found.stderr
    assert f"python3 is Python {TOO_NEW}.1" in found.stderr
    assert "PYTHON=/path/to/python3.13" in found.stderr


def test_a_python_without_its_venv_module_is_told_with_the_package_to_install(machine):
    machine.python("python3", "3.12", ensurepip=False)
    found = machine.find()
    assert found.returncode == 1
    assert "apt install python3.12-venv" in found.stderr


def test_a_machine_without_any_python_is_told_what_to_install(machine):
    found = machine.find()
    assert found.returncode == 1
    assert "python3 is not there" in found.stderr
    assert "apt install python3-venv" in found.stderr


def test_the_python_that_is_named_must_do(machine):
    machine.python("python3", "3.12")
    named = machine.python("mine", TOO_NEW)
    found = machine.find(PYTHON=str(named))
    assert (found.returncode, found.stdout) == (1, "")
    assert f"{named} is no Python 3.11" in found.stderr


def test_the_tools_and_the_package_name_the_same_versions():
    bounds = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    low, high = map(int, bounds.groups())
    for tool in ("find-python", "install"):
        text = (ROOT / "tools" / tool).read_text()
        assert f"not (3, {low}) <= sys.version_info < (3, {high})" in text
    versions = re.search(r'^versions="([\d. ]+)"', (ROOT / "tools/find-python").read_text(), re.MULTILINE)[1].split()
    assert versions == [f"3.{minor}" for minor in reversed(range(low, high))]
    assert versions[0] == NEWEST


@pytest.fixture
def project(machine):
    """A checkout of which only what `tools/install` looks at is there."""
    folder = machine.folder / "project"
    (folder / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "tools/install", folder / "tools")
    base = machine.python("python3", "3.13")
    machine.program(folder / "tools/find-python", f'#!/bin/sh\necho "{base}"\n')
    for name in ("pyproject.toml", "requirements-dev.lock"):
        (folder / name).write_text("")
    return folder


def install(machine, project, **environment):
    """What was done for it: each folder made, each call of pip."""
    machine.log.unlink(missing_ok=True)
    done = machine.run(project / "tools/install", **environment)
    assert done.returncode == 0, done.stderr
    return [line.split()[0] for line in machine.log.read_text().splitlines()] if machine.log.exists() else []


def test_what_is_installed_is_not_installed_again_until_the_lock_or_the_project_changes(machine, project):
    assert install(machine, project) == ["made", "pip", "pip"]
    assert install(machine, project) == []
    (project / "requirements-dev.lock").write_text("# changed")
    assert install(machine, project) == ["pip", "pip"]
    (project / "pyproject.toml").write_text("# with a new entry point")
    assert install(machine, project) == ["pip", "pip"]


def vanished(machine, project):
    (project / ".venv/bin/python").unlink()
    (project / ".venv/bin/python").symlink_to("/no/such/python3.12")


def became_another(machine, project):
    shutil.copy(machine.python("other", "3.14"), project / ".venv/bin/python")


def is_too_new(machine, project):
    shutil.copy(machine.python("other", TOO_NEW), project / ".venv/bin/python")


def lost_pip(machine, project):
    shutil.copy(machine.python("other", "3.13", ensurepip=False), project / ".venv/bin/python")


@pytest.mark.parametrize("change", [vanished, became_another, is_too_new, lost_pip])
def test_an_environment_whose_python_changed_is_made_anew(machine, project, change):
    install(machine, project)
    change(machine, project)
    assert install(machine, project) == ["made", "pip", "pip"]
    assert install(machine, project) == []


def test_an_environment_that_moved_with_its_project_is_made_anew(machine, project):
    install(machine, project)
    moved = project.rename(project.with_name("moved"))
    assert install(machine, moved) == ["made", "pip", "pip"]


def test_a_copy_does_not_run_the_code_of_its_original(machine, project):
    outside = {"VENV": str(machine.folder / "venv")}
    install(machine, project, **outside)
    copy = Path(shutil.copytree(project, project.with_name("copy")))
    assert install(machine, copy, **outside) == ["made", "pip", "pip"]


def test_an_interrupted_installation_is_repeated(machine, project):
    install(machine, project)
    (project / "requirements-dev.lock").write_text("# changed")
    broken = machine.python("../project/.venv/bin/python", "3.13")
    whole = broken.read_text()
    broken.write_text(whole.replace('"-m pip "*) ', '"-m pip "*) exit 1; '))
    assert machine.run(project / "tools/install").returncode == 1
    broken.write_text(whole)
    assert install(machine, project) == ["pip", "pip"]


def test_a_checkout_that_cannot_be_written_is_installed_elsewhere(machine, project):
    (project / "runtime").mkdir()
    project.chmod(0o555)
    # Root may write anyway, but for its capabilities.
    prefix = ["setpriv", "--bounding-set=-all"] if os.geteuid() == 0 else []
    try:
        refused = machine.run(*prefix, project / "tools/install")
        assert refused.returncode == 1
        assert "make run VENV=/path/to/venv ORDERS_DATA=/path/to/data" in refused.stderr
        venv = machine.folder / "elsewhere/venv"
        done = machine.run(*prefix, project / "tools/install", VENV=str(venv))
        assert done.returncode == 0, done.stderr
    finally:
        project.chmod(0o755)
    assert f"--editable {venv}/project" in machine.log.read_text()
    assert (venv / "project/runtime").samefile(project / "runtime")
