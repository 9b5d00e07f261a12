"""Headers of a replayed message, which everything inherits that comes of processing it. Pure."""

from collections.abc import Iterable, Mapping

from runtime.model.records import REPLAYED_FROM, REPLAYS, SIDE_EFFECTS, Header

PERFORM = b"perform"
"""Value of the header `side-effects` with which a replay performs side effects."""

REPLAY_HEADERS = frozenset({REPLAYED_FROM, REPLAYS, SIDE_EFFECTS})
_MAX_VALUE = 512
"""Bytes of a header that is inherited: clients may write any."""

NOT_REPLAYED: tuple[Header, ...] = ()


def inherited(headers: Iterable[Header]) -> tuple[Header, ...]:
    """The headers of a message that outputs inherit; `NOT_REPLAYED` for one that is not replayed.

    >>> inherited([("consumed-by", b"orders"), ("replayed-from", b"orders/2/17"), ("replays", b"1")])
    (('replayed-from', b'orders/2/17'), ('replays', b'1'))
    """
    found: dict[str, bytes] = {}
    for name, value in headers:
        if name in REPLAY_HEADERS and value is not None and len(value) <= _MAX_VALUE and value.isascii():
            found.setdefault(name, value)
    return tuple(found.items()) if REPLAYED_FROM in found else NOT_REPLAYED


def suppresses_side_effects(replayed: tuple[Header, ...]) -> bool:
    """Whether side effects of a message are left out: it is replayed, and does not say otherwise."""
    return bool(replayed) and (SIDE_EFFECTS, PERFORM) not in replayed


def to_row(replayed: tuple[Header, ...]) -> dict[str, str] | None:
    """Inherited headers as a row keeps them."""
    return {name: (value or b"").decode() for name, value in replayed} or None


def from_row(row: Mapping[str, str] | None) -> tuple[Header, ...]:
    """What `to_row` was given."""
    return tuple((name, value.encode()) for name, value in row.items()) if row else NOT_REPLAYED
