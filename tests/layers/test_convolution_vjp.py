"""Gradients of convolutions, beside those that JAX derives."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlf_jax.layers import convolution_vjp

LAYOUT = {'dimension_numbers': ('NHWC', 'HWIO', 'NHWC')}


@pytest.mark.parametrize(
  ('size', 'stride', 'padding', 'more'),
  [
    (3, 1, [(1, 1)] * 2, {}),
    (3, 2, [(1, 1)] * 2, {}),
    (3, 2, [(2, 0), (0, 3)], {}),
    (1, 2, [(0, 0)] * 2, {}),
    (5, 3, [(2, 2)] * 2, {}),
    (3, 2, 'SAME', {}),
    (3, 2, 'VALID', {}),
    # Left to JAX.
    (3, 1, 'SAME', {'rhs_dilation': (2, 2)}),
    (3, 1, 'SAME', {'feature_group_count': 3}),
    (3, 1, [(-1, 2)] * 2, {}),
    (11, 1, 'VALID', {}),
  ],
)
@pytest.mark.parametrize(
  ('samples', 'at_once'), [(0, 1), (5, 2), (6, 2), (6, 4), (6, 9)]
)
def test_gradients_are_those_of_jax(
  size, stride, padding, more, samples, at_once, monkeypatch
):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(samples, 9, 10, 3))
  channels = 3 // more.get('feature_group_count', 1)
  kernel = rng.normal(size=(size, size, channels, 6))
  settings = {**LAYOUT, **more}
  cotangents = []
  for conv in (
    jax.lax.conv_general_dilated,
    convolution_vjp.conv_general_dilated(None),
  ):

    def apply(x, kernel, conv=conv):
      return conv(x, kernel, (stride, stride), padding, **settings)

    with jax.enable_x64(True):
      y, pull = jax.vjp(apply, jnp.array(x), jnp.array(kernel))
      # 5 samples one by one, 6 in chunks of 2, 3 and 6.
      patches = at_once * y[:1, ..., 0].size * kernel[..., 0].size
      monkeypatch.setattr(convolution_vjp, '_MOST_IN_PATCHES', patches)
      rng = np.random.default_rng(1)
      cotangents.append(pull(jnp.array(rng.normal(size=y.shape))))
  for expected, got in zip(*cotangents, strict=True):
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
  ('argnums', 'cpu', 'accelerator'),
  [
    # Forward and the gradient of the input.
    ((0, 1), (2, 1), (3, 0)),
    # What nobody asks for, as in the first layer, is dropped.
    (1, (1, 1), (2, 0)),
  ],
)
def test_cpus_take_no_convolution_for_the_gradient_of_a_kernel(
  argnums, cpu, accelerator
):
  """Counts convolutions and loops in what the compiler is given."""
  conv = convolution_vjp.conv_general_dilated(None)

  def loss(x, kernel):
    return jnp.square(conv(x, kernel, (1, 1), 'SAME', **LAYOUT)).sum()

  arguments = jnp.ones((4, 9, 9, 2)), jnp.ones((3, 3, 2, 2))
  traced = jax.jit(jax.grad(loss, argnums)).trace(*arguments)
  texts = {
    platform: traced.lower(lowering_platforms=(platform,)).as_text()
    for platform in ('cpu', 'cuda', 'tpu')
  }
  counts = {
    platform: tuple(
      len(re.findall(rf'stablehlo\.{name}\b', text))
      for name in ('convolution', 'while')
    )
    for platform, text in texts.items()
  }
  assert counts == {'cpu': cpu, 'cuda': accelerator, 'tpu': accelerator}


def test_bfloat16_kernels_are_summed_in_float32(monkeypatch):
  """A thousand ones one after the other would stop at 256 in bfloat16."""
  monkeypatch.setattr(convolution_vjp, '_MOST_IN_PATCHES', 1)
  x = jnp.ones((1000, 1, 1, 1), jnp.bfloat16)
  kernel = jnp.ones((1, 1, 1, 1), jnp.bfloat16)
  conv = convolution_vjp.conv_general_dilated(None)
  _, pull = jax.vjp(
    lambda kernel: conv(x, kernel, (1, 1), 'SAME', **LAYOUT), kernel
  )
  (d_kernel,) = pull(jnp.ones_like(x))
  assert d_kernel.dtype == jnp.bfloat16
  assert float(d_kernel[0, 0, 0, 0]) == 1000
