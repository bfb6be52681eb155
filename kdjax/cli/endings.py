"""Exit of a command's process with its status, even if other threads are still blocked."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

_PATIENCE = 5.0  # seconds that threads have to finish after a command has failed


def run_and_exit(main: Callable[[list[str]], int], argv: list[str]) -> NoReturn:
    """Exits with the status of `main(argv)`; 1, after a traceback, if it raises.

    At exit Python waits for other threads, and those of a failed write may block for ever. After a
    failure the process is therefore ended if they have not finished after a few seconds.
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
