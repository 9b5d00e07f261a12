"""What a mail server's answers mean for an e-mail: refused for good, put off with its destination, or all have to wait.

The whole table, step by step, is in docs/reference/mail-servers.md.
"""

import re
import ssl
from enum import StrEnum

import aiosmtplib

from runtime.errors import Outage, SideEffectDeferred, SideEffectError, SideEffectRejected


class Step(StrEnum):
    """How far a conversation has come."""

    CONNECT = "connect"
    EHLO = "EHLO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"


class Misconfigured(Outage):
    """The server is there and lets us do nothing: it takes a person to mend that, and too many tries lock us out."""

    longest_pause_s = 60.0


_ENHANCED = re.compile(r"\s*([245]\.\d{1,3}\.\d{1,3})\b")
"""RFC 3463, at the beginning of a reply's text."""

_OURS = frozenset({503, 530, 534, 535, 538})
"""Out of order, log in first, another way to log in, wrong password, encrypt first: none of it for the letter."""


def judge(step: Step, code: int, text: str, *, trusted: bool = True) -> SideEffectError:
    """What follows from a reply that is not the one hoped for.

    `trusted`: the server has lately taken other recipients from us, so that a refusal by its policy is meant for this
    one. What is no reply code (RFC 5321, 4.2) shows a broken server.
    """
    found = _ENHANCED.match(text)
    enhanced = found[1] if found is not None else ""
    summary, reason = " ".join(part for part in (step, str(code), enhanced) if part), f"{step}: {code} {text}".strip()
    if not 400 <= code <= 599:
        return _waits(step, f"{step}: no reply that makes sense", f"{step} bad reply")
    if code < 500:
        return _waits(step, reason, summary)
    if code in _OURS or step not in (Step.MAIL, Step.RCPT, Step.DATA):
        return Misconfigured(reason, summary)
    if step is Step.MAIL and code != 552 and enhanced not in {"5.3.4", "5.2.3"}:  # too large (RFC 1870, 6.1)
        return Misconfigured(reason, summary)  # the sender is the same for all letters
    if step is Step.RCPT and enhanced.startswith("5.7.") and not trusted:
        return Misconfigured(reason, summary)  # relaying denied, say: all letters would be dead letters at once
    return SideEffectRejected(text or str(code), summary)


def judge_error(step: Step, error: Exception) -> SideEffectError:
    """The same for a conversation that broke off, or never came about."""
    cause = error.__cause__ if isinstance(error.__cause__, ssl.SSLError) else error
    if isinstance(error, SideEffectError):
        return error
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return judge(step, error.code, error.message)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Misconfigured(f"{step}: the certificate is not to be trusted: {cause}", f"{step} certificate")
    if isinstance(cause, ssl.SSLError):
        return Misconfigured(f"{step}: TLS failed: {cause}", f"{step} TLS")
    if isinstance(error, FileNotFoundError | PermissionError):
        return Misconfigured(f"{step}: SMTP_CA_FILE cannot be read: {error}", f"{step} SMTP_CA_FILE")
    if isinstance(error, TimeoutError):
        return _waits(step, f"{step}: no answer in time", f"{step} timeout")
    if isinstance(error, OSError):
        return _waits(step, f"{step}: {error}", f"{step} failed" if step is Step.CONNECT else f"{step} connection lost")
    if isinstance(error, ValueError):  # an address that cannot stand on a line
        return SideEffectRejected(f"{step}: {error}", f"{step} {type(error).__name__}")
    return Misconfigured(f"{step}: {error}", f"{step} {type(error).__name__}")


def _waits(step: Step, reason: str, summary: str) -> SideEffectError:
    """For later: with its destination from where the server knows whom a letter is for, else with all others."""
    return (SideEffectDeferred if step in (Step.RCPT, Step.DATA) else Outage)(reason, summary)
