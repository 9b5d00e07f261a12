"""Email service: consumes orders, payments and customers, joins them, sends e-mails by SMTP."""

from datetime import timedelta

from email_service import customer_join as customers
from email_service import payment_join as payments
from email_service.customer_join import CustomerJoin
from email_service.emails import compose
from email_service.payment_join import EMAILS_BY_CUSTOMER, PAYMENTS_BY_ORDER, PaymentJoin
from email_service.settings import EmailSettings
from email_service.state import CUSTOMERS, ENQUEUED, JOINS, LEGACY_QUEUES, PAYMENT_ROWS, QUEUE, AddressedEmail
from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.mail.mailer import SmtpMailer
from runtime.model.service import Expiring, Input, Service, repartition_to
from schemas import topics
from schemas.topics import BY_LEVEL, ORDERS, ORDERS_ENRICHED, PAYMENTS


def build(settings: Settings) -> ServiceDefinition:
    """Builds the service definition."""
    own = settings.of(EmailSettings)
    mailer, window = SmtpMailer(settings), timedelta(seconds=own.email_window_s)

    send = mailer.side_effect(
        "letter",  # its name in the rows of state stores
        AddressedEmail,
        lambda addressed: compose(addressed, settings.mail_from, own.currency),
        to=lambda addressed: addressed.customer.email,
    )
    payment_join = PaymentJoin(own.currency, timedelta(days=own.email_unpaid_days))
    customer_join = CustomerJoin(window, send)
    return ServiceDefinition(
        Service(
            name="email",
            inputs=(
                Input(ORDERS, payment_join.on_order),
                Input(PAYMENTS, repartition_to(PAYMENTS_BY_ORDER)),
                Input(PAYMENTS_BY_ORDER, payment_join.on_payment),
                Input(EMAILS_BY_CUSTOMER, customer_join.on_email),
                Input(topics.CUSTOMERS, customer_join.on_customer, on_tombstone=customer_join.on_customer_gone),
            ),
            outputs=(PAYMENTS_BY_ORDER, EMAILS_BY_CUSTOMER, ORDERS_ENRICHED, *BY_LEVEL.values()),
            tables=(CUSTOMERS, QUEUE.table, LEGACY_QUEUES),
            side_effects=(send,),
            timers=customer_join.timers,
            ttl_tables=(
                Expiring(JOINS, payment_join.on_join_expired),
                Expiring(PAYMENT_ROWS, payment_join.on_payment_expired),
                Expiring(ENQUEUED),
            ),
            events=(*payments.EVENTS, *customers.EVENTS),
        ),
        lifespan=mailer.lifespan,
    )
