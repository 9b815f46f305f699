"""Convolutions with a backward pass of their own.

It decides in which dtype the input is kept, and how CPUs compute the gradients.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

from mlf_jax.layers.narrow_integers import CONVOLUTION_INPUT, narrow, widen
from mlf_jax.layers.spiking_units import Range
from mlf_jax.neuron import membrane_dtype, vary_alike

# Whether gradients are traced for CPUs in a form of their own.
_cpu_has_own_form = True
# Most numbers in the patches that are held at once: 2 MB of float32, which stay
# in the cache of a processor.
_MOST_IN_PATCHES = 2**19


@contextlib.contextmanager
def as_on_accelerators() -> Iterator[None]:
  """Traces gradients for CPUs in JAX's form, as accelerators compute them.

  For estimates of accelerators. XLA counts the operations of a loop only once,
  and the form for CPUs is a loop. It holds in all threads.
  """
  global _cpu_has_own_form
  _cpu_has_own_form = False
  try:
    yield
  finally:
    _cpu_has_own_form = True


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
      as_jax = functools.partial(_gradients, apply)
      if not (_cpu_has_own_form and _is_dense_2d(lhs, **kwargs)):
        return as_jax(lhs, rhs, g)
      pads = padding
      if isinstance(padding, str):
        shapes = lhs.shape[1:3], rhs.shape[:2]
        pads = jax.lax.padtype_to_pads(*shapes, strides, padding)
      if min(map(min, pads)) < 0 or not g.size:
        return as_jax(lhs, rhs, g)
      on_cpu = functools.partial(_gradients_on_cpu, strides, pads)
      return jax.lax.platform_dependent(lhs, rhs, g, cpu=on_cpu, default=as_jax)

    with_gradients = jax.custom_vjp(apply)
    with_gradients.defvjp(forward, backward)
    return with_gradients(*vary_alike(lhs, rhs))

  return conv


def _is_dense_2d(
  lhs,
  lhs_dilation=None,
  rhs_dilation=None,
  feature_group_count=1,
  batch_group_count=1,
  preferred_element_type=None,
  **kwargs,
):
  """True for a 2-D convolution that has neither dilation nor groups."""
  del kwargs  # The layout is that of `nn.Conv`; CPUs know one precision.
  counts = {feature_group_count, batch_group_count}
  counts |= {*(lhs_dilation or ()), *(rhs_dilation or ())}
  return lhs.ndim == 4 and counts == {1} and preferred_element_type is None


def _gradients(apply, lhs, rhs, g):
  """Cotangents of input and kernel, as JAX computes them."""
  (d_lhs,) = jax.linear_transpose(lambda lhs: apply(lhs, rhs), lhs)(g)
  (d_rhs,) = jax.linear_transpose(lambda rhs: apply(lhs, rhs), rhs)(g)
  return d_lhs, d_rhs


def _gradients_on_cpu(strides, padding, lhs, rhs, g):
  """Cotangents of input and kernel, in forms that XLA makes fast on CPUs."""
  d_lhs = _input_cotangent(strides, padding, lhs, rhs, g)
  return d_lhs, _kernel_cotangent(strides, padding, lhs, rhs, g)


def _input_cotangent(strides, padding, lhs, rhs, g):
  """Cotangent of the input: a convolution of `g` for each phase of the strides.

  JAX makes one convolution of `g` with zeros between its pixels. For strides
  of 2 it takes CPUs up to five times as long as the four without the zeros.
  The channels come last: outside of loops XLA brings a convolution into this
  form itself, inside a loop it does not, and a step of DS-ResNet-20 for
  CIFAR-10 took 50 times as long.

  With the stride s and the padding l before the first pixel, pixel s q + a has
  met tap s m + c of the window q + d - m, where d and c are quotient and rest
  of (a + l) / s, for every m.
  """
  samples, *pixels, channels = lhs.shape
  counts = [-(-n // s) for n, s in zip(pixels, strides, strict=True)]
  phases = []
  for offsets in itertools.product(*map(range, strides)):
    kernel, pads = rhs, []
    for axis, (a, s, (low, _)) in enumerate(
      zip(offsets, strides, padding, strict=True)
    ):
      d, c = divmod(a + low, s)
      kernel = kernel[c::s] if axis == 0 else kernel[:, c::s]
      windows = g.shape[1 + axis]
      pads.append((kernel.shape[axis] - 1 - d, counts[axis] - windows + d))
    phases.append(
      jax.lax.conv_general_dilated(
        g,
        kernel[::-1, ::-1].swapaxes(2, 3),
        (1, 1),
        pads,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      )
      if kernel.size
      else jnp.zeros((samples, *counts, channels), g.dtype)
    )
  (rows, columns), (down, right) = counts, strides
  phases = jnp.stack(phases, axis=3)
  phases = phases.reshape(samples, rows, columns, down, right, channels)
  d_lhs = phases.swapaxes(2, 3).reshape(
    samples, rows * down, columns * right, channels
  )
  return d_lhs[:, : pixels[0], : pixels[1]]


def _kernel_cotangent(strides, padding, lhs, rhs, g):
  """Cotangent of a kernel: patches of the input times `g`, a matrix product.

  JAX makes a convolution of it whose kernel `g` is as large as the image, which
  takes CPUs two to ten times as long. Equal chunks of samples are taken one
  after the other, so that their patches stay in the cache.
  """
  (height, width, channels, features), (down, right) = rhs.shape, strides
  samples, rows, columns, _ = g.shape
  patch_size = height * width * channels
  most = max(1, _MOST_IN_PATCHES // (rows * columns * patch_size))
  chunk_size = max(
    n for n in range(1, min(most, samples) + 1) if samples % n == 0
  )

  def add(total, chunk):
    x, g = chunk
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    patches = [
      x[:, i:, j:][:, : down * rows : down, : right * columns : right]
      for i in range(height)
      for j in range(width)
    ]
    return total + jnp.einsum(
      'nhwp,nhwo->po',
      jnp.concatenate(patches, axis=-1),
      g,
      preferred_element_type=total.dtype,
    ), None

  # Float32 or wider, as membranes are.
  zeros = jnp.zeros((patch_size, features), membrane_dtype(rhs.dtype))
  zeros, _ = vary_alike(zeros, g)
  chunks = [a.reshape(-1, chunk_size, *a.shape[1:]) for a in (lhs, g)]
  total, _ = jax.lax.scan(add, zeros, chunks)
  return total.reshape(rhs.shape).astype(rhs.dtype)
