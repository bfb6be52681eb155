"""How the process of a command ends: with its status, whatever goes on in other threads."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

_PATIENCE = 5.0  # seconds that threads have for what they do when a command has failed


def run_and_exit(main: Callable[[list[str]], int], argv: list[str]) -> NoReturn:
    """Exits with the status of `main(argv)`; 1, after a traceback, if it raises.

    Python waits for threads as it exits. Those of a write that failed may wait for ever:
    after a failure the process is ended, if they are still there after a while.
    """
    try:
        status = main(argv)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    if status != 0:
        threading.Thread(target=_end_later, args=(status,), daemon=True).start()
    sys.exit(status)


def _end_later(status: int) -> None:
    time.sleep(_PATIENCE)
    os._exit(status)
