"""Checks of what surrounds a worker: mail server, folder of its state, and the URLs that workers advertise."""

import asyncio
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path

import aiohttp
from yarl import URL

from ecosystem.doctor.finding import Finding, ok, problem, warning
from runtime.common.settings import Settings
from runtime.errors import SideEffectError
from runtime.kafka import aiokafka_internals, clients
from runtime.mail import connections

_FREE_BYTES = 1024**3
"""Below this free space a state folder is likely to fill up within a day."""
_ANSWER_S = 5.0
_CLOCK_S = 5.0


async def check_mail(settings: Settings) -> list[Finding]:
    """Connects, greets and logs in as the e-mail service does; sends nothing."""
    where = f"{settings.smtp_host}:{settings.smtp_port}"
    try:
        connection = await connections.connect(settings, connections.host_name())
    except SideEffectError as error:
        return [
            problem(
                "mail",
                f"{where}: {error.summary}",
                "E-mails wait, and are dead-lettered after SIDE_EFFECT_TIMEOUT_S.",
                "check SMTP_HOST, SMTP_PORT, SMTP_SECURITY, SMTP_USER and SMTP_PASSWORD, and that the server runs",
            )
        ]
    connection.close()
    return [ok("mail", f"{where} accepts us")]


async def check_state(settings: Settings) -> list[Finding]:
    """Whether a worker can keep its state in `STATE_DIR`."""
    folder = settings.state_dir.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    writable = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    return judge_state(folder, writable, shutil.disk_usage(existing).free)


def judge_state(folder: Path, writable: bool, free: int) -> list[Finding]:
    """Judges a folder for state. `free`: bytes."""
    if not writable:
        return [
            problem(
                "state",
                f"{folder} cannot be written to",
                "No worker of this user starts.",
                f"set STATE_DIR to a folder that user {os.geteuid()} can write to",
            )
        ]
    if free < _FREE_BYTES:
        return [
            warning(
                "state",
                f"{folder} has {free // 2**20} MiB left",
                "A worker whose disk is full ends.",
                "free the disk, or set STATE_DIR to another one",
            )
        ]
    return [ok("state", f"{folder} can be written to, {free // 2**30} GiB left")]


async def check_workers(settings: Settings) -> list[Finding]:
    """Whether the workers that are in a group answer at the URLs that they advertise, and their clocks."""
    urls = await _advertised(settings)
    if not urls:
        return [ok("workers", "none is in a group")]
    timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        answers = await asyncio.gather(*(_ask(session, url) for url in urls))
    return judge_workers(urls, dict(zip(urls, answers, strict=True)))


async def _advertised(settings: Settings) -> dict[str, list[str]]:
    """The URLs that workers advertise to the other members of their groups, each with the ids of the members."""
    urls: dict[str, list[str]] = {}
    async with clients.admin(settings) as admin:
        listed = await admin.list_consumer_groups()
        for group in (name for name, *_ in listed if name.startswith(settings.topic_prefix)):
            _, members = await aiokafka_internals.describe_group(admin, group)
            for member_id, _, _, metadata, *_ in members:
                if url := _url_of(metadata):
                    urls.setdefault(str(url), []).append(member_id)
    return urls


def _url_of(metadata: bytes) -> str | None:
    """The URL in the metadata of a worker; `None` for members that are other programs."""
    try:
        return aiokafka_internals.member_metadata(metadata)[1].get("url")
    except (ValueError, IndexError, AttributeError):  # of a protocol that we do not know
        return None


async def _ask(session: aiohttp.ClientSession, url: str) -> tuple[str, float] | str:
    """Asks a worker. Returns the URL that it gives itself and the seconds by which its clock is ahead, or an error."""
    try:
        async with session.get(URL(url) / "readyz") as response:
            answer, date = await response.json(), response.headers.get("Date")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        return str(error) or type(error).__name__
    ahead_s = parsedate_to_datetime(date).timestamp() - time.time() if date else 0.0
    return str(answer.get("url", "")), ahead_s


def judge_workers(
    members: Mapping[str, Sequence[str]], answers: Mapping[str, tuple[str, float] | str]
) -> list[Finding]:
    """Judges advertised URLs. `members`: the ids of the members that advertise each; `answers`: what it answered."""
    found = []
    for url, ids in members.items():
        answer = answers[url]
        if len(ids) > 1:
            found.append(
                problem(
                    "workers",
                    f"{len(ids)} workers advertise {url}",
                    "All but one are refused by their group, and stay unready.",
                    "set ADVERTISED_URL of each worker to a URL that leads to it alone",
                )
            )
        if isinstance(answer, str):
            found.append(
                warning(
                    "workers",
                    f"nobody answers at {url}, which a worker advertises: {answer}",
                    "If other workers do not reach it either, requests for its keys fail.",
                    "set ADVERTISED_URL to a URL that other hosts reach, or run this command where they run",
                )
            )
            continue
        named, ahead_s = answer
        if named.rstrip("/") != url.rstrip("/"):
            found.append(
                problem(
                    "workers",
                    f"at {url}, which a worker advertises, another one answers: {named}",
                    "Requests for its keys go to a worker that does not own them.",
                    "set ADVERTISED_URL past any load balancer",
                )
            )
        if abs(ahead_s) > _CLOCK_S:
            found.append(
                warning(
                    "clocks",
                    f"the worker at {url} is {abs(ahead_s):.0f} s {'ahead' if ahead_s > 0 else 'behind'}",
                    "Deadlines, and signatures between workers, depend on it.",
                    "run NTP on all hosts: timedatectl set-ntp true",
                )
            )
    return found or [ok("workers", f"{len(members)} answer at the URLs that they advertise")]
