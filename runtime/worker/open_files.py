"""Limit of open files. RocksDB keeps several open for each partition of each table."""

import logging
import resource

ENOUGH = 4096
"""Open files. A worker with all services and the default of 4 partitions had 1,120."""

log = logging.getLogger(__name__)


def raise_limit() -> None:
    """Raises the soft limit to the hard one. Warns if that is less than `ENOUGH`.

    Most systems have a soft limit of 1,024, for programs that call `select` on high descriptors (systemd, "File
    Descriptor Limits"). Here only the output of commands does, on descriptors 1 and 2.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            log.warning("limit of open files not raised soft=%d hard=%d error=%s", soft, hard, error)
        else:
            soft = hard
    if soft != resource.RLIM_INFINITY and soft < ENOUGH:
        log.warning("few open files allowed limit=%d; raise the hard limit (`ulimit -Hn`, LimitNOFILE=)", soft)
