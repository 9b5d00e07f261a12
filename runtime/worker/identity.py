"""Who a worker is across restarts: a name kept with its state, and a lock that keeps a second worker out."""

import fcntl
import uuid
from pathlib import Path
from typing import IO

from runtime.errors import StateDirInUse


class WorkerIdentity:
    """The name of the worker whose state lives in a folder; it is held until `release`.

    A successor has the same name, hence the same transactional ids, and ends at once what this one left open.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock: IO[str] = (folder / "worker.lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise StateDirInUse(
                f"another worker runs on {folder}: give each worker a STATE_DIR of its own, or stop the other one"
            ) from None
        self._lock.seek(0)
        self.name = self._lock.read().strip() or uuid.uuid4().hex
        self._lock.seek(0)
        self._lock.truncate()
        self._lock.write(self.name)
        self._lock.flush()

    def release(self) -> None:
        self._lock.close()
