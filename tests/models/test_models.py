"""The networks: parameter counts, time, parallelism, options, mistakes."""

import functools
import itertools

import chex
import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from mlf_jax import UserError, models
from mlf_jax.models import SpikingResNet, SpikingVGG, layers
from tests import quick

IMAGE = (1, 32, 32, 3)
TINY = functools.partial(
  SpikingResNet, stage_sizes=(1, 1), widths=(4, 6), num_classes=5, time_steps=3
)


def num_parameters(model, shape):
  variables = jax.eval_shape(
    model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32)
  )
  return sum(np.prod(v.shape) for v in jax.tree.leaves(variables['params']))


def images(batch=4, dtype=jnp.float32, channels=3):
  return jax.random.normal(jax.random.key(1), (batch, 8, 8, channels), dtype)


def frames(batch=4, time=3, dtype=jnp.float32):
  return jax.random.normal(jax.random.key(1), (batch, time, 8, 8, 2), dtype)


def init(model, x):
  return _init(model, x.shape, x.dtype)


@functools.cache
def _init(model, shape, dtype):
  return quick.variables(model, jnp.zeros(shape, dtype))


@functools.partial(quick.jit, static_argnums=0)
def apply(model, variables, x):
  return model.apply(variables, x)


@functools.partial(quick.jit, static_argnums=0)
def trained_step(model, variables, x):
  """Logits, new statistics and gradient of one training call."""

  def loss(params):
    logits, new = model.apply(
      {**variables, 'params': params}, x, train=True, mutable=['batch_stats']
    )
    weights = jnp.arange(logits.size, dtype=logits.dtype)
    loss = (logits * weights.reshape(logits.shape)).sum()
    return loss, (logits, new['batch_stats'])

  gradient, (logits, stats) = jax.grad(loss, has_aux=True)(variables['params'])
  return logits, stats, gradient


@pytest.mark.parametrize(
  ('model', 'shape', 'count'),
  [
    (models.ds_resnet20_cifar10(), IMAGE, 4_327_754),
    (models.ds_resnet20_dvs_gesture(), (1, 40, 32, 32, 2), 272_395),
    (models.ds_resnet14_cifar10_dvs(), (1, 10, 42, 42, 2), 696_330),
    (models.spiking_vgg16(), IMAGE, 15_119_690),
  ],
)
def test_parameters_of_the_networks_of_the_paper(
  flax_pools, model, shape, count
):
  assert num_parameters(model, shape) == count


@pytest.mark.parametrize(
  ('depth', 'count'),
  [(14, 2_777_674), (32, 7_427_914), (44, 10_528_074), (68, 16_728_394)],
)
def test_parameters_at_every_depth(depth, count):
  model = models.ds_resnet20_cifar10(
    stage_sizes=models.stage_sizes_for_depth(depth)
  )
  assert num_parameters(model, IMAGE) == count


@pytest.mark.parametrize('normalize_input', [False, True])
def test_static_image_equals_its_copies(x64, normalize_input):
  """Once through the stem, or T copies as frames: the same numbers."""
  model = TINY(dtype='float64', normalize_input=normalize_input)
  x = images(dtype=jnp.float64)
  copies = jnp.repeat(x[:, None], 3, axis=1)
  variables = init(model, x)
  chex.assert_trees_all_close(
    trained_step(model, variables, x),
    trained_step(model, variables, copies),
    rtol=1e-10,
    atol=1e-10,
  )


def test_stem_convolves_an_image_once():
  """The convolution of the stem sees the batch, not T times the batch."""
  model = TINY(time_steps=7)
  x = images(batch=2)
  variables = jax.eval_shape(model.init, jax.random.key(0), x)
  jaxpr = str(jax.make_jaxpr(model.apply)(variables, x))
  first = next(
    line for line in jaxpr.splitlines() if 'conv_general_dilated' in line
  )
  assert 'f32[2,8,8,4]' in first
  assert 'f32[14,8,8,4]' in jaxpr


def test_batch_and_time_of_one_size_are_not_exchanged():
  model = TINY(time_steps=4)
  x = frames(batch=4, time=4)
  variables = init(model, x)
  alone = [apply(model, variables, x[i : i + 1])[0] for i in range(4)]
  np.testing.assert_allclose(
    apply(model, variables, x), np.stack(alone), atol=1e-5
  )


def test_time_steps_change_at_inference():
  model = TINY()
  x = images()
  variables = init(model, x)
  logits = [
    apply(model.clone(time_steps=t), variables, x) for t in (1, 3, 6, 12)
  ]
  for one, other in itertools.pairwise(logits):
    assert np.all(np.isfinite(other)) and np.any(one != other)


def test_init_and_training_return_no_membrane_potential(flax_pools):
  for model, x in (
    (TINY(), frames()),
    (SpikingVGG(10, time_steps=1), jnp.zeros(IMAGE)),
  ):
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    assert variables.keys() == {'params', 'batch_stats'}
    _, new = jax.eval_shape(
      functools.partial(model.apply, train=True, mutable=['batch_stats']),
      variables,
      x,
      rngs={'dropout': jax.random.key(0)},
    )
    assert new.keys() == {'batch_stats'}


def test_membrane_potential_continues_an_image():
  """One timestep and two more are three."""
  model, two = TINY(), TINY(time_steps=2)
  x = images()
  variables = init(model, x)
  first = functools.partial(
    TINY(time_steps=1).apply, mutable=['membrane_potential']
  )
  # To the last bit, and that by the programs that users run.
  _, state = jax.jit(first)(variables, x)
  two_more = jax.jit(two.apply)({**variables, **state}, x)
  np.testing.assert_array_equal(two_more, jax.jit(model.apply)(variables, x))
  assert np.any(two_more != apply(two, variables, x))


@pytest.mark.parametrize('residual', ['ds', 'plain'])
@pytest.mark.parametrize('shortcut', ['mlf', 'norm'])
def test_blocks_of_each_kind(residual, shortcut):
  """What comes out of the stages tells the kinds apart."""
  model = TINY(residual=residual, shortcut=shortcut, stage_sizes=(2, 2))
  x = images()
  variables = init(model, x)
  _, captured = quick.jit(
    functools.partial(
      model.apply, capture_intermediates=True, mutable=['intermediates']
    )
  )(variables, x)
  captured = captured['intermediates']
  for stage in (1, 2):
    for i in (0, 1):
      (y,) = captured[f'layer{stage}_{i}']['__call__']
      whole = bool(jnp.all((y >= 0) & (y == jnp.round(y))))
      if residual == 'plain':
        assert whole and y.max() <= 3
      elif shortcut == 'mlf' or stage == 1:
        # One unit of the stem or the projection and one a block, K = 3 each.
        assert whole and y.max() <= 3 * (i + 2)
      else:
        assert not whole


def test_default_shortcut():
  x = images()
  for residual, shortcut in (('ds', 'mlf'), ('plain', 'norm')):
    explicit = TINY(residual=residual, shortcut=shortcut)
    variables = init(explicit, x)
    np.testing.assert_array_equal(
      apply(TINY(residual=residual), variables, x),
      apply(explicit, variables, x),
    )


@pytest.mark.parametrize(
  'change',
  [
    {'thresholds': (0.5, 1.5, 2.5)},
    {'thresholds': (0.6,)},
    {'decay': 0.9},
    {'normalize_input': True},
    {'time_steps': 2},
    {'residual': 'plain'},
  ],
)
def test_attribute_changes_the_output(change):
  x = images()
  base, changed = TINY(), TINY(**change)
  one = apply(base, init(base, x), x)
  other = apply(changed, init(changed, x), x)
  assert np.any(one != other)


@pytest.mark.parametrize('change', [{'width': 0.9}, {'surrogate': 'arctan'}])
@pytest.mark.filterwarnings('ignore:the surrogate windows')
def test_attribute_changes_the_gradient_alone(change):
  x = images()
  base, changed = TINY(), TINY(**change)
  variables = init(base, x)
  one = trained_step(base, variables, x)
  other = trained_step(changed, variables, x)
  chex.assert_trees_all_equal(one[:2], other[:2])
  same = jax.tree.map(lambda a, b: np.allclose(a, b), one[2], other[2])
  assert not all(jax.tree.leaves(same))


def test_bfloat16_computes_convolutions_alone():
  model = TINY(dtype=jnp.bfloat16)
  x = images()
  variables = init(model, x)
  chex.assert_trees_all_equal_dtypes(variables, init(TINY(), x))
  logits, stats, gradient = trained_step(model, variables, x)
  assert logits.dtype == jnp.float32
  for leaf in jax.tree.leaves((stats, gradient)):
    assert leaf.dtype == jnp.float32
  convolutions = [
    line
    for line in str(jax.make_jaxpr(model.apply)(variables, x)).splitlines()
    if ' = conv_general_dilated' in line
  ]
  assert convolutions and all(':bf16[' in line for line in convolutions)


def test_all_zero_frames_train_finitely():
  model = TINY(normalize_input=True)
  x = jnp.zeros((2, 3, 8, 8, 2))
  variables = init(model, x)
  for leaf in jax.tree.leaves(trained_step(model, variables, x)):
    assert np.all(np.isfinite(leaf))


def test_initialisation():
  """He normal, fan-in, not truncated; dense bias uniform by fan-in."""
  model = SpikingResNet((1,), (256,), 500, 1)
  params = quick.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))[
    'params'
  ]
  kernel = params['layer1_0']['conv2']['kernel']
  std = np.sqrt(2 / (9 * 256))
  np.testing.assert_allclose(kernel.std(), std, rtol=0.01)
  # Flax's he_normal cuts at two standard deviations of the wider normal.
  assert np.abs(kernel).max() > 3.5 * std
  voting = params['voting']['kernel']
  np.testing.assert_allclose(voting.std(), np.sqrt(2 / 256), rtol=0.01)
  bound = 256**-0.5
  bias = params['voting']['bias']
  assert np.abs(bias).max() <= bound
  np.testing.assert_allclose(bias.std(), bound / np.sqrt(3), rtol=0.1)


def test_vgg_is_uniform_with_bias_and_drops_out(flax_pools, small_vgg):
  # Thresholds so low that the deep layers fire at initialisation already.
  model = SpikingVGG(10, time_steps=1, thresholds=(0.05, 1.05, 2.05))
  x = jax.random.normal(jax.random.key(1), IMAGE)
  variables = quick.jit(model.init)(jax.random.key(0), x)
  conv = variables['params']['feature3_conv']
  bound = (9 * 4) ** -0.5
  for leaf in (conv['kernel'], conv['bias']):
    assert 0.9 * bound < np.abs(leaf).max() <= bound

  @quick.jit
  def train(key):
    return model.apply(
      variables, x, train=True, mutable=['batch_stats'], rngs={'dropout': key}
    )[0]

  assert np.any(train(jax.random.key(0)) != train(jax.random.key(1)))


def test_vgg_static_image_equals_its_copies(x64, flax_pools, small_vgg):
  model = SpikingVGG(10, 2, dropout_rate=0.0, dtype='float64')
  x = jax.random.normal(jax.random.key(1), (2, 32, 32, 3), jnp.float64)
  variables = quick.variables(model, x)
  train = quick.jit(
    functools.partial(model.apply, train=True, mutable=['batch_stats'])
  )
  chex.assert_trees_all_close(
    train(variables, x),
    train(variables, jnp.repeat(x[:, None], 2, axis=1)),
    rtol=1e-10,
    atol=1e-10,
  )


def test_vgg_averages_spikes_and_fires_between_dense_layers(
  flax_pools, small_vgg
):
  assert models.spiking_vgg16().dropout_rate == 0.25
  model = SpikingVGG(10, 1, thresholds=(0.05, 1.05, 2.05), dropout_rate=0.0)
  x = jax.random.normal(jax.random.key(1), IMAGE)
  variables = quick.variables(model, x)

  @quick.jit
  def inputs_of_layers(variables):
    seen = {}

    def record(call, args, kwargs, context):
      seen[context.module.name] = args[0] if args else None
      return call(*args, **kwargs)

    with nn.intercept_methods(record):
      # The statistics of the batch keep all layers firing.
      model.apply(variables, x, train=True, mutable=['batch_stats'])
    return {
      name: value
      for name, value in seen.items()
      if isinstance(value, jax.Array)
    }

  seen = {k: np.asarray(v) for k, v in inputs_of_layers(variables).items()}
  for pooled in ('feature3_conv', 'classifier0'):
    quarters = 4 * seen[pooled]
    np.testing.assert_array_equal(quarters, np.round(quarters))
    assert np.any(quarters % 4 != 0)
  for fired in ('feature1_conv', 'classifier3', 'classifier6'):
    spikes = seen[fired]
    np.testing.assert_array_equal(spikes, np.round(spikes))
    assert 0 < spikes.max() <= 3


@pytest.mark.parametrize(
  ('model', 'shape', 'norm'),
  [
    (TINY(thresholds=(0.3, 1.3)), (4, 8, 8, 3), 'bn1'),
    (SpikingVGG(10, 1, (0.3, 1.3)), (2, 32, 32, 3), 'feature0_bn'),
  ],
)
def test_first_threshold_scales_the_norm(
  flax_pools, small_vgg, model, shape, norm
):
  x = jax.random.normal(jax.random.key(1), shape)

  @quick.jit
  def normalised(variables):
    seen = {}

    def record(call, args, kwargs, context):
      result = call(*args, **kwargs)
      if context.method_name == 'coefficients':
        seen[context.module.name] = result(args[0])
      return result

    with nn.intercept_methods(record):
      model.apply(
        variables,
        x,
        train=True,
        mutable=['batch_stats'],
        rngs={'dropout': jax.random.key(0)},
      )
    return seen[norm]

  y = normalised(quick.variables(model, x))
  np.testing.assert_allclose(y.std((0, 1, 2)), 0.3, rtol=1e-3)


def test_axis_name_reaches_every_norm():
  for model, shape in (
    (TINY(normalize_input=True, axis_name='data'), (8, 8, 8, 3)),
    (SpikingVGG(10, 1, axis_name='data'), (8, 32, 32, 3)),
  ):
    with jax.numpy_dtype_promotion('standard'):
      plain = model.clone(axis_name=None)
      variables = jax.eval_shape(
        plain.init, jax.random.key(0), jnp.zeros(shape)
      )
      traced = jax.make_jaxpr(
        lambda v, x, model=model: model.apply(
          v,
          x,
          train=True,
          mutable=['batch_stats'],
          rngs={'dropout': jax.random.key(0)},
        )[1],
        axis_env=[('data', 8)],
      )(variables, jnp.zeros(shape))
    norms = len(jax.tree.leaves(variables['batch_stats'])) // 2
    # Each averages its mean and its variance over the devices.
    assert str(traced).count('= psum') == 2 * norms


def test_dropout_differs_between_timesteps_and_keeps_the_mean():
  dropout = layers.TimestepDropout(0.25, time_steps=3)
  x = jnp.ones((3 * 2, 4000))
  y = dropout.apply({}, x, False, rngs={'dropout': jax.random.key(0)})
  masks = np.asarray(y).reshape(3, 2, -1)
  np.testing.assert_allclose(np.unique(y), [0, 1 / 0.75], rtol=1e-6)
  np.testing.assert_allclose(masks.mean(-1), 1, atol=0.05)
  assert np.any(masks[0] != masks[1]) and np.any(masks[1] != masks[2])


def test_dropout_of_eight_devices_is_that_of_one():
  x = jnp.ones((3, 16, 10))
  key = jax.random.key(0)

  def drop(axis_name, x):
    dropout = layers.TimestepDropout(0.25, 3, axis_name)
    folded = x.reshape((-1, x.shape[-1]))
    return dropout.apply({}, folded, False, rngs={'dropout': key}).reshape(
      x.shape
    )

  sharded = jax.shard_map(
    functools.partial(drop, 'data'),
    mesh=jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,)),
    in_specs=P(None, 'data'),
    out_specs=P(None, 'data'),
    check_vma=False,
  )
  alone = quick.jit(functools.partial(drop, None))
  np.testing.assert_array_equal(quick.jit(sharded)(x), alone(x))


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'widths': (4, 0, 8)}, r'widths must be positive .* got \(4, 0, 8\)'),
    ({'widths': (4, 6, 8)}, '2 stage_sizes but 3 widths'),
    ({'stage_sizes': ()}, 'stage_sizes must be positive'),
    ({'time_steps': 0}, 'time_steps must be positive'),
    ({'num_classes': 2.5}, 'num_classes must be positive whole'),
    ({'residual': 'dense'}, "'ds' or 'plain', got 'dense'"),
    ({'shortcut': 'lif'}, "'mlf', 'norm' or None, got 'lif'"),
  ],
)
def test_mistakes_at_construction(change, message):
  with pytest.raises(UserError, match=message):
    TINY(**change)


def test_mistakes_of_the_input():
  model = TINY()
  with pytest.raises(UserError, match=r'\(4, 7, 8, 8, 2\) have 7 timesteps'):
    model.init(jax.random.key(0), frames(time=7))
  with pytest.raises(UserError, match=r'expected shape \(4, 3, 8, 8, 2\)'):
    model.init(jax.random.key(0), frames(time=7))
  with pytest.raises(UserError, match=r'\(8, 8, 3\) has rank 3; expected'):
    model.init(jax.random.key(0), images()[0])
  with pytest.raises(UserError, match='decay must lie in'):
    TINY(decay=2.0)
  with pytest.raises(UserError, match='must be strictly increasing'):
    models.spiking_vgg16(thresholds=(2.0, 1.0))
  for dtype in ('foo', jnp.int32):
    with pytest.raises(UserError, match='dtype must be a floating dtype'):
      TINY(dtype=dtype)
  with pytest.raises(UserError, match='32 to 63 pixels a side, got 8x8'):
    models.spiking_vgg16().init(jax.random.key(0), images())
  with pytest.raises(UserError, match='depth must be 6n'):
    models.stage_sizes_for_depth(21)
  with pytest.raises(UserError, match='depth must be positive whole'):
    models.stage_sizes_for_depth(20.0)


def test_sizes_may_be_numpy_integers():
  assert TINY(num_classes=np.int64(5)) == TINY()
