"""Research on the methods: the roll call task, warm starts, the drift demo, and switches of RLCSD beyond the paper.

The core never imports this package. `plugins.load_experiments` calls `register` when a config names a method or task
that the core does not know, and the command line finds the commands of `commands.py` in the same way.
"""

from __future__ import annotations


def register() -> None:
    """Register the methods and tasks of this package with the registries of the core."""
    from .. import methods
    from ..tasks import registry
    from .rlcsd_extended import RLCSDExtended
    from .roll_call import RollCallParameters, roll_call_task

    methods.register(RLCSDExtended)
    registry.register("roll_call", RollCallParameters, roll_call_task)
