"""Programs that take turns, and how often."""

import numpy as np

from kdjax.compaction import latency as speed


def test_programs_take_turns():
    order = []

    def program(name, seconds):
        def run(times):
            order.append((name, times))
            return times * seconds

        return run

    slow, fast = program("slow", 2.0), program("fast", 0.001)
    seconds = speed.alternate([slow, fast], rounds=5)
    np.testing.assert_allclose(seconds, [[2.0, 0.001]] * 5)
    assert order[-10:] == [("slow", 1), ("fast", 10)] * 5
    assert len(speed.alternate([slow, fast], rounds=9, budget=10)) == 4
    assert len(speed.alternate([slow, fast], rounds=9, budget=1)) == 3
