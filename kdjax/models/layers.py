"""Layers with the conventions of PyTorch's, in NHWC."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from kdjax.models import narrowing
from kdjax.models.convolution import channel_sums
from kdjax.models.initial_values import uniform, variance_scaling
from kdjax.models.linear import Conv, Dense
from kdjax.numerics import accumulation_dtype

# torch: kaiming_normal_(mode='fan_out', nonlinearity='relu'), a plain (not truncated) normal.
KERNEL_INIT = variance_scaling(2.0, "fan_out", "normal")
# The same with mode='fan_in', that function's default.
FAN_IN_INIT = variance_scaling(2.0, "fan_in", "normal")
# What torch.nn.Conv2d starts with by itself: uniform in +-1 / sqrt(fan_in).
UNIFORM_INIT = variance_scaling(1 / 3, "fan_in", "uniform")


class BatchNorm(nn.Module):
    """Batch normalization over all axes but the last, with PyTorch's conventions.

    A batch is normalized with its *biased* variance; the running variance takes the *unbiased* one
    (times n / (n - 1), n the number of values per channel over all devices). `flax.linen.BatchNorm`
    keeps the biased one, which is visible for small batches. Statistics are computed in float32 for
    narrower inputs and in float64 for float64.

    With `axis_name` the moments are those of all devices along that mapped axis (synchronized
    BatchNorm: N devices compute what one device with the same global batch computes), except
    during `init`, which may run outside the map.

    Source: Ioffe and Szegedy 2015, algorithm 1; `torch.nn.BatchNorm2d` (its momentum 0.1 is 0.9
    here), `torch.nn.SyncBatchNorm`.

    Attributes:
      momentum: what is kept of the running statistics in one step.
      epsilon: added to the variance.
      dtype: of the output. Parameters and running statistics are float32.
      axis_name: mapped axis over which the statistics are shared, or None.
      scale_init: initializer of the scale.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: Any = jnp.float32
    axis_name: str | None = None
    scale_init: nn.initializers.Initializer = nn.initializers.ones_init()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Normalizes `x` `[..., C]`: by the batch's moments if `train`, else by the running ones.

        With `train`, the collection `batch_stats` must be mutable.
        """
        channels = (x.shape[-1],)
        scale = self.param("scale", self.scale_init, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), channels, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)

        summed = channel_sums.served(x)
        x = x.astype(accumulation_dtype(x.dtype))
        if train:
            axis_name = None if self.is_initializing() else self.axis_name
            mean, var, count = batch_moments(x, axis_name, by_library=summed)
            if not self.is_initializing():
                self._update(running_mean, mean)
                self._update(running_var, var * (count / max(count - 1, 1)))
        else:
            mean, var = running_mean.value, running_var.value

        # One multiplication and one addition per value. Its rounding is that of `x` itself.
        multiplier, offset = _affine(scale, bias, mean, var + self.epsilon)
        if train and summed:
            y = channel_sums.scale_and_shift(x, multiplier, offset)
        else:
            y = x * multiplier + offset
        return narrowing.widened(self, y.astype(self.dtype))

    def affine_in_evaluation(self) -> tuple[jax.Array, jax.Array]:
        """What values are multiplied by in evaluation, and what is added then; both `[C]`."""
        scale: jax.Array = self.get_variable("params", "scale")
        bias: jax.Array = self.get_variable("params", "bias")
        mean: jax.Array = self.get_variable("batch_stats", "mean")
        var: jax.Array = self.get_variable("batch_stats", "var")
        return _affine(scale, bias, mean, var + self.epsilon)

    def _update(self, running: nn.Variable[jax.Array], value: jax.Array) -> None:
        value = self.momentum * running.value + (1.0 - self.momentum) * value
        # The dtype is kept, so that a scan over steps can carry the statistics.
        running.value = jax.lax.stop_gradient(value.astype(running.value.dtype))


def _affine(
    scale: jax.Array, bias: jax.Array, mean: jax.Array, var: jax.Array
) -> tuple[jax.Array, jax.Array]:
    multiplier = scale * jax.lax.rsqrt(var)
    return multiplier, bias - mean * multiplier


def batch_moments(
    x: jax.Array, axis_name: str | None, *, by_library: bool = False
) -> tuple[jax.Array, jax.Array, int]:
    """Mean `[C]`, biased variance `[C]` and the number of values per channel of `x` `[..., C]`.

    The variance is that of the values less their mean. (The mean of the squares less the square of
    the mean has a relative error of epsilon * mean^2 / variance in float32, which is a tenth for
    means of a thousand deviations.) With `axis_name` the devices' moments are gathered, in one
    collective, and combined: the variance over all devices is the mean of their variances and the
    variance of their means.

    Source: Chan, Golub and LeVeque 1983, equations 2.1, for equal counts.
    """
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    if by_library:
        mean, var = channel_sums.moments(x)
    else:
        mean = x.mean(axes)
        var = jnp.square(x - mean).mean(axes)
    if axis_name is not None:
        with jax.named_scope("synchronized_moments"):
            means, variances = jax.lax.all_gather(jnp.stack([mean, var]), axis_name, axis=1)
        mean = means.mean(0)
        var = variances.mean(0) + jnp.square(means - mean).mean(0)
        count *= jax.lax.axis_size(axis_name)
    return mean, var, count


def conv(
    features: int,
    kernel_size: int = 3,
    stride: int = 1,
    *,
    groups: int = 1,
    dilation: int = 1,
    use_bias: bool = False,
    kernel_init: nn.initializers.Initializer = KERNEL_INIT,
    dtype: Any = jnp.float32,
    name: str | None = None,
) -> Conv:
    """A square convolution `[B, H, W, C] -> [B, H', W', features]`, without bias unless `use_bias`.

    Padding is `dilation * (kernel_size // 2)` on every side, as in the papers' code. ('SAME' would
    pad only below and to the right at stride 2.) The kernel `[k, k, C / groups, features]` starts
    as He's normal with fan-out unless `kernel_init` is given, a bias as zeros.
    """
    pad = dilation * (kernel_size // 2)
    return Conv(
        features,
        kernel_size=(kernel_size, kernel_size),
        strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        kernel_dilation=(dilation, dilation),
        feature_group_count=groups,
        use_bias=use_bias,
        kernel_init=kernel_init,
        dtype=dtype,
        name=name,
    )


def dense(
    in_features: int,
    features: int,
    *,
    use_bias: bool = True,
    dtype: Any = jnp.float32,
    name: str | None = None,
) -> Dense:
    """A fully connected layer `[B, in_features] -> [B, features]` with `torch.nn.Linear`'s start.

    Kernel and bias are uniform in +-1 / sqrt(in_features); the bias needs `in_features` to know.
    """
    start = uniform(in_features**-0.5)
    return Dense(
        features,
        use_bias=use_bias,
        kernel_init=start,
        bias_init=start,
        dtype=dtype,
        name=name,
    )


def global_average_pool(x: jax.Array) -> jax.Array:
    """The mean over space, `[B, H, W, C] -> [B, C]`, summed in float32 at least, in x's dtype."""
    return x.mean((1, 2), dtype=accumulation_dtype(x.dtype)).astype(x.dtype)


def max_pool(x: jax.Array, size: int, stride: int, padding: int = 0) -> jax.Array:
    """The largest value of each `size` x `size` window, `[B, H, W, C] -> [B, H', W', C]`.

    Padding, `padding` pixels on every side, is never the largest. Source: `torch.nn.MaxPool2d`.
    """
    pad = (padding, padding)
    return nn.max_pool(x, (size, size), (stride, stride), (pad, pad))


def average_pool(x: jax.Array, size: int, stride: int, padding: int = 0) -> jax.Array:
    """The mean of each `size` x `size` window, `[B, H, W, C] -> [B, H', W', C]`, in x's dtype.

    Padding, `padding` pixels on every side, counts as zeros. Summed in float32 at least. Source:
    `torch.nn.AvgPool2d`.
    """
    pad = (padding, padding)
    wide = x.astype(accumulation_dtype(x.dtype))
    return nn.avg_pool(wide, (size, size), (stride, stride), (pad, pad)).astype(x.dtype)


def channel_shuffle(x: jax.Array, groups: int) -> jax.Array:
    """Channel shuffle: the first channel of every group, then the second of every group, ...

    `[..., C] -> [..., C]`. Source: Zhang et al. 2018 (ShuffleNet), section 3.1;
    `torch.nn.ChannelShuffle`.
    """
    grouped = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    return grouped.swapaxes(-1, -2).reshape(x.shape)
