"""Batches of items that are loaded one by one, by threads of this process or by worker processes.

Batches are in order in both cases. A worker process writes into anonymous shared memory that this
process allocates; since it has no name, neither it nor the workers outlive the program, even if it
is killed.
"""

import atexit
import multiprocessing
import os
import pickle
import signal
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawArray
from typing import Any, NamedTuple

import numpy as np

from kdjax.data.available_memory import check_fits
from kdjax.errors import UserError

Item = dict[str, Any]  # numpy arrays or numbers
Batch = dict[str, np.ndarray]
LoadItem = Callable[[Any], Item]

_BUFFERED_BATCHES = 2  # per process
_MOST_WORKERS = 512
_unfinished: weakref.WeakSet[Any] = weakref.WeakSet()  # generators


def threads() -> ThreadPoolExecutor:
    """Threads that decode: as many as there are cores, up to 8.

    Pillow releases the interpreter lock while it decodes and resizes; with images of a few KiB more
    threads would only wait for that lock.
    """
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1))


def load_batches(rows: np.ndarray, load_item: LoadItem, workers: int) -> Generator[Batch]:
    """Yields one batch per row: what `load_item` returns for each of its items, stacked.

    Args:
      rows: [S, b, ...]; an item is rows[s, i].
      load_item: picklable if there are workers; all items have the same shapes and dtypes.
      workers: processes to load in; 0 loads in threads of this one.

    Yields:
      {name: [b, ...]}. Close the iterator (`.close()`) if it is not read to its end.

    Raises:
      UserError: `workers` is out of range, a worker was killed, the memory does not hold the
        buffers, or as `load_item`.
    """
    if not 0 <= workers <= _MOST_WORKERS:
        raise UserError(
            f"config.data.workers={workers}: must be 0 (in this process) to {_MOST_WORKERS}"
        )
    if not rows.size:
        rows = rows[:0]
    if workers:
        batches = _load_in_workers(rows, load_item, min(workers, len(rows)))
    else:
        batches = _load_in_threads(rows, load_item)
    _unfinished.add(batches)
    return batches


@atexit.register
def _close_unfinished() -> None:
    """Ends threads and workers before the interpreter shuts down."""
    for batches in list(_unfinished):
        if not batches.gi_running:
            batches.close()


def _load_in_threads(rows: np.ndarray, load_item: LoadItem) -> Generator[Batch]:
    executor = threads()
    pending: deque[list[Future[Item]]] = deque()
    try:
        for row in rows:
            pending.append([executor.submit(load_item, item) for item in row])
            if len(pending) > _BUFFERED_BATCHES:
                yield _stacked(pending.popleft())
        while pending:
            yield _stacked(pending.popleft())
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _stacked(futures: Sequence[Future[Item]]) -> Batch:
    items = [future.result() for future in futures]
    return {name: np.stack([item[name] for item in items]) for name in items[0]}


class _Worker(NamedTuple):
    """A process that loads every n-th row.

    Attributes:
      process: that process.
      connection: sends None for a row that is loaded, or an error; a worker waits for an answer
        before it overwrites a slot.
      slots: the latest rows, as structured arrays [b] in shared memory.
      count: number of its rows.
    """

    process: BaseProcess
    connection: Connection
    slots: list[np.ndarray]
    count: int  # type: ignore[assignment]  # of tuples it is a method


def _load_in_workers(rows: np.ndarray, load_item: LoadItem, count: int) -> Generator[Batch]:
    if not count:
        return
    item_type = _item_type(load_item(rows[0, 0]))
    check_fits(
        count * _BUFFERED_BATCHES * rows.shape[1] * item_type.itemsize,
        f"config.data.workers={count}: buffers",
        "set a smaller config.data.workers or config.batch_size",
    )
    workers = []
    try:
        for number in range(count):
            workers.append(_start(rows[number::count], load_item, item_type))
        for step in range(len(rows)):
            yield _received(workers[step % count], step // count)
    finally:
        _end(workers)


def _item_type(item: Item) -> np.dtype:
    """The structured dtype that holds one item."""
    arrays = {name: np.asarray(value) for name, value in item.items()}
    return np.dtype([(name, array.dtype, array.shape) for name, array in arrays.items()])


def _start(rows: np.ndarray, load_item: LoadItem, item_type: np.dtype) -> _Worker:
    context = multiprocessing.get_context("spawn")
    size = rows.shape[1] * item_type.itemsize
    memory = [RawArray("b", size) for _ in range(min(_BUFFERED_BATCHES, len(rows)))]
    connection, other_end = context.Pipe()
    process = context.Process(
        target=_work, args=(other_end, memory, item_type, rows, load_item), daemon=True
    )
    try:
        process.start()
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UserError(
            f"config.data.workers: the source or the augmentation cannot be sent to a process "
            f"({error}); define it in a module that processes can import, or set workers to 0"
        ) from error
    finally:
        other_end.close()
    slots = [np.frombuffer(part, item_type) for part in memory]
    return _Worker(process, connection, slots, len(rows))


def _received(worker: _Worker, number: int) -> Batch:
    """A copy of the row `number` of a worker, whose slot may then be overwritten."""
    try:
        error = worker.connection.recv()
        if error is not None:
            raise error
        slot = worker.slots[number % len(worker.slots)]
        batch = {name: np.array(slot[name]) for name in slot.dtype.names or ()}
        if number + len(worker.slots) < worker.count:
            worker.connection.send(None)
    except (EOFError, ConnectionError) as error:
        raise UserError(
            "a process of config.data.workers was ended from outside; if the machine is short of "
            "memory, set fewer workers or a smaller config.batch_size"
        ) from error
    return batch


def _end(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        worker.process.join(timeout=5)
        if worker.process.exitcode is None:
            worker.process.kill()
            worker.process.join()
        worker.process.close()
        worker.connection.close()


def _work(
    connection: Connection,
    memory: list[Any],
    item_type: np.dtype,
    rows: np.ndarray,
    load_item: LoadItem,
) -> None:
    """The main loop of a worker process: loads rows until all are sent or its parent ends."""
    for name in ("SIGINT", "SIGHUP"):  # sent to the whole terminal; the parent ends its workers
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    slots = [np.frombuffer(part, item_type) for part in memory]
    try:
        for number, row in enumerate(rows):
            if number >= len(slots):
                connection.recv()
            error = _fill(slots[number % len(slots)], row, load_item)
            connection.send(error)
            if error is not None:
                return
    except (EOFError, ConnectionError):
        return  # the parent is gone


def _fill(slot: np.ndarray, row: np.ndarray, load_item: LoadItem) -> Exception | None:
    """Loads the items of a row into a slot; returns the error, if any."""
    try:
        for place, argument in enumerate(row):
            for name, value in load_item(argument).items():
                slot[name][place] = value
    except UserError as error:
        return error
    except Exception:
        return RuntimeError(f"a worker failed:\n{traceback.format_exc()}")
    return None
