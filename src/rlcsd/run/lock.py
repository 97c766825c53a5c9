"""One process at a time writes to a run folder."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import InputError


class RunLock:
    """Held from the start of a run to its end. The system frees it when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = FileLock(folder / ".lock", timeout=0)

    def acquire(self) -> None:
        """Raise InputError if another process holds the folder, or if it cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout:
            raise InputError(
                f"{self.folder}: another process is training in this run folder; wait for it, stop it, or choose "
                "another run_name"
            ) from None
        except OSError as error:
            raise InputError(
                f"output_dir={self.folder.parent}: the run folder cannot be written there ({error.strerror})"
            ) from None

    def check(self) -> None:
        """Raise InputError if another process holds the folder now, before anything slow is done."""
        if self.folder.is_dir():
            self.acquire()
            self.release()

    def release(self) -> None:
        self._lock.release()
