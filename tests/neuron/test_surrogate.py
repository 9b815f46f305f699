"""Surrogate derivatives against their closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlf_jax import UserError
from mlf_jax.neuron import surrogate


@pytest.mark.parametrize('width', [0.5, 1.0, 2.0])
@pytest.mark.parametrize('kind', surrogate.SURROGATES)
def test_peak_symmetry_and_area(x64, kind, width):
  h = lambda z: surrogate.derivative(jnp.asarray(z), width, kind)
  np.testing.assert_allclose(h(0.0), 1 / width, rtol=1e-12)
  z = np.linspace(0.001, 7, 50)
  np.testing.assert_allclose(h(z), h(-z), rtol=1e-9, atol=1e-12)
  # Midpoints of cells that do not straddle a window's edge.
  bound, cells = 1000.0, 1_000_000
  z = (np.arange(cells) + 0.5) * (2 * bound / cells) - bound
  area = float(h(z).sum()) * 2 * bound / cells
  # The arctan's tails beyond the bound hold 2 / pi * width / (pi * bound).
  assert area == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
  ('kind', 'expected'),
  [
    ('rectangular', [0.5, 0.5, 0.0, 0.0]),
    ('arctan', 0.5 / (1 + (np.pi * np.array([0.0, 0.9, 1.0, 3.0]) / 2) ** 2)),
    ('triangular', [0.5, 0.275, 0.25, 0.0]),
    (
      'sigmoid',
      2 / (2 + 2 * np.cosh(2 * np.array([0.0, 0.9, 1.0, 3.0]))),
    ),
  ],
)
def test_closed_form_at_width_two(x64, kind, expected):
  z = np.array([0.0, 0.9, 1.0, 3.0])
  # sigmoid: 2 s (1 - s) at 2z is 2 / (2 + 2 cosh 2z)
  np.testing.assert_allclose(
    surrogate.derivative(z, 2.0, kind), expected, rtol=1e-9, atol=1e-12
  )


@pytest.mark.parametrize('kind', surrogate.SURROGATES)
def test_window_is_centred_on_its_threshold(x64, kind):
  u = jnp.linspace(-1, 5, 61)
  for threshold in (0.6, 1.6, 2.6):
    du, dv = jax.grad(
      lambda u, v: surrogate.spike(u, v, 0.8, kind).sum(), argnums=(0, 1)
    )(u, threshold)
    h = surrogate.derivative(u - threshold, 0.8, kind)
    np.testing.assert_array_equal(du, h)
    np.testing.assert_allclose(dv, -h.sum(), rtol=1e-12)


def test_spike_is_strict():
  spikes = surrogate.spike(jnp.array([0.5, 0.6, 0.7]), np.float32(0.6))
  np.testing.assert_array_equal(spikes, [0, 0, 1])


def test_mistakes():
  with pytest.raises(UserError, match="did you mean 'sigmoid'"):
    surrogate.spike(jnp.zeros(3), 0.6, 1.0, 'sigmoidal')
  with pytest.raises(UserError, match='positive number, got -1'):
    surrogate.derivative(jnp.zeros(3), -1)
  with pytest.raises(UserError, match='u must be floating-point'):
    surrogate.spike(jnp.zeros(3, jnp.int32), 0.6)
  with pytest.raises(UserError, match='z must be floating-point'):
    surrogate.derivative(jnp.zeros(3, jnp.int32))
  with pytest.raises(UserError, match=r'rank of u, 2, got shape \(3,\)'):
    surrogate.spike(jnp.zeros((2, 3)), jnp.ones(3))
