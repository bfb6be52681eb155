"""Sweeps: the same training with several seeds and settings, on one device or many.

    python -m kdjax.sweep --config mcl:digits dml:digits --seeds 0,1,2 \
        --grid config.optimizer.learning_rate=0.1,0.05 --runs runs/sweep

See `kdjax.sweep.command_line`.
"""
