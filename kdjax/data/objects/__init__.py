"""Images with boxes of objects: readers, augmentation, and batches on a canvas.

Boxes are `[..., 4]`, `x1 y1 x2 y2` in pixels, `x2` and `y2` exclusive (no +1). All code runs on
the host, also in decoding processes, and does not need jax.
"""
