"""tdBN against the reference data, closed forms and invariants."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from mlf_jax import UserError, stream
from mlf_jax.layers import BatchNorm, TDBatchNorm, TEBatchNorm
from mlf_jax.models import SpikingResNet
from tests import golden_data, quick


def data_mesh():
  return jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))


def variables_of(norm, channels, dtype=jnp.float32):
  """Initial variables."""
  zeros, ones = np.zeros(channels, dtype), np.ones(channels, dtype)
  variables = {'batch_stats': {'mean': zeros, 'var': ones}}
  if norm.affine:
    variables['params'] = {'scale': ones, 'bias': zeros}
  return variables


@functools.partial(jax.jit, static_argnums=0)
def normalize(norm, variables, x):
  return norm.apply(variables, x, False, mutable=['batch_stats'])


def test_reference(x64):
  data = golden_data.load('tdbn')
  params = {'scale': data['weight'], 'bias': data['bias']}
  norm = TDBatchNorm()
  stats = variables_of(norm, 5, np.float64)['batch_stats']
  for i in (1, 2):
    x, g = golden_data.nhwc(data[f'x{i}']), golden_data.nhwc(data[f'g{i}'])

    def apply(params, x, stats=stats):
      return normalize(norm, {'params': params, 'batch_stats': stats}, x)

    y, pull, new = jax.vjp(apply, params, x, has_aux=True)
    dparams, dx = pull(g)
    stats = new['batch_stats']
    for got, name in (
      (y, 'y'),
      (dx, 'dx'),
    ):
      np.testing.assert_allclose(
        got, golden_data.nhwc(data[f'{name}{i}']), atol=1e-12
      )
    for got, name in (
      (dparams['scale'], 'dweight'),
      (dparams['bias'], 'dbias'),
      (stats['mean'], 'running_mean'),
      (stats['var'], 'running_var'),
    ):
      np.testing.assert_allclose(got, data[f'{name}{i}'], rtol=1e-12)
  y = norm.apply(
    {'params': params, 'batch_stats': stats},
    golden_data.nhwc(data['x_eval']),
    True,
  )
  np.testing.assert_allclose(y, golden_data.nhwc(data['y_eval']), atol=1e-12)


def test_zero_variance_gradient(x64):
  """At var = 0, dx = gamma alpha V_1 (g - mean(g)) / eps."""
  norm = TDBatchNorm(threshold=0.7, alpha=1.3)
  x = jnp.full((6, 2), 3.0)
  g = np.random.default_rng(0).normal(size=(6, 2))
  variables = variables_of(norm, 2, np.float64)
  variables['params']['scale'] = jnp.array([2.0, -1.0])
  y, pull = jax.vjp(lambda x: normalize(norm, variables, x)[0], x)
  np.testing.assert_array_equal(y, 0)
  scale = variables['params']['scale'] * 1.3 * 0.7
  np.testing.assert_allclose(
    pull(g)[0], scale[None] * (g - g.mean(0, keepdims=True)) / 1e-5
  )


def test_statistics_of_the_output():
  x = np.random.default_rng(1).normal(5, 3, (4, 5, 6, 7)).astype(np.float32)
  norm = TDBatchNorm(threshold=0.5)
  y, _ = normalize(norm, variables_of(norm, 7), x)
  np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-6)
  np.testing.assert_allclose(y.std((0, 1, 2)), 0.5, rtol=1e-4)


def test_copies_count_in_the_unbiased_variance(x64):
  x = np.random.default_rng(1).normal(size=(3, 4))
  norm = TDBatchNorm()
  variables = norm.init(jax.random.key(0), x, False)
  chex.assert_trees_all_equal(variables, variables_of(norm, 4, np.float64))
  y, once = norm.apply(variables, x, False, 5, mutable=['batch_stats'])
  repeated, often = normalize(norm, variables, np.tile(x, (5, 1)))
  chex.assert_trees_all_close(once, often, rtol=1e-12)
  np.testing.assert_allclose(y, repeated[:3], rtol=1e-12)
  variance = x.var(0) * 15 / 14
  np.testing.assert_allclose(
    once['batch_stats']['var'], 0.9 + 0.1 * variance, rtol=1e-12
  )


@pytest.mark.parametrize('parallel', ['shard_map', 'pmap'])
def test_statistics_across_devices(x64, parallel):
  """Eight devices give the numbers of one; local means differ on purpose."""
  x = np.random.default_rng(1).normal(size=(16, 3, 4))
  x += np.arange(16.0)[:, None, None]
  alone = TDBatchNorm()
  variables = variables_of(alone, 4, np.float64)
  expected = normalize(alone, variables, x)
  apply = functools.partial(normalize, TDBatchNorm(axis_name='data'), variables)
  if parallel == 'pmap':
    y, stats = jax.pmap(apply, 'data', out_axes=(0, None))(
      x.reshape((8, 2, 3, 4))
    )
    y = y.reshape(x.shape)
  else:
    y, stats = jax.shard_map(
      apply,
      mesh=data_mesh(),
      in_specs=P('data'),
      out_specs=(P('data'), P()),
      check_vma=False,
    )(x)
  chex.assert_trees_all_close((y, stats), expected, rtol=1e-12, atol=1e-12)


def test_bfloat16_input_has_float32_statistics():
  x = jax.random.normal(jax.random.key(1), (64, 4), jnp.bfloat16)
  norm = TDBatchNorm(affine=False)
  variables = variables_of(norm, 4)
  assert 'params' not in jax.eval_shape(
    functools.partial(norm.init, jax.random.key(0), use_running_average=False),
    x,
  )
  y, stats = normalize(norm, variables, x)
  assert y.dtype == jnp.float32
  expected = normalize(norm, variables, x.astype(jnp.float32))
  chex.assert_trees_all_equal((y, stats), expected)


def test_mistakes():
  with pytest.raises(UserError, match='threshold must be positive, got -1'):
    TDBatchNorm(threshold=-1)
  with pytest.raises(UserError, match=r'momentum must lie in \[0, 1\], got 2'):
    TDBatchNorm(momentum=2)
  norm = TDBatchNorm()
  with pytest.raises(UserError, match=r'needs \[..., channel\], got shape'):
    norm.init(jax.random.key(0), jnp.zeros(4), False)
  with pytest.raises(UserError, match='x must be floating-point'):
    norm.init(jax.random.key(0), jnp.zeros((4, 4), jnp.int32), False)


def test_plain_batch_normalisation(x64):
  """With the running statistics, and with those of the batch."""
  norm = BatchNorm(threshold=0.3, epsilon=1e-3)
  x = np.random.default_rng(0).normal(2, 3, size=(5, 4, 6))
  variables = norm.init(jax.random.key(0), x, True)
  np.testing.assert_allclose(
    norm.apply(variables, x, True), x / np.sqrt(1 + 1e-3), rtol=1e-12
  )
  y, _ = norm.apply(variables, x, False, mutable=['batch_stats'])
  mean, var = x.mean((0, 1)), x.var((0, 1))
  np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-3), rtol=1e-10)


def test_temporal_effective_normalisation_beside_numpy(x64):
  random = np.random.default_rng(3)
  x = random.normal(2, 3, (4 * 5, 6))  # Four timesteps of five samples.
  gamma, beta, p = (random.normal(size=n) for n in (6, 6, 4))
  norm = TEBatchNorm(time_steps=4, epsilon=0.1)
  variables = norm.init(jax.random.key(0), x, False)
  np.testing.assert_array_equal(variables['params']['time_scale'], np.ones(4))
  variables['params'] = {'scale': gamma, 'bias': beta, 'time_scale': p}

  def apply(params):
    return norm.apply(variables | {'params': params}, x, True)

  variables['batch_stats'] = {'mean': x.mean(0), 'var': x.var(0)}
  normalised = gamma * (x - x.mean(0)) / np.sqrt(x.var(0) + 0.1) + beta
  wanted = np.repeat(p, 5)[:, None] * normalised
  np.testing.assert_allclose(apply(variables['params']), wanted, rtol=1e-12)
  np.testing.assert_allclose(normalize(norm, variables, x)[0], wanted)
  jax.test_util.check_grads(apply, (variables['params'],), 1)

  # Fewer timesteps take the first factors; more go on with the last one.
  shorter = norm.clone(time_steps=2).apply(variables, x[:10], True)
  np.testing.assert_allclose(shorter, wanted[:10])
  longer = norm.clone(time_steps=6).apply(
    variables, np.concatenate([x, x[:10]]), True
  )
  np.testing.assert_allclose(longer[:20], wanted)
  np.testing.assert_allclose(longer[20:], p[3] * normalised[:10])
  np.testing.assert_allclose(
    TEBatchNorm(affine=False, epsilon=0.1).apply(
      {'batch_stats': variables['batch_stats']}, x, True
    ),
    (x - x.mean(0)) / np.sqrt(x.var(0) + 0.1),
  )


@pytest.mark.parametrize('residual', ['ds', 'ms'])
def test_factors_of_timesteps_in_networks_and_recordings_in_pieces(residual):
  """Images are repeated before their factors; pieces go on where they were."""
  model = SpikingResNet(
    stage_sizes=(1, 2),
    widths=(3, 4),
    num_classes=2,
    time_steps=4,
    residual=residual,
    normalization='tebn',
  )
  random = np.random.default_rng(0)
  images = random.normal(size=(2, 6, 6, 2)).astype(np.float32)
  frames = np.repeat(images[:, None], 4, 1)
  variables = quick.variables(model, frames)
  variables['params'] = jax.tree.map(
    lambda leaf: leaf + random.uniform(0, 1, leaf.shape).astype(leaf.dtype),
    variables['params'],
  )
  scales = variables['params']['layer1_0']['bn1']['time_scale']
  assert scales.shape == (4,)

  logits, again = (
    quick.jit(model.apply)(variables, x) for x in (frames, images)
  )
  np.testing.assert_allclose(again, logits, rtol=1e-5)
  looped = quick.jit(model.clone(scan_blocks=True).apply)
  np.testing.assert_allclose(looped(variables, frames), logits, rtol=1e-5)
  state = stream.init(model, variables, (6, 6, 2), batch_size=2)
  for piece in (frames[:, :1], frames[:, 1:4]):
    state, running = stream.feed(model, variables, state, piece)
  np.testing.assert_allclose(running, logits, rtol=1e-5)
