"""Convolutions with a backward pass of their own.

It decides in which dtype the input is kept, and how CPUs compute the gradients.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mlf_jax.layers.narrow_integers import CONVOLUTION_INPUT, narrow, widen
from mlf_jax.layers.spiking_units import Range
from mlf_jax.neuron import membrane_dtype, vary_alike

# Numbers in the patches of an input at a time: 2 MB of float32.
_PATCHES = 2**19


def conv_general_dilated(value_range: Range | None) -> Callable:
  """`jax.lax.conv_general_dilated` for `nn.Conv`, with its own backward pass.

  Args:
    value_range: range of the whole numbers that the input holds, which is then
      kept in the narrowest dtype; None if it holds other numbers.
  """

  def conv(lhs, rhs, strides, padding, **kwargs):
    def apply(lhs, rhs):
      return jax.lax.conv_general_dilated(lhs, rhs, strides, padding, **kwargs)

    def forward(lhs, rhs):
      kept = narrow(lhs, value_range, CONVOLUTION_INPUT)
      return apply(kept.astype(lhs.dtype), rhs), (kept, rhs)

    def backward(residuals, g):
      kept, rhs = residuals
      lhs, g = widen(kept, g, rhs.dtype)
      of_jax = functools.partial(_gradients, apply)
      if not _is_dense(**kwargs):
        return of_jax(lhs, rhs, g)
      on_cpu = functools.partial(_gradients_on_cpu, strides, padding)
      return jax.lax.platform_dependent(lhs, rhs, g, cpu=on_cpu, default=of_jax)

    with_gradients = jax.custom_vjp(apply)
    with_gradients.defvjp(forward, backward)
    return with_gradients(*vary_alike(lhs, rhs))

  return conv


def _is_dense(
  lhs_dilation=(), rhs_dilation=(), feature_group_count=1, **kwargs
):
  """Whether a convolution has neither dilation nor groups of channels."""
  return {*lhs_dilation, *rhs_dilation, feature_group_count} <= {1}


def _gradients(apply, lhs, rhs, g):
  """Cotangents of input and kernel, as JAX computes them."""
  (d_lhs,) = jax.linear_transpose(lambda lhs: apply(lhs, rhs), lhs)(g)
  (d_rhs,) = jax.linear_transpose(lambda rhs: apply(lhs, rhs), rhs)(g)
  return d_lhs, d_rhs


def _gradients_on_cpu(strides, padding, lhs, rhs, g):
  """Cotangents of input and kernel, in forms that XLA for CPUs computes fast.

  The cotangent of the input is a convolution whose channels come last. Outside
  of loops XLA brings it into this form itself. Inside a loop it does not, and a
  step of DS-ResNet-20 for CIFAR-10 took 50 times as long.
  """
  window, pixels = rhs.shape[:2], lhs.shape[1:3]
  if isinstance(padding, str):
    padding = jax.lax.padtype_to_pads(pixels, window, strides, padding)
  opposite = []
  for size, length, stride, (low, high) in zip(
    window, pixels, strides, padding, strict=True
  ):
    unread = (length + low + high - size) % stride
    opposite.append((size - 1 - low, size - 1 - high + unread))
  d_lhs = jax.lax.conv_general_dilated(
    g,
    rhs[::-1, ::-1].swapaxes(2, 3),
    (1, 1),
    opposite,
    lhs_dilation=strides,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  return d_lhs, _kernel_cotangent(lhs, rhs, g, strides, padding)


def _kernel_cotangent(lhs, rhs, g, strides, padding):
  """Cotangent of a kernel: patches of the input times `g`, a matrix product.

  As a convolution whose kernel is as large as the image, which JAX makes of it,
  it took two to ten times as long. A few samples at a time keep the patches in
  the processor's cache.
  """
  (height, width, channels, features), (down, right) = rhs.shape, strides
  samples, rows, columns, _ = g.shape
  patch = height * width * channels
  most = max(1, _PATCHES // (rows * columns * patch))
  few = max(n for n in range(1, most + 1) if samples % n == 0)

  def add(total, samples):
    x, g_few = samples
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    patches = [
      x[:, i:, j:][:, : down * rows : down, : right * columns : right]
      for i in range(height)
      for j in range(width)
    ]
    return total + jnp.einsum(
      'nhwp,nhwo->po',
      jnp.concatenate(patches, axis=-1),
      g_few,
      preferred_element_type=total.dtype,
    ), None

  zeros = jnp.zeros((patch, features), membrane_dtype(rhs.dtype))
  zeros, _ = vary_alike(zeros, g)
  turns = [a.reshape(samples // few, few, *a.shape[1:]) for a in (lhs, g)]
  total, _ = jax.lax.scan(add, zeros, turns)
  return total.reshape(rhs.shape).astype(rhs.dtype)
