"""Numbers, speed and training of kdjax on a GPU machine without a network: one command."""
