"""Templates of e-mails in a package: strict about missing variables, HTML with autoescape."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


class Templates:
    """The e-mails in the folder `templates` of a package: `<name>.txt` and `<name>.html`."""

    def __init__(self, package: str) -> None:
        self._environment = Environment(
            loader=PackageLoader(package),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def render(self, name: str, variables: Mapping[str, Any]) -> tuple[str, str]:
        """Renders an e-mail. Returns its text and its HTML."""
        text, html = (self._environment.get_template(f"{name}.{form}").render(variables) for form in ("txt", "html"))
        return text, html
