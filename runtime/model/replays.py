"""Headers of a replayed message, which everything inherits that comes of processing it. Pure."""

from runtime.model.records import REPLAYED_FROM, REPLAYS, SIDE_EFFECTS, Header

PERFORM = b"perform"
"""Value of the header `side-effects` with which a replay performs side effects."""

REPLAY_HEADERS = frozenset({REPLAYED_FROM, REPLAYS, SIDE_EFFECTS})


def is_replayed(inherited: tuple[Header, ...]) -> bool:
    """Whether inherited headers are those of a replay.

    >>> is_replayed((("replayed-from", b"orders/2/17"), ("replays", b"1")))
    True
    """
    return bool(inherited) and inherited[0][0] in REPLAY_HEADERS


def suppresses_side_effects(inherited: tuple[Header, ...]) -> bool:
    """Whether side effects of a message are left out: it is replayed, and does not say otherwise."""
    return is_replayed(inherited) and (SIDE_EFFECTS, PERFORM) not in inherited
