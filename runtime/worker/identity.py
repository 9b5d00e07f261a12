"""Instance name of a worker, stored with its state, and the lock on its state directory."""

import fcntl
import uuid
from pathlib import Path
from typing import IO

from runtime.errors import StateDirInUse


class WorkerIdentity:
    """The instance name of the worker with this state directory. Locks the directory until `release`.

    A restarted worker has the same name, hence the same transactional ids: its start aborts the open transactions of
    the previous process at once. Raises `StateDirInUse` if another worker has the lock.
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
