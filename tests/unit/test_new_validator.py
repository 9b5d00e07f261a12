"""`orders new-validator`, and the example that was made from it."""

import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from ecosystem.cli.main import main
from ecosystem.cli.validator_skeleton import InvalidName, skeleton
from ecosystem.services import FOUND
from tests.environments import ROOT, lines_of_code, run

EXAMPLE = ROOT / "examples/credit_check"
PRODUCT = ("bench", "ecosystem", "runtime", "schemas", "tools", "docs/reference")
PRODUCT_FILES = ("Dockerfile", "Makefile", "docker-compose.yml", "docs/asyncapi.json", "pyproject.toml")


def invoke(folder, *arguments):
    with CliRunner().isolated_filesystem(folder):
        result = CliRunner().invoke(main, ["new-validator", *arguments], prog_name="orders")
        return result, Path.cwd()


def test_the_test_of_a_new_package_passes_at_once(tmp_path):
    result, folder = invoke(tmp_path, "large-order")
    assert result.exit_code == 0, result.output
    package = folder / "large_order_check"
    written = {str(path.relative_to(folder)) for path in package.rglob("*") if path.is_file()}
    assert set(result.output.splitlines()) == written
    assert "2 passed" in run([sys.executable, "-m", "pytest", "-q", "tests"], cwd=package)


@pytest.mark.parametrize("name", ["credit", "large-order", "a" * 25])
def test_a_new_package_has_no_faults_of_style(tmp_path, name):
    result, folder = invoke(tmp_path, name)
    assert result.exit_code == 0, result.output
    run([sys.executable, "-m", "ruff", "check", "--no-cache", "."], cwd=folder)
    run([sys.executable, "-m", "ruff", "format", "--no-cache", "--diff", "."], cwd=folder)


def test_types_of_the_example_and_of_a_new_package_are_right(tmp_path):
    result, folder = invoke(tmp_path, "large-order")
    assert result.exit_code == 0, result.output
    for package in (EXAMPLE, folder / "large_order_check"):
        paths = f"{package}{os.pathsep}{ROOT}"
        module = package.name
        command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--follow-imports", "silent"]
        command += ["--cache-dir", str(tmp_path / "mypy"), "-p", module]
        run(command, cwd=package, MYPYPATH=paths)


def test_a_folder_that_is_there_is_refused(tmp_path):
    (tmp_path / "x").mkdir()
    files = CliRunner()
    with files.isolated_filesystem(tmp_path):
        assert files.invoke(main, ["new-validator", "credit"]).exit_code == 0
        Path("credit_check/app.py").write_text("mine")
        again = files.invoke(main, ["new-validator", "credit"])
        assert again.exit_code == 2
        assert "credit_check exists already: choose another NAME, or another directory" in again.output
        assert Path("credit_check/app.py").read_text() == "mine"


@pytest.mark.parametrize("name", ["", "Credit", "9lives", "a--b", "a-", "a_b", "../x", "a" * 26, "ä"])
def test_a_bad_name_is_refused(tmp_path, name):
    with pytest.raises(InvalidName):
        skeleton(name)
    result, folder = invoke(tmp_path, name)
    assert result.exit_code == 2
    assert "must begin with a letter" in result.output
    assert list(folder.glob("*")) == []


def test_the_name_of_a_service_is_refused(tmp_path):
    result, _ = invoke(tmp_path, "fraud")
    assert result.exit_code == 2
    assert "there is a service 'fraud' already" in result.output


# The example


def test_the_test_of_the_example_passes():
    said = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"], cwd=EXAMPLE)
    assert "2 passed" in said


def test_rule_and_declaration_of_the_example_have_at_most_thirty_lines():
    package = EXAMPLE / "credit_check"
    lines = [line for name in ("app.py", "processors.py") for line in lines_of_code(package / name)]
    assert 10 < len(lines) <= 30


def test_the_example_has_the_files_of_a_new_package():
    found = {str(p.relative_to(EXAMPLE.parent)) for p in EXAMPLE.rglob("*") if p.suffix in {".py", ".toml", ".md"}}
    assert found == set(skeleton("credit"))


def test_only_the_folder_of_the_example_names_it():
    """Its tests and the pages that teach it do, too."""
    folders = [*PRODUCT, *{service.module.partition(".")[0] for service in FOUND.values()}]
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix not in {".pyc", ""}]
    files += [ROOT / name for name in PRODUCT_FILES]
    assert len(files) > 300
    names = ("credit_check", "credit-check", "CREDIT_CHECK", "CreditSettings", "CREDIT_LIMIT", "credit_limit")
    texts = {path: path.read_bytes().decode("utf-8", "replace") for path in files if path.is_file()}
    mentions = {str(path.relative_to(ROOT)): name for path, text in texts.items() for name in names if name in text}
    assert mentions == {}
