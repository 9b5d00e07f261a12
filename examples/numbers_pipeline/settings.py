"""Settings of the numbers pipeline: each field is an environment variable of the same name in capitals."""

from pydantic import Field, SecretStr

from runtime.common.settings import ServiceSettings


class NumbersSettings(ServiceSettings):
    """The generator, and the database of the history."""

    numbers_rate: float = Field(default=2.0, gt=0, le=200, description="Inputs per second")
    numbers_count: int = Field(default=0, ge=0, description="Inputs in all; 0: until Ctrl-C")
    numbers_size: int = Field(default=3, ge=1, le=1000, description="Numbers in an input")
    numbers_jitter: float = Field(
        default=0.5, ge=0, le=1, description="Share of the pause between two inputs by which it varies; 0: regular"
    )
    numbers_database_url: SecretStr | None = Field(default=None, description="Database of the history")
