"""Settings of the check-in service."""

from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, field_validator

from runtime.common.settings import ServiceSettings


class CheckinSettings(ServiceSettings):
    """Database, port and time zone."""

    checkin_database_url: SecretStr | None = Field(
        default=None, description="`postgresql://user:password@host:port/database` of the check-in service"
    )
    checkin_port: int = Field(
        default=3000,
        ge=0,
        le=65535,
        description="Second port of the check-in service, if it is free and HTTP_PORT is not 0; 0 for none",
    )
    checkin_time_zone: str = Field(
        default="Asia/Bangkok", description="IANA name of the time zone of times in check-ins"
    )

    @field_validator("checkin_time_zone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):  # of nothing, of what is no name, of a folder of zones
            raise ValueError(f"{value!r} is no time zone such as Asia/Bangkok or UTC") from None
        return value
