"""How many files a worker may have open: RocksDB keeps some for each partition of each table."""

import logging
import resource

ENOUGH = 4096
"""Files. A worker with all services and the default of 4 partitions was seen to have 1,120 open."""

log = logging.getLogger(__name__)


def raise_limit() -> None:
    """Raises the soft limit to the hard one: most systems start an ordinary user's programs with 1,024.

    That is for programs that call `select` on high descriptors (systemd, "File Descriptor Limits"). The output of
    commands calls it on standard output and error alone, whose numbers are 1 and 2.
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
