"""Stages that can be replayed, which of them come from outside, and what a replay of them changes. Pure."""

from collections.abc import Mapping

from history_service.stages import Stage

REPLAYABLE = tuple(stage for stage in Stage if stage not in {Stage.DEAD_LETTER, Stage.UNKNOWN})
"""Dead letters are redriven instead: `orders dead-letters redrive`."""

ABOUT_NO_ORDER = frozenset(
    {Stage.STOCK, Stage.CUSTOMER, Stage.PRODUCT, Stage.PRODUCT_ALERT, Stage.REQUIRED_CHECKS},
)

INPUTS = (
    Stage.STOCK,
    Stage.CUSTOMER,
    Stage.PRODUCT,
    Stage.REQUIRED_CHECKS,
    Stage.CREATED,
    Stage.PAYMENT,
    Stage.CHECK_IN,
    Stage.CANCELLATION,
)
"""What comes from outside. All other stages follow from these, and are computed anew.

`CANCELLATION` is here although fulfilment writes it: it does so when a payment deadline passes, which counts from the
replay. An order that a client has cancelled has no record of its own; see `Selection.cancelled_by_clients`.
"""

_REPEATED = "nothing, unless the service does not know it: it is recognised by its id for 7 days"

EFFECTS: Mapping[str, str] = {
    Stage.VERDICT: "nothing if the order is decided, or has a verdict of this check",
    Stage.VALIDATED: "nothing if the order is VALIDATED, or further",
    Stage.FAILED: "nothing if the order has FAILED",
    Stage.ENRICHED: "nothing in this system: for readers elsewhere",
    Stage.LEVEL: "nothing in this system: for readers elsewhere",
    Stage.PAYMENT: _REPEATED,
    Stage.CHECK_IN: _REPEATED,
    Stage.CHECK_IN_REJECTED: _REPEATED,
    Stage.FULFILLED: "nothing unless the order is VALIDATED: then it is shipped",
    Stage.SHIPPED: "nothing if the order is SHIPPED",
    Stage.CANCELLATION: "nothing unless the order is CREATED or VALIDATED: then it is cancelled",
    Stage.CANCELLED: "nothing if the order is CANCELLED",
    Stage.REFUND: "nothing in this system: for readers elsewhere",
    Stage.STOCK: "the stock becomes what was counted then",
    Stage.CUSTOMER: "the customer becomes what was said then",
    Stage.PRODUCT: "nothing if the version is known",
    Stage.PRODUCT_ALERT: "nothing in this system: for readers elsewhere",
    Stage.REQUIRED_CHECKS: "nothing if a later version is known",
}
"""What changes, by stage. That of CREATED is asked for order by order."""

SETTING = frozenset({Stage.STOCK, Stage.CUSTOMER})
"""Stages whose last record counts, whatever its age: an old one replaces a newer one."""
