"""The loop, and the step that it repeats."""
