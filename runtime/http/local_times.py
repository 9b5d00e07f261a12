"""Local times in requests."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from runtime.http.validation import invalid_input


def instant(local: datetime, zone: ZoneInfo, name: str) -> datetime:
    """Converts the local time of the field `name`, in `zone`, to UTC.

    Of two possible instants it is the first, unless `local` has an offset. Raises `HttpProblem` (400) for a time that
    does not exist in `zone`.
    """
    if local.tzinfo is not None:
        return local.astimezone(UTC)
    try:
        moment = local.replace(tzinfo=zone).astimezone(UTC)
        if moment.astimezone(zone).replace(tzinfo=None) == local:
            return moment
    except OverflowError:
        pass
    raise invalid_input(name, f"must be a time that exists in {zone.key}, or have an offset from UTC")
