"""The kernels for GPUs, interpreted on a CPU, and what they lower to."""

import functools
import sys
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from mlf_jax import mlf, neuron
from mlf_jax.neuron import MLFParams, _gpu, _vjp
from tests import golden_data, quick
from tests.neuron.test_mlf import current, pulled_back, scanned, state_of


def test_reference_spikes_and_gradient(interpreted, x64):
  data = golden_data.load('mlf_unit_K3_T10')
  run = functools.partial(pulled_back, mlf)
  spikes, dx = quick.jit(run)(data['x'], data['g'])
  np.testing.assert_array_equal(spikes, data['spikes'])
  np.testing.assert_allclose(dx, data['dx'], atol=1e-12)


# In segments of two timesteps: one, full or not; some in the loop and one after
# it. More than one block of neurons, with no whole number of channels.
@pytest.mark.parametrize(
  ('time', 'shape', 'affine', 'dtype', 'kind'),
  [
    (1, (), False, 'float64', 'triangular'),
    (3, (2, 3, 48), True, 'float64', 'arctan'),
    (8, (300,), False, 'float64', 'rectangular'),
    (5, (5, 7), True, 'float32', 'rectangular'),
    (5, (5, 7), False, 'bfloat16', 'sigmoid'),
  ],
)
def test_run_equals_step_over_time(
  interpreted, monkeypatch, time, shape, affine, dtype, kind
):
  """Spikes exactly, gradients of everything to rounding."""
  monkeypatch.setattr(_gpu, '_SEGMENT', 2)
  with jax.enable_x64(dtype == 'float64'):
    wide = neuron.membrane_dtype(jnp.dtype(dtype))
    params = MLFParams(
      jnp.asarray((0.6, 1.7), wide), jnp.asarray(0.4, wide), 1.1, kind
    )
    x = current((time, *shape), dtype=dtype)
    state = state_of(params, shape, dtype=wide)
    if not affine:
      affine = None
    else:
      draw = np.random.default_rng(5).uniform
      affine = neuron.Affine(
        *(jnp.asarray(draw(0.5, 1.5, shape[-1:]), wide) for _ in range(3))
      )
    cotangents = state_of(params, shape, 7, wide), current(x.shape, 3, dtype)

    def of_step(params, x, state, affine):
      return scanned(params, x if affine is None else affine(x), state)

    def pulled(simulate):
      @quick.jit
      def both(*operands):
        results, pull = jax.vjp(simulate, *operands)
        return results, pull(cotangents)

      return both(params, x, state, affine)

    results, gradients = pulled(neuron.run)
    expected, expected_gradients = pulled(of_step)
    np.testing.assert_array_equal(results[1], expected[1])
    assert results[1].dtype == dtype
    assert np.asarray(results[1]).any() or not shape
    tolerance = {'float64': 1e-12, 'float32': 1e-5, 'bfloat16': 1e-2}[dtype]
    if affine is None:
      chex.assert_trees_all_equal(results[0], expected[0])
    else:
      # A compiler may contract its product and sum.
      chex.assert_trees_all_close(results[0], expected[0], rtol=tolerance)
    to_wide = lambda a: np.asarray(a).astype(wide)
    chex.assert_trees_all_close(
      jax.tree.map(to_wide, gradients),
      jax.tree.map(to_wide, expected_gradients),
      rtol=tolerance,
      atol=tolerance,
    )
    assert all(np.any(g != 0) for g in jax.tree.leaves(gradients))


def test_vmap_over_inputs_and_parameters(interpreted):
  x = current((4, 7, 20))
  mapped = quick.jit(jax.vmap(mlf, in_axes=1, out_axes=1))(x)
  np.testing.assert_array_equal(mapped, mlf(x))
  params = [MLFParams((0.5, 1.5), 0.1), MLFParams((0.7, 1.7), 0.9)]
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
  mapped = quick.jit(jax.vmap(lambda p: neuron.run(p, x)[1]))(stacked)
  for i, p in enumerate(params):
    np.testing.assert_array_equal(mapped[i], neuron.run(p, x)[1])


@pytest.mark.filterwarnings('ignore:The Pallas Triton:DeprecationWarning')
@pytest.mark.parametrize('time', [4, 20])
def test_lowers_to_one_kernel_each_way(with_gpu, time):
  """Inside `shard_map`; no loop over timesteps is left outside of a kernel."""
  x = current((time, 16, 5))
  # An accelerator that need not be there.
  mesh = AbstractMesh(
    (8,),
    ('data',),
    axis_types=(AxisType.Auto,),
    abstract_device=AbstractDevice('NVIDIA H100', None, 'gpu'),
  )
  spec = P(None, 'data')
  lowered = jax.jit(
    jax.shard_map(
      functools.partial(pulled_back, mlf),
      mesh=mesh,
      in_specs=(spec, spec),
      out_specs=(spec, spec),
    )
  ).trace(x, x)
  text = lowered.lower(lowering_platforms=('cuda',)).as_text()
  assert text.count('stablehlo.custom_call @__gpu$xla.gpu.triton') == 2
  assert 'stablehlo.while' not in text


def test_without_pallas_loops_run_and_one_warning_says_so(monkeypatch):
  monkeypatch.setattr(_vjp, '_has_gpu', lambda: True)
  monkeypatch.setattr(neuron, '_gpu', None, raising=False)
  monkeypatch.delattr(neuron, '_gpu')
  monkeypatch.setitem(sys.modules, 'mlf_jax.neuron._gpu', None)
  _vjp._import_gpu_kernels.cache_clear()
  x = current((4, 5))
  with pytest.warns(
    UserWarning, match='GPU kernels cannot be imported'
  ) as seen:
    first = mlf(x)
    mlf(x[:3])
  assert len(seen) == 1
  _vjp._import_gpu_kernels.cache_clear()
  monkeypatch.undo()
  np.testing.assert_array_equal(first, mlf(x))


@pytest.mark.parametrize(
  ('capability', 'serves'),
  [('9.0', True), ('8.0', True), ('7.5', False), ('gfx942', False)],
)
def test_kernels_run_where_they_can(monkeypatch, capability, serves):
  assert not _vjp._has_gpu()
  device = types.SimpleNamespace(compute_capability=capability)
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  monkeypatch.setattr(jax, 'local_devices', lambda: [device])
  assert _vjp._has_gpu() == serves


@pytest.mark.parametrize(
  ('shape', 'levels', 'fits'),
  [
    ((2**10, 2**20), 12, True),
    ((2**11, 2**20), 1, False),
    ((1, 2**30), 1, True),
    ((1, 2**30), 2, False),
    # Membranes of 12 levels at every eighth of 2**11 timesteps.
    ((2**11, 2**20 * 3 // 4), 12, False),
  ],
)
def test_an_array_beyond_32_bits_is_left_to_loops(
  with_gpu, shape, levels, fits
):
  x = jax.ShapeDtypeStruct(shape, jnp.float32)
  params = MLFParams(tuple(0.6 + np.arange(levels)))
  jaxpr = jax.make_jaxpr(functools.partial(neuron.run, params))(x)
  assert ('pallas_call' in str(jaxpr)) == fits
