"""Logging: one event a line, `key=value` in the message, as text or JSON on stderr."""

import json
import logging
import sys
from datetime import UTC, datetime

from runtime.common.settings import Settings

# Logged from WARNING on: lower levels cost a tenth of the CPU time and repeat our lines.
_NOISY = ("faust", "mode", "asyncio", "aiohttp", "runtime.faust_adapter.app", "runtime.faust_adapter.transport")
# Logs retries as errors, while a broker starts or a leader moves. Its callers log failures.
_ALARMING = ("aiokafka",)


class LogRateLimiter:
    """Limits the rate of a log line, so that a thousand failures do not make a thousand lines."""

    LINES, WITHIN_S = 5, 60.0

    def __init__(self) -> None:
        self._since = float("-inf")
        self._lines = self._suppressed = 0

    def permit(self, now: float) -> int | None:
        """The number of lines suppressed before this one; `None` to suppress this one. `now`: seconds of any clock."""
        if now - self._since >= self.WITHIN_S:
            self._since, self._lines = now, 0
        if self._lines >= self.LINES:
            self._suppressed += 1
            return None
        self._lines += 1
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed


class JsonFormatter(logging.Formatter):
    """A line of JSON: time, level, logger, event, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(settings: Settings) -> None:
    """Sets up the root logger of a worker process."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.log_format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    if settings.log_level != "debug":
        for name in _ALARMING:
            logging.getLogger(name).setLevel(logging.CRITICAL)
