"""Object detection: pure functions of boxes, and detectors on kdjax's networks.

Boxes are `[..., 4]`, `x1 y1 x2 y2` in pixels of the image that the network sees, `x2` and `y2`
exclusive (no +1). Every array has a static shape: where images have different numbers of boxes, the
arrays are padded, and a mask `valid` marks the entries that are not padding. Functions take one
image; `jax.vmap` applies them to batches.
"""
