"""Where Kafka's jars are kept: the user's cache, or another folder for who has none."""

import hashlib
import os
from pathlib import Path

import pytest
from rich.console import Console

from ecosystem.embedded.kafka import install
from ecosystem.embedded.kafka.errors import KafkaError
from ecosystem.embedded.kafka.install import cache_dir, ensure_jars
from ecosystem.embedded.maven import jar_name

CONTENT = b"a jar"
COORDINATE = "org.example:lib:1.0"


@pytest.fixture(autouse=True)
def one_small_jar(monkeypatch):
    monkeypatch.setattr(install, "JARS", {COORDINATE: hashlib.sha256(CONTENT).hexdigest()})
    for name in ("FAUST_ORDERS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fetched(monkeypatch):
    """The folders that jars were fetched into."""
    folders = []

    def fetch(coordinates, home, console):
        folders.append(home)
        for coordinate in coordinates:
            (home / jar_name(coordinate)).write_bytes(CONTENT)

    monkeypatch.setattr(install, "_fetch", fetch)
    return folders


def no_such_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/proc/nowhere")


def home_is_a_file(monkeypatch, tmp_path):
    (tmp_path / "home").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def user_without_entry(monkeypatch, tmp_path):
    monkeypatch.delenv("HOME")

    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)


@pytest.mark.parametrize("lack", [no_such_home, home_is_a_file, user_without_entry])
def test_a_user_without_a_cache_has_the_jars_beside_the_data(tmp_path, monkeypatch, fetched, lack):
    lack(monkeypatch, tmp_path)
    spare = tmp_path / "data" / "cache"
    [jar] = ensure_jars(Console(), spare)
    assert jar.is_relative_to(spare)
    assert jar.read_bytes() == CONTENT
    assert ensure_jars(Console(), spare) == [jar]
    assert len(fetched) == 1


def test_the_users_cache_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir(tmp_path / "spare") == tmp_path / ".cache" / "faust-orders"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir(tmp_path / "spare") == tmp_path / "xdg" / "faust-orders"
    assert not (tmp_path / "spare").exists()


def test_a_cache_that_is_whole_is_used_though_it_cannot_be_written(tmp_path, monkeypatch, fetched):
    monkeypatch.setenv("HOME", str(tmp_path))
    [jar] = ensure_jars(Console(), tmp_path / "spare")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert ensure_jars(Console(), tmp_path / "spare") == [jar]
    assert len(fetched) == 1


def test_a_relative_cache_is_found_from_other_folders(tmp_path, monkeypatch, fetched):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FAUST_ORDERS_CACHE", "cache")
    [jar] = ensure_jars(Console(), tmp_path / "spare")
    assert jar.is_absolute()
    assert jar.is_relative_to(tmp_path / "cache")


def test_a_cache_that_was_named_and_cannot_be_is_told(tmp_path, monkeypatch, fetched):
    monkeypatch.setenv("FAUST_ORDERS_CACHE", "/proc/nowhere")
    with pytest.raises(KafkaError, match=r"/proc/nowhere.*FAUST_ORDERS_CACHE"):
        ensure_jars(Console(), tmp_path / "spare")
