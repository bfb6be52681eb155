"""Claims of runs: one holder, renewal, and what happens to the claims of the dead."""

import os
import threading
import time

from kdjax.sweep import claims


def test_one_of_many_gets_a_claim(tmp_path):
    barrier, taken = threading.Barrier(8), []

    def ask():
        barrier.wait()
        taken.append(claims.take(tmp_path, "a_lr=0.1_seed0"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(claim is not None for claim in taken) == 1
    assert f"process {os.getpid()}" in claims.holder(tmp_path, "a_lr=0.1_seed0")
    assert claims.take(tmp_path, "a_lr=0.1_seed1") is not None
    assert claims.holder(tmp_path, "b") == ""


def test_a_stale_claim_is_taken_over_once_and_its_holder_learns_of_it(tmp_path):
    dead = claims.take(tmp_path, "run")
    os.utime(tmp_path / "run.1", (time.time() - 100,) * 2)
    assert claims.take(tmp_path, "run", stale_after=200) is None
    heir = claims.take(tmp_path, "run", stale_after=50)
    assert heir is not None and claims.take(tmp_path, "run", stale_after=50) is None
    dead.renew()
    heir.renew()
    assert dead.lost.is_set() and not heir.lost.is_set()


def test_a_claim_is_renewed_while_it_is_kept_and_free_afterwards(tmp_path):
    claim = claims.take(tmp_path, "run", stale_after=0.2)
    with claims.kept(claim, stale_after=0.2):
        time.sleep(0.5)
        assert claims.take(tmp_path, "run", stale_after=0.2) is None
    assert not claim.lost.is_set()
    assert claims.take(tmp_path, "run") is not None


def test_what_is_exclusive_waits(tmp_path):
    order = []

    def second():
        with claims.exclusive(tmp_path, "rows"):
            order.append("second")

    with claims.exclusive(tmp_path, "rows"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
