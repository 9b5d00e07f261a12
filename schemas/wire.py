"""What every message and every body has in common: camelCase JSON, frozen, tolerant of fields it does not know."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer, StrictInt
from pydantic.alias_generators import to_camel

Money = Annotated[
    Decimal,
    # 15 significant digits are what a JSON number (an IEEE double) carries without loss.
    Field(max_digits=15, decimal_places=4, allow_inf_nan=False),
    PlainSerializer(float, return_type=float, when_used="json"),
]
"""An amount of money: Decimal in code, a JSON number on the wire, at most 11 digits before and 4 after the point."""

Total = Annotated[Decimal, Field(allow_inf_nan=False), PlainSerializer(float, return_type=float, when_used="json")]
"""A sum or a multiple of amounts: exact in code, a JSON number on the wire, which has its first 15 digits."""

Quantity = Annotated[StrictInt, Field(ge=-1_000_000_000, le=1_000_000_000)]
"""A count of pieces. Negative ones are well-formed: it is the details validator that judges them."""

Int64 = Annotated[StrictInt, Field(ge=-(2**63), le=2**63 - 1)]

Timestamp = Annotated[AwareDatetime, Field(default_factory=lambda: datetime.now(UTC))]


def example(**fields: Any) -> ConfigDict:
    """Configuration of a model that has one in documents; names as they are on the wire."""
    return ConfigDict(json_schema_extra={"examples": [fields]})


class Message(BaseModel):
    """Base of all that crosses a wire: read tolerantly (unknown fields are passed over), written canonically."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        frozen=True,
        extra="ignore",
    )

    def to_json(self) -> bytes:
        """UTF-8 JSON as it stands on the wire."""
        return self.__pydantic_serializer__.to_json(self, by_alias=True, exclude_none=True)

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Reads UTF-8 JSON; raises `pydantic.ValidationError`, which names every field at fault."""
        return cls.model_validate_json(raw)
