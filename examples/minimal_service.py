"""Greets the customer of each validated order, once: a whole service.

>>> from decimal import Decimal
>>> from runtime.testing import TopologyTestDriver
>>> topology = TopologyTestDriver(SERVICE)
>>> order = Order(id="o-1", customer_id=7, product="mug", quantity=1, price=Decimal(12), state=OrderState.VALIDATED)
>>> topology.send(ORDERS, order, order)
>>> topology.values(GREETINGS)
[Greeting(order_id='o-1', text='Thank you, customer 7')]
"""

from runtime.model.service import Context, Input, Service, Table
from schemas.messages import Order, OrderState
from schemas.topics import ORDERS, WEEK, Topic
from schemas.wire import Message


class Greeting(Message):
    order_id: str
    text: str


GREETINGS = Topic("greetings", Greeting, lambda g: g.order_id, "greeter", WEEK)
GREETED = Table("greeter-greeted", Greeting)


def greet(order: Order, ctx: Context) -> None:
    """Greets the customer of a validated order, once per order."""
    if order.state is OrderState.VALIDATED and ctx.get(GREETED, order.id) is None:
        greeting = Greeting(order_id=order.id, text=f"Thank you, customer {order.customer_id}")
        ctx.put(GREETED, order.id, greeting)
        ctx.send(GREETINGS, greeting)


SERVICE = Service("greeter", inputs=(Input(ORDERS, greet),), outputs=(GREETINGS,), tables=(GREETED,))
