"""Engines that end badly, for `test_doctor.py`: in a module that imports nothing, so that their processes start fast."""

import os
import signal
import time


def killed(pipe, config, log):
    os.kill(os.getpid(), signal.SIGKILL)


def hanging(pipe, config, log):
    time.sleep(600)
