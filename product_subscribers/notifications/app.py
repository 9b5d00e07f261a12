"""Notifications: consumes products and alerts, sends e-mails to the configured addresses."""

from product_subscribers.notifications.processors import ProductNotifier, compose
from product_subscribers.notifications.settings import ProductNotificationsSettings
from product_subscribers.notifications.state import NOTIFIED, Notice
from runtime.common.settings import Settings
from runtime.hosting import ServiceDefinition
from runtime.mail.mailer import SmtpMailer
from runtime.model.service import Input, Service
from runtime.state import versions
from schemas.topics import PRODUCT_ALERTS, PRODUCTS


def build(settings: Settings) -> ServiceDefinition:
    """Builds the service definition."""
    own, mailer = settings.of(ProductNotificationsSettings), SmtpMailer(settings)

    send = mailer.side_effect(
        "notice", Notice, lambda notice: compose(notice, settings.mail_from), to=lambda notice: notice.to
    )
    notifier = ProductNotifier(own.product_notifications_to, send, own.currency)
    return ServiceDefinition(
        Service(
            name="product-notifications",
            inputs=(Input(PRODUCTS, notifier.on_change), Input(PRODUCT_ALERTS, notifier.on_alert)),
            outputs=(),
            tables=(NOTIFIED.table,),
            side_effects=(send,),
            events=versions.EVENTS,
        ),
        lifespan=mailer.lifespan,
    )
