"""The email service: consumes orders, payments and customers, holds what waits to be joined, sends letters."""

from datetime import timedelta

from email_service.address import CustomerJoin
from email_service.compose import compose
from email_service.join import LETTERS_BY_CUSTOMER, PAYMENTS_BY_ORDER, PaymentJoin, route
from email_service.state import CUSTOMERS, JOINS, PAYMENT_ROWS, QUEUE, SENT, WAITING, AddressedEmail
from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.mail.envelope import domain_of
from runtime.mail.mailer import SmtpMailer
from runtime.model.service import Context, Input, Service, SideEffect
from schemas import topics
from schemas.topics import BY_LEVEL, ORDERS, ORDERS_ENRICHED, PAYMENTS


def build(settings: Settings) -> ServiceDefinition:
    """The service, with its window and its SMTP server."""
    office, window = SmtpMailer(settings), timedelta(seconds=settings.email_window_s)

    async def post(key: str, addressed: AddressedEmail) -> None:
        await office.send(key, compose(addressed, settings.mail_from, settings.currency))

    def domain(addressed: AddressedEmail) -> str:
        return domain_of(addressed.customer.email)

    send = SideEffect("letter", AddressedEmail, post, destination=domain, concurrency=SmtpMailer.AT_ONCE)
    repeats = settings.at_least_once
    joining = PaymentJoin(settings.currency, timedelta(days=settings.email_unpaid_days), repeats=repeats)
    addressing = CustomerJoin(window, send, repeats=repeats)

    def on_timer(timer: str, ctx: Context) -> None:
        if not addressing.on_timer(timer, ctx):
            joining.forget(timer, ctx)
            if repeats:
                SENT.forget(timer, ctx)

    return ServiceDefinition(
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
            tables=(
                *JOINS.tables,
                *PAYMENT_ROWS.tables,
                CUSTOMERS,
                QUEUE.table,
                WAITING,
                *(SENT.tables if repeats else ()),
            ),
            on_timer=on_timer,
            side_effects=(send,),
        ),
        lifespan=office.opened,
    )
