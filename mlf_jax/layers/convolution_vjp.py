"""Convolutions with a backward pass of their own.

It decides in which dtype the input is kept, and how convolutions run inside a
loop.
"""

import functools
from collections.abc import Callable

import chex
import jax

from mlf_jax.layers.narrow_integers import CONVOLUTION_INPUT, narrow, widen
from mlf_jax.layers.spiking_units import Range
from mlf_jax.neuron import vary_alike


def conv_general_dilated(
  value_range: Range | None, in_loop: bool = False
) -> Callable:
  """`jax.lax.conv_general_dilated` for `nn.Conv`, with its own backward pass.

  Args:
    value_range: range of the whole numbers that the input holds, which is then
      kept in the narrowest dtype; None if it holds other numbers.
    in_loop: whether the convolution runs in a `jax.lax.scan`. Its kernel must
      then be odd and leave height and width as they are, without stride or
      dilation.
  """

  def conv(lhs, rhs, *args, **kwargs):
    def apply(lhs, rhs):
      return jax.lax.conv_general_dilated(lhs, rhs, *args, **kwargs)

    def forward(lhs, rhs):
      kept = narrow(lhs, value_range, CONVOLUTION_INPUT)
      return apply(kept.astype(lhs.dtype), rhs), (kept, rhs)

    def backward(residuals, g):
      kept, rhs = residuals
      lhs, g = widen(kept, g, rhs.dtype)
      operands = (lhs, rhs, g)
      gradients = functools.partial(_gradients, apply)
      if not in_loop:
        return gradients(*operands)
      chex.assert_equal_shape([lhs[..., 0], g[..., 0]])
      return jax.lax.platform_dependent(
        *operands, cpu=_channels_last_gradients, default=gradients
      )

    with_gradients = jax.custom_vjp(apply)
    with_gradients.defvjp(forward, backward)
    return with_gradients(*vary_alike(lhs, rhs))

  return conv


def _gradients(apply, lhs, rhs, g):
  """Cotangents of input and kernel, as JAX computes them."""
  (d_lhs,) = jax.linear_transpose(lambda lhs: apply(lhs, rhs), lhs)(g)
  (d_rhs,) = jax.linear_transpose(lambda rhs: apply(lhs, rhs), rhs)(g)
  return d_lhs, d_rhs


def _channels_last_gradients(lhs, rhs, g):
  """Cotangents of input and kernel by convolutions whose channels come last.

  Outside of loops XLA for CPUs brings convolutions into this form itself.
  Inside a loop it does not, and a step of DS-ResNet-20 for CIFAR-10 took 50
  times as long.
  """
  height, width = rhs.shape[:2]
  conv = functools.partial(
    jax.lax.conv_general_dilated,
    window_strides=(1, 1),
    padding=[(height // 2,) * 2, (width // 2,) * 2],
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  d_lhs = conv(g, rhs[::-1, ::-1].swapaxes(2, 3))
  # The channels of the input take the place of the batch, and vice versa.
  d_rhs = conv(lhs.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3))
  return d_lhs, d_rhs.transpose(1, 2, 0, 3)
