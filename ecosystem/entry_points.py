"""Finds services by the entry-point group `faust_orders.services`, in every installed package.

An entry point names a service and the function that builds it: `fraud = "validators.fraud.app:build"`. What the
commands say about a service is read without importing its module, as that takes long.
"""

import ast
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from runtime.common.settings import ServiceSettings, Settings
from runtime.hosting import ServiceDefinition

GROUP = "faust_orders.services"

_FIRST = "orders"
"""Listed first: it serves the API that clients know, hence gets the first port of `orders up --apart`."""


class ServiceError(Exception):
    """A service cannot be used. The text names the service, its package, the cause, and the remedy."""


@dataclass(frozen=True, slots=True)
class FoundService:
    """A service as its package declares it.

    Arguments:
        name: unique among all packages.
        entry_points: its declarations: one, unless several packages use the name.
    """

    name: str
    entry_points: tuple[EntryPoint, ...]

    @property
    def module(self) -> str:
        """The module with the function that builds the service."""
        return self.entry_points[0].module

    def summary(self) -> str:
        """Returns the first line of the module's docstring."""
        try:
            docstring = ast.get_docstring(ast.parse(_source(self.module)))
        except Exception as error:  # whatever an import of its parents, or its text, may raise
            return f"Cannot be read: {error}"
        return docstring.splitlines()[0] if docstring else ""

    def settings(self) -> tuple[type[ServiceSettings], ...]:
        """Returns the settings classes of the service. Raises `ServiceError` if they cannot be imported.

        They are in the module `settings` beside the service's module, or in that module itself.
        """
        try:
            beside = f"{self.module.rpartition('.')[0]}.settings"
            if "." in self.module and find_spec(beside):
                name = beside
            elif ServiceSettings.__name__ in _source(self.module):
                name = self.module
            else:
                return ()
            found = vars(import_module(name)).values()
        except Exception as error:
            raise self._broken(error) from error
        own = (kind for kind in found if isinstance(kind, type) and issubclass(kind, ServiceSettings))
        return tuple(kind for kind in own if kind.__module__ == name)

    def build(self, settings: Settings) -> ServiceDefinition:
        """Builds the service definition. Raises `ServiceError` if it cannot be imported, or is not what it says."""
        if len(self.entry_points) > 1:
            packages = " and ".join(map(_package, self.entry_points))
            raise ServiceError(f"the service {self.name!r} is declared by {packages}: uninstall one of them")
        try:
            build: Callable[[Settings], ServiceDefinition] = self.entry_points[0].load()
        except Exception as error:  # whatever an import may raise
            raise self._broken(error) from error
        definition = build(settings)
        if definition.service.name != self.name:
            raise ServiceError(
                f"the service {self.name!r} of {_package(self.entry_points[0])} builds one named "
                f"{definition.service.name!r}: give its entry point this name"
            )
        return definition

    def _broken(self, error: Exception) -> ServiceError:
        [entry_point, *_] = self.entry_points
        return ServiceError(
            f"the service {self.name!r} of {_package(entry_point)} cannot be imported from {entry_point.value}: "
            f"{type(error).__name__}: {error}. Mend or uninstall that package"
        )


def find() -> dict[str, FoundService]:
    """Returns the services of all installed packages by name. Raises `ServiceError` if there are none."""
    found: dict[str, list[EntryPoint]] = {}
    for entry_point in entry_points(group=GROUP):
        found.setdefault(entry_point.name, []).append(entry_point)
    if not found:
        raise ServiceError(
            f"no installed package declares services (entry-point group {GROUP}): install this one anew, "
            "with `make install` or `python -m pip install --no-deps --editable .`"
        )
    names = sorted(found, key=lambda name: (name != _FIRST, name))
    return {name: FoundService(name, tuple(found[name])) for name in names}


def _package(entry_point: EntryPoint) -> str:
    return f"package {entry_point.dist.name if entry_point.dist else entry_point.module}"


def _source(module: str) -> str:
    """Returns the text of a module. Imports its parents, but not the module."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)
    return Path(spec.origin).read_text("utf-8")
