"""Classifies SMTP replies and connection errors: rejected, deferred with its destination, or an outage.

The whole table, step by step, is in docs/reference/mail-servers.md.
"""

import re
import ssl
from enum import StrEnum

import aiosmtplib

from runtime.errors import Outage, SideEffectDeferred, SideEffectError, SideEffectRejected


class Step(StrEnum):
    """A step of an SMTP dialogue."""

    CONNECT = "connect"
    EHLO = "EHLO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"


class Misconfiguration(Outage):
    """Login, sender, TLS or certificate are rejected: an operator has to act. Frequent attempts may lock us out."""

    longest_pause_s = 60.0


_ENHANCED = re.compile(r"\s*([245]\.\d{1,3}\.\d{1,3})\b")
"""An enhanced status code at the beginning of a reply's text (RFC 3463)."""

_CLIENT_CODES = frozenset({503, 530, 534, 535, 538})
"""Codes about the client, not the e-mail: bad sequence, authentication required, mechanism too weak, wrong password,
encryption required."""


def judge(step: Step, code: int, text: str, *, trusted: bool = True) -> SideEffectError:
    """The error for a reply that is not the expected one.

    Arguments:
        step: of the command.
        code: reply code. One that is none (RFC 5321, 4.2) is an error of the server.
        text: of the reply.
        trusted: the server has accepted other recipients from us lately, so a rejection by its policy concerns this
            recipient only.
    """
    match = _ENHANCED.match(text)
    enhanced = match[1] if match is not None else ""
    summary, reason = " ".join(part for part in (step, str(code), enhanced) if part), f"{step}: {code} {text}".strip()
    if not 400 <= code <= 599:
        return _transient(step, f"{step}: not a valid SMTP reply", f"{step} bad reply")
    if code < 500:
        return _transient(step, reason, summary)
    if code in _CLIENT_CODES or step not in (Step.MAIL, Step.RCPT, Step.DATA):
        return Misconfiguration(reason, summary)
    if step is Step.MAIL and code != 552 and enhanced not in {"5.3.4", "5.2.3"}:  # too large (RFC 1870, 6.1)
        return Misconfiguration(reason, summary)  # the sender is the same for all e-mails
    if step is Step.RCPT and enhanced.startswith("5.7.") and not trusted:
        return Misconfiguration(
            reason, summary
        )  # for example relaying denied: it would make every e-mail a dead letter
    return SideEffectRejected(text or str(code), summary)


def judge_error(step: Step, error: Exception) -> SideEffectError:
    """The error for a dialogue that was interrupted, or could not begin."""
    cause = error.__cause__ if isinstance(error.__cause__, ssl.SSLError) else error
    if isinstance(error, SideEffectError):
        return error
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return judge(step, error.code, error.message)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Misconfiguration(f"{step}: the certificate is not trusted: {cause}", f"{step} certificate")
    if isinstance(cause, ssl.SSLError):
        return Misconfiguration(f"{step}: TLS failed: {cause}", f"{step} TLS")
    if isinstance(error, FileNotFoundError | PermissionError):
        return Misconfiguration(f"{step}: SMTP_CA_FILE cannot be read: {error}", f"{step} SMTP_CA_FILE")
    if isinstance(error, TimeoutError):
        return _transient(step, f"{step}: no answer in time", f"{step} timeout")
    if isinstance(error, OSError):
        return _transient(
            step, f"{step}: {error}", f"{step} failed" if step is Step.CONNECT else f"{step} connection lost"
        )
    if isinstance(error, ValueError):  # an address that cannot be encoded in a command
        return SideEffectRejected(f"{step}: {error}", f"{step} {type(error).__name__}")
    return Misconfiguration(f"{step}: {error}", f"{step} {type(error).__name__}")


def _transient(step: Step, reason: str, summary: str) -> SideEffectError:
    """Retried later: with its destination once the server knows the recipient, before that with all e-mails."""
    return (SideEffectDeferred if step in (Step.RCPT, Step.DATA) else Outage)(reason, summary)
