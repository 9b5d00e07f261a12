"""Notifications: consume products and alerts, hold what was told, send letters."""

from product_subscribers.notifications.emails import ProductNotifier, compose
from product_subscribers.notifications.state import NOTIFIED, Notice
from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.mail.envelope import domain_of
from runtime.mail.mailer import SmtpMailer
from runtime.model.service import Input, Service, SideEffect
from schemas.topics import PRODUCT_ALERTS, PRODUCTS


def build(settings: Settings) -> ServiceDefinition:
    """The service, with its addresses and its SMTP server."""
    office = SmtpMailer(settings)

    async def post(key: str, notice: Notice) -> None:
        await office.send(key, compose(notice, settings.mail_from))

    def domain(notice: Notice) -> str:
        return domain_of(notice.to)

    send = SideEffect("notice", Notice, post, destination=domain, concurrency=SmtpMailer.AT_ONCE)
    notifying = ProductNotifier(settings.product_notifications_to, send, settings.currency)
    return ServiceDefinition(
        Service(
            name="product-notifications",
            inputs=(Input(PRODUCTS, notifying.on_change), Input(PRODUCT_ALERTS, notifying.on_alert)),
            outputs=(),
            tables=(NOTIFIED.table,),
            side_effects=(send,),
        ),
        lifespan=office.lifespan,
    )
