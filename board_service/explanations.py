"""Why the checks of an order ended as they did: asked of the history beside the stream of a timeline."""

from collections.abc import Mapping
from typing import Any

from board_service.relay import HISTORY, Relay
from board_service.traces import shortened
from runtime.hosting import Host
from runtime.http.background import BackgroundCall

_TRIES = 7
"""Times that the history is asked for an order: within two minutes. It stores records within seconds, or is behind."""
_PAUSE = 4
"""Looks, of which there are two a second, between the first two of them; twice as many after each further one."""


class Explanations:
    """The explanations of one order, for one stream. It never waits: an answer is there at a later look.

    Arguments:
        relay: asks the history.
        host: this worker.
        order_id: the order.
    """

    def __init__(self, relay: Relay, host: Host, order_id: str) -> None:
        self._relay = relay
        self._host = host
        self._order_id = order_id
        self._asking: BackgroundCall[Mapping[str, Any] | None] | None = None
        self._tries = self._rests = 0
        self._verdicts = 0
        self._known: Mapping[str, str] | None = None
        self._sure = False
        """Whether two answers in a row were the same: the first may lack records that are not stored yet."""

    @property
    def awaited(self) -> bool:
        """Whether a further look may have an explanation."""
        return not self._sure and self._verdicts > 0 and self._tries < _TRIES and self._runs()

    def add_to(self, timeline: dict[str, Any]) -> dict[str, Any]:
        """Returns the timeline with the known explanations. Asks the history if one is missing."""
        verdicts = sum(event["stage"] == "VERDICT" for event in timeline["events"])
        if timeline["state"] == "CREATED" or verdicts != self._verdicts:
            self._known, self._sure, self._tries, self._rests = None, False, 0, 0  # not decided, or anew
        self._verdicts = 0 if timeline["state"] == "CREATED" else verdicts
        if self.awaited:
            self._ask()
        return timeline if self._known is None else explained(timeline, self._known)

    def close(self) -> None:
        """Asks no more."""
        if self._asking is not None:
            self._asking.close()

    def _ask(self) -> None:
        if self._asking is not None and self._asking.done:
            found = self._asking.result()
            self._asking = None
            texts = None if found is None else texts_of(found)
            if texts is not None:
                self._known, self._sure = texts, texts == self._known
        elif self._asking is None and self._rests > 0:
            self._rests -= 1
        elif self._asking is None:
            self._rests = _PAUSE << self._tries
            self._tries += 1
            self._asking = BackgroundCall(self._relay.explanation(self._host, self._order_id))

    def _runs(self) -> bool:
        return self._relay.runs(HISTORY, self._host)


def texts_of(explanation: Mapping[str, Any]) -> Mapping[str, str] | None:
    """The explanation of each check, by the history's answer; `None` while the history does not have the decision."""
    if explanation.get("state") in {None, "CREATED"}:
        return None
    return {str(v["checkType"]): shortened(str(v["explanation"])) for v in explanation.get("verdicts") or ()}


def explained(timeline: dict[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """A copy of a timeline whose last verdict of each check has the explanation of the check."""
    left = dict(texts)
    events = []
    for event in reversed(timeline["events"]):
        text = left.pop(event.get("check", ""), None) if event["stage"] == "VERDICT" else None
        events.append(event if text is None else {**event, "explanation": text})
    return {**timeline, "events": events[::-1]}
