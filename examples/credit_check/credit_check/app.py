"""CREDIT_CHECK: fails orders above the credit limit of their customer."""

from functools import partial

from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.validator import validator

from .processors import judge
from .settings import CreditSettings


def build(settings: Settings) -> ServiceDefinition:
    """Builds the service definition."""
    own = settings.of(CreditSettings)
    rule = partial(judge, limit=own.credit_limit, currency=own.currency)
    return validator("credit", "CREDIT_CHECK", judge=rule)
