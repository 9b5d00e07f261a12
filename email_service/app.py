"""The email service: consumes orders, payments and customers, holds what waits to be joined, sends letters."""

from datetime import timedelta

from email_service.address import Addressing
from email_service.compose import compose
from email_service.join import LETTERS_BY_CUSTOMER, PAYMENTS_BY_ORDER, Joining, route
from email_service.state import CUSTOMERS, JOINS, SENT, WAITING, Addressed
from runtime.envelope import domain_of
from runtime.hosting import Hosted
from runtime.post_office import PostOffice
from runtime.service import Effect, Input, Service
from runtime.settings import Settings
from schemas import topics
from schemas.topics import BY_LEVEL, ORDERS, ORDERS_ENRICHED, PAYMENTS


def build(settings: Settings) -> Hosted:
    """The service, with its window and its SMTP server."""
    office, window = PostOffice(settings), timedelta(seconds=settings.email_window_s)

    async def post(key: str, addressed: Addressed) -> None:
        await office.send(key, compose(addressed, settings.mail_from))

    def domain(addressed: Addressed) -> str:
        return domain_of(addressed.customer.email)

    send = Effect("letter", Addressed, post, destination=domain, at_once=PostOffice.AT_ONCE)
    repeats = settings.at_least_once
    joining, addressing = Joining(window, repeats=repeats), Addressing(window, send, repeats=repeats)
    return Hosted(
        Service(
            name="email",
            inputs=(
                Input(ORDERS, joining.on_order),
                Input(PAYMENTS, route),
                Input(PAYMENTS_BY_ORDER, joining.on_payment),
                Input(LETTERS_BY_CUSTOMER, addressing.on_letter),
                Input(topics.CUSTOMERS, addressing.on_customer, on_tombstone=addressing.on_customer_gone),
            ),
            outputs=(PAYMENTS_BY_ORDER, LETTERS_BY_CUSTOMER, ORDERS_ENRICHED, *BY_LEVEL.values()),
            tables=(*JOINS.tables, CUSTOMERS, WAITING, *(SENT.tables if repeats else ())),
            on_wake=addressing.on_wake,
            effects=(send,),
        ),
        lifespan=office.opened,
    )
