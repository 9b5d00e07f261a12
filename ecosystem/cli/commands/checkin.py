"""`orders checkin`: report a technician's check-in for an order."""

from datetime import datetime
from zoneinfo import ZoneInfo

import click
from pydantic import ValidationError
from rich.console import Console

from checkin_service.settings import CheckinSettings
from ecosystem.cli.commands.shared import Real, perform, service_url_option
from ecosystem.clients.api import CheckinApi
from schemas.api import NewCheckin
from schemas.validation import describe_invalid


@click.command()
@click.argument("order_no")
@click.option("--internet", default="8850049302", show_default=True, help="Number of the internet line")
@click.option("--staff", default="cs_eng_ftth", show_default=True, help="Code of the technician")
@click.option("--status", default="homecheckedin", show_default=True, help="Status of the job")
@click.option("--latitude", type=Real(), default=13.7827811, show_default=True, help="Degrees north")
@click.option("--longitude", type=Real(), default=100.5465937, show_default=True, help="Degrees east")
@click.option(
    "--at",
    metavar="'YYYY-MM-DD HH:MM:SS'",
    help="Time of the check-in, in CHECKIN_TIME_ZONE or with an offset such as +07:00  [default: now]",
)
@service_url_option("checkin")
def checkin(
    order_no: str, internet: str, staff: str, status: str, latitude: float, longitude: float, at: str | None, url: str
) -> None:
    """Report that a technician is on the spot for ORDER_NO.

    Prints the state and the id of the check-in.

    \b
    orders checkin my-order
    orders checkin my-order --staff T-1000 --at "2021-03-18 10:13:43"
    """
    zone = ZoneInfo(CheckinSettings().checkin_time_zone)
    try:
        new = NewCheckin(
            internet_no=internet,
            order_no=order_no,
            staff_code=staff,
            job_status=status,
            checkin_latitude=latitude,
            checkin_longitude=longitude,
            checkin_date=at or datetime.now(zone).isoformat(" ", "seconds"),
        )
    except ValidationError as error:
        raise click.UsageError(describe_invalid(error)) from error

    async def report() -> None:
        async with CheckinApi(url) as api:
            check_in = await api.post(new)
        Console().print(f"{check_in.status} {check_in.event_id}", markup=False, highlight=False)

    perform(report(), url)
