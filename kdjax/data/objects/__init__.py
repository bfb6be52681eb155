"""Images whose objects are marked by boxes: readers, augmentation, and batches on a canvas.

Boxes are `[..., 4]`, `x1 y1 x2 y2` in pixels, `x2` and `y2` exclusive (no +1). All of it runs on
the host, also in the processes that decode, which have no need of jax.
"""
