"""Convolutions with a backward pass of their own.

It says in what dtype the input is kept, and how they run inside a loop.
"""

import functools
from collections.abc import Callable

import chex
import jax

from mlf_jax import neuron
from mlf_jax.models import memory


def of(conv: Callable, largest: int | None, in_loop: bool = False) -> Callable:
  """A convolution module, its attributes bound, with such a backward pass.

  Args:
    conv: the module.
    largest: if not None, its input is whole numbers from 0 to this, and is kept
      in the narrowest dtype that holds them.
    in_loop: whether it runs in a `jax.lax.scan`. It then has an odd kernel and
      leaves height and width as they are, without stride or dilation.
  """
  if largest is None and not in_loop:
    return conv
  return functools.partial(
    conv, conv_general_dilated=convolution(largest, in_loop)
  )


def convolution(largest: int | None, in_loop: bool = False) -> Callable:
  """`jax.lax.conv_general_dilated` for `nn.Conv`, as described for `of`."""

  def conv(lhs, rhs, *args, **kwargs):
    def apply(lhs, rhs):
      return jax.lax.conv_general_dilated(lhs, rhs, *args, **kwargs)

    def forward(lhs, rhs):
      kept = memory.narrowed(lhs, largest, memory.INPUT_OF_CONVOLUTION)
      return apply(kept.astype(lhs.dtype), rhs), (kept, rhs)

    def backward(residuals, g):
      kept, rhs = residuals
      lhs, g = memory.widened(kept, g, rhs.dtype)
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
    return with_gradients(*neuron.vary_alike(lhs, rhs))

  return conv


def _gradients(apply, lhs, rhs, g):
  """Cotangents of input and kernel, as JAX has them."""
  (d_lhs,) = jax.linear_transpose(lambda lhs: apply(lhs, rhs), lhs)(g)
  (d_rhs,) = jax.linear_transpose(lambda rhs: apply(lhs, rhs), rhs)(g)
  return d_lhs, d_rhs


def _channels_last_gradients(lhs, rhs, g):
  """The same as convolutions whose channels come last.

  XLA for CPUs brings others into this form, but not those inside a loop, which
  it runs far slower: DS-ResNet-20 for CIFAR-10 took 65 s a step instead of 1.3.
  """
  height, width = rhs.shape[:2]
  conv = functools.partial(
    jax.lax.conv_general_dilated,
    window_strides=(1, 1),
    padding=[(height // 2,) * 2, (width // 2,) * 2],
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  d_lhs = conv(g, rhs[::-1, ::-1].swapaxes(2, 3))
  # Channels of the input take the place of the batch, and the batch theirs.
  d_rhs = conv(lhs.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3))
  return d_lhs, d_rhs.transpose(1, 2, 0, 3)
