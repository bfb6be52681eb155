"""Programs of the benchmark in processes of their own, which work in turns."""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback

from experiments.gpu.programs import Job, peak_memory, program

LATE = "not done in time"


def share_the_card() -> None:
    """Before JAX is imported: it takes the memory that it needs, not most of the card's."""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"


def serve(connection, job: Job, tiny: bool) -> None:
    """The worker's process: builds the job, then a round for every message."""
    share_the_card()
    try:
        start = time.perf_counter()
        run_round = program(job, tiny)
        built = time.perf_counter() - start
        first, losses = run_round()
        connection.send({"built": built, "first": first, "losses": losses[:2]})
        while connection.recv():
            connection.send((run_round()[0], peak_memory(job.side)))
    except EOFError:
        pass
    except Exception:
        connection.send({"failed": traceback.format_exc()})


class Worker:
    """A job in a process of its own, asleep between rounds."""

    def __init__(self, job: Job, tiny: bool):
        context = multiprocessing.get_context("spawn")
        self.job = job
        self.connection, other_end = context.Pipe()
        self.process = context.Process(target=serve, args=(other_end, job, tiny), daemon=True)
        self.process.start()
        other_end.close()

    def receive(self, deadline: float):
        """The worker's next message, or None when there is none by then."""
        try:
            if self.connection.poll(max(0.0, deadline - time.monotonic())):
                return self.connection.recv()
        except EOFError:
            return {"failed": f"the process ended with status {self.process.exitcode}"}
        return None

    def round(self, deadline: float):
        """Seconds and peak memory of a round, or None when it is not done by then."""
        try:
            self.connection.send(True)
        except BrokenPipeError:
            return {"failed": f"the process ended with status {self.process.exitcode}"}
        return self.receive(deadline)

    def close(self) -> None:
        """Ends the process."""
        self.process.terminate()
        self.process.join()


class Starting:
    """Workers that have been started, and what they said when they were ready."""

    def __init__(self, tiny: bool, deadline: float):
        self.ready: dict[Job, Worker] = {}
        self.messages: dict[Job, dict] = {}
        self.lines: list[str] = []  # on those that are not ready
        self._tiny, self._deadline = tiny, deadline

    def start(self, jobs: list[Job]) -> list[Worker]:
        """Workers of jobs, which begin at once."""
        return [Worker(job, self._tiny) for job in jobs]

    def wait(self, workers: list[Worker]) -> None:
        """Until they are ready, or the deadline; who is late or failed ends."""
        for worker in workers:
            message = worker.receive(self._deadline)
            if message is None or "failed" in message:
                worker.close()
                reason = LATE if message is None else message["failed"].strip()
                self.lines.append(f"{' '.join(worker.job)}: {reason}")
            else:
                self.ready[worker.job], self.messages[worker.job] = worker, message
                print(f"ready: {' '.join(worker.job)}", flush=True)


def alternate(
    workers: dict[Job, Worker], rounds: int, deadline: float
) -> tuple[dict[Job, list[float]], dict[Job, int | None], list[str]]:
    """Seconds of every round of every job, A B C A B C, until the deadline; and peak memory.

    Returns:
      Both by job, and a line for every job whose round failed; it has no more rounds.
    """
    times: dict[Job, list[float]] = {job: [] for job in workers}
    memory: dict[Job, int | None] = {}
    lines, running = [], dict(workers)
    for number in range(rounds + 1):  # the first one warms up
        for job, worker in list(running.items()):
            message = worker.round(deadline)
            if message is None:
                return times, memory, lines
            if not isinstance(message, tuple):
                lines.append(f"{' '.join(job)}: {message['failed'].strip()}")
                del running[job]
                continue
            memory[job] = message[1]
            if number:
                times[job].append(message[0])
    return times, memory, lines
