"""Ray's own processes: watched while a run waits for answers, and ended with it, whatever state they are in.

Ray notices the death of its `gcs_server` only after a minute, and then ends this very process without a word; what its
`raylet` started outlives a `raylet` that was killed; and a Ray that did not come up in time leaves what it had started.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress

import psutil
import ray

_NEEDED = ("gcs_server", "raylet")
_OUT_OF_REACH = 30.0  # seconds without a connection after which the head is given up
_RAYS_FOLDER = os.path.dirname(ray.__file__)


class Processes:
    """What Ray starts for this process from now on, and all that these start."""

    def __init__(self) -> None:
        self.others = {child.pid for child in psutil.Process().children()}
        self.known: dict[int, psutil.Process] = {}
        self.needed: dict[int, str] = {}

    def look(self) -> None:
        """Remember who is there: the children of a process that dies are nobody's."""
        for child in psutil.Process().children():
            if child.pid not in self.others and self._is_rays(child):
                with suppress(psutil.Error):
                    if child.pid not in self.needed and child.name() in _NEEDED:
                        self.needed[child.pid] = child.name()
                    self.known |= {one.pid: one for one in (child, *child.children(recursive=True))}

    def _is_rays(self, child: psutil.Process) -> bool:
        if child.pid in self.known:
            return True
        with suppress(psutil.Error):
            return any(_RAYS_FOLDER in word for word in child.cmdline())
        return False

    def lost(self) -> str | None:
        """Which of the processes that Ray cannot do without has died, if one has."""
        self.look()
        for pid, name in self.needed.items():
            if not _runs(self.known[pid]):
                with suppress(psutil.Error):
                    self.known[pid].wait(0)  # or its number stays taken, which its workers look for
                return f"its {name} died"
        return None

    def end(self) -> None:
        """Kill what still runs."""
        self.look()
        for one in self.known.values():
            with suppress(psutil.Error):
                one.kill()
        psutil.wait_procs(list(self.known.values()), timeout=5)
        self.known.clear()
        self.needed.clear()


def _runs(one: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return one.is_running() and one.status() != psutil.STATUS_ZOMBIE
    return False


class Head:
    """The address at which the `gcs_server` of a cluster takes connections, of one that was joined too."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.where, self.reached = (host.strip("[]"), int(port)), time.monotonic()

    def lost(self) -> str | None:
        """Why the cluster is given up, if it is."""
        try:
            socket.create_connection(self.where, timeout=5).close()
            self.reached = time.monotonic()
        except ConnectionRefusedError:
            return "its gcs_server is not there any more"
        except OSError as error:
            if time.monotonic() - self.reached > _OUT_OF_REACH:
                return f"its head could not be reached for {_OUT_OF_REACH:g} seconds ({error})"
        return None
