"""The legacy office: writes exports and a table, a little at a time, with mistakes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from ecosystem.loadgen import sample
from schemas.messages import Customer, Order, OrderState, Payment, StockLevel

TABLE = "CREATE TABLE stock (article text PRIMARY KEY, pieces bigint NOT NULL, shelf text)"
_UPSERT = """
    INSERT INTO stock VALUES ($1, $2, $3)
    ON CONFLICT (article) DO UPDATE SET pieces = excluded.pieces, shelf = excluded.shelf
"""
_ARTICLES = 40
_CLASSES = {"platinum": "P", "gold": "G", "silver": "S", "bronze": "B"}
_MISTAKE_EVERY = 25


@dataclass
class Office:
    """Writes into `folder` and into the table `stock`. The fields say what must arrive on the topics.

    Arguments:
        folder: of the exports.
        random: decides about everything.
        payments: valid payments.
        mistakes: places of invalid lines.
        customers: valid customers by id, as last written.
        stock: pieces by article, as last written.
        orders: orders in their last state, by id.
    """

    folder: Path
    random: Random
    payments: list[Payment] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)
    customers: dict[int, Customer] = field(default_factory=dict)
    stock: dict[str, StockLevel] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)

    def start(self, day: date) -> None:
        """Begins the exports of a day."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._payments = self.folder / f"payments-{day}.csv"
        self._payments.write_bytes(b"RECEIPT;ORDER;AMOUNT;CURRENCY\r\n")
        self._payment_lines = 1
        self._customers = self.folder / f"customers-{day}.txt"
        self._customers.touch()
        self._customer_lines = 0

    def export_payments(self, count: int) -> None:
        """Appends payments to the export of the day."""
        lines = []
        for number in range(len(self.payments), len(self.payments) + count):
            self._payment_lines += 1
            amount = f"{self.random.randint(1, 20000) / 100:.2f}"
            if number % _MISTAKE_EVERY == 3:
                lines.append(f"{number}x;order-{number};{amount};EURO\r\n")
                self.mistakes.append(f"exports/{self._payments.name}:{self._payment_lines}")
                self._payment_lines += 1
            lines.append(f"{number};order-{number};{amount.replace('.', ',')};EUR\r\n")
            payment = Payment(id=f"legacy-{number}", order_id=f"order-{number}", ccy="EUR", amount=Decimal(amount))
            self.payments.append(payment)
        with self._payments.open("ab") as file:
            file.write("".join(lines).encode("cp1252"))

    def export_customers(self, count: int) -> None:
        """Appends customers to the export of the day, some of them again with another level."""
        with self._customers.open("ab") as file:
            for customer in _sample(self.random, count):
                self._customer_lines += 1
                class_ = _CLASSES[customer.level]
                if self._customer_lines % _MISTAKE_EVERY == 3:
                    self.mistakes.append(f"exports/{self._customers.name}:{self._customer_lines}")
                    class_ = "?"
                else:
                    self.customers[customer.id] = customer
                fields = f"{customer.id:08}{customer.first_name:20}{customer.last_name:20}"
                file.write(f"{fields}{customer.email:40}{customer.address:40}{class_}\r\n".encode("cp850"))

    async def change_stock(self, connection: Any, count: int) -> None:
        """Changes rows of the table, and deletes some."""
        for _ in range(count):
            article, pieces = f"article-{self.random.randrange(_ARTICLES)}", self.random.randint(0, 500)
            if self.random.randrange(10) == 0:
                await connection.execute("DELETE FROM stock WHERE article = $1", article)
                self.stock.pop(article, None)
            else:
                await connection.execute(_UPSERT, article, pieces, "A1")
                self.stock[article] = StockLevel(product=article, count=pieces)

    def new_orders(self, count: int) -> Sequence[Order]:
        """Returns the states of orders, as the orders service would publish them."""
        states: list[Order] = []
        for _ in range(count):
            new = sample.order(self.random)
            order = Order(id=f"order-{len(self.orders)}", **new.model_dump(exclude={"id"}))
            way = self.random.choice([[OrderState.FAILED], [OrderState.VALIDATED, OrderState.SHIPPED]])
            states += [order.model_copy(update={"state": state}) for state in (OrderState.CREATED, *way)]
            self.orders[order.id] = states[-1]
        return states


def _sample(random: Random, count: int) -> Iterator[Customer]:
    for customer in islice(sample.customers(), count):
        yield customer.model_copy(update={"level": random.choice(list(_CLASSES)), "first_name": f"Zoë {customer.id}"})
