"""Notifications: consumes products and alerts, sends e-mails to the configured addresses."""

from product_subscribers.notifications.emails import ProductNotifier, compose
from product_subscribers.notifications.state import NOTIFIED, Notice
from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.mail.envelope import domain_of
from runtime.mail.mailer import SmtpMailer
from runtime.model.service import Input, Service, SideEffect
from schemas.topics import PRODUCT_ALERTS, PRODUCTS


def build(settings: Settings) -> ServiceDefinition:
    """Builds the service definition."""
    mailer = SmtpMailer(settings)

    async def send_email(key: str, notice: Notice) -> None:
        await mailer.send(key, compose(notice, settings.mail_from))

    def domain(notice: Notice) -> str:
        return domain_of(notice.to)

    send = SideEffect("notice", Notice, send_email, destination=domain, concurrency=SmtpMailer.AT_ONCE)
    notifier = ProductNotifier(settings.product_notifications_to, send, settings.currency)
    return ServiceDefinition(
        Service(
            name="product-notifications",
            inputs=(Input(PRODUCTS, notifier.on_change), Input(PRODUCT_ALERTS, notifier.on_alert)),
            outputs=(),
            tables=(NOTIFIED.table,),
            side_effects=(send,),
        ),
        lifespan=mailer.lifespan,
    )
