"""Notifications: consume products and alerts, hold what was told, send letters."""

from product_subscribers.notifications.letters import Notifying, compose
from product_subscribers.notifications.state import TOLD, Notice
from runtime.common.settings import Settings
from runtime.hosting import Hosted
from runtime.mail.envelope import domain_of
from runtime.mail.mailer import PostOffice
from runtime.model.service import Effect, Input, Service
from schemas.topics import PRODUCT_ALERTS, PRODUCTS


def build(settings: Settings) -> Hosted:
    """The service, with its addresses and its SMTP server."""
    office = PostOffice(settings)

    async def post(key: str, notice: Notice) -> None:
        await office.send(key, compose(notice, settings.mail_from))

    def domain(notice: Notice) -> str:
        return domain_of(notice.to)

    send = Effect("notice", Notice, post, destination=domain, at_once=PostOffice.AT_ONCE)
    notifying = Notifying(settings.product_notifications_to, send, settings.currency)
    return Hosted(
        Service(
            name="product-notifications",
            inputs=(Input(PRODUCTS, notifying.on_change), Input(PRODUCT_ALERTS, notifying.on_alert)),
            outputs=(),
            tables=(TOLD.table,),
            effects=(send,),
        ),
        lifespan=office.opened,
    )
