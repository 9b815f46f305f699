"""The residual networks: parameters, time, options, mistakes."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlf_jax import UserError, models, neuron
from mlf_jax.layers import MLF
from mlf_jax.models import SpikingResNet
from tests import quick

IMAGE = (1, 32, 32, 3)
TINY = functools.partial(
  SpikingResNet, stage_sizes=(1,), widths=(4,), num_classes=5, time_steps=3
)
TWO_STAGES = functools.partial(TINY, stage_sizes=(2, 2), widths=(4, 6))


def images(batch=4, dtype=jnp.float32):
  return jax.random.normal(jax.random.key(1), (batch, 8, 8, 3), dtype)


def frames(batch=4, time=3):
  return jax.random.normal(jax.random.key(1), (batch, time, 8, 8, 2))


def test_axis_name_outside_of_a_map_is_one_line():
  model = TINY(axis_name='b')
  variables = jax.eval_shape(model.init, jax.random.key(0), images())
  variables = jax.tree.map(lambda v: jnp.zeros(v.shape), variables)
  message = (
    "axis_name is 'b', but nothing maps .* or build it without axis_name"
  )
  with pytest.raises(UserError, match=message) as error:
    model.apply(variables, images(), train=True, mutable=['batch_stats'])
  assert '\n' not in str(error.value)


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
    *(
      (
        models.ds_resnet20_cifar10(
          stage_sizes=models.stage_sizes_for_depth(depth)
        ),
        IMAGE,
        count,
      )
      for depth, count in (
        (14, 2_777_674),
        (32, 7_427_914),
        (44, 10_528_074),
        (68, 16_728_394),
      )
    ),
  ],
)
def test_parameters_of_the_networks_of_the_paper(model, shape, count):
  variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))
  assert variables.keys() == {'params', 'batch_stats'}
  leaves = jax.tree.leaves(variables['params'])
  assert sum(np.prod(v.shape) for v in leaves) == count


def test_static_image_equals_its_copies(x64):
  """Once through the stem, or T copies as frames: the same numbers."""
  model = TINY(dtype='float64', normalize_input=True)
  x = images(dtype=jnp.float64)
  copies = jnp.repeat(x[:, None], 3, axis=1)
  variables = quick.variables(model, x)
  chex.assert_trees_all_close(
    trained_step(model, variables, x),
    trained_step(model, variables, copies),
    rtol=1e-10,
    atol=1e-10,
  )


def test_batch_and_time_of_one_size_are_not_exchanged():
  model = TINY(time_steps=4)
  x = frames(batch=4, time=4)
  variables = quick.variables(model, x)
  alone = [apply(model, variables, x[i : i + 1])[0] for i in range(4)]
  np.testing.assert_allclose(
    apply(model, variables, x), np.stack(alone), atol=1e-5
  )


def test_time_steps_change_at_inference():
  model = TINY()
  x = images()
  variables = quick.variables(model, x)
  logits = [apply(model.clone(time_steps=t), variables, x) for t in (1, 7)]
  for one, other in itertools.pairwise(logits):
    assert np.all(np.isfinite(other)) and np.any(one != other)


def test_logits_are_the_mean_over_every_timestep(x64):
  model = TINY(dtype='float64')
  x = images(dtype=jnp.float64)
  variables = quick.variables(model, x)
  every = quick.jit(functools.partial(model.apply, every_timestep=True))
  logits = every(variables, x)
  assert logits.shape == (3, 4, 5)
  assert np.any(logits[0] != logits[1])
  np.testing.assert_allclose(
    logits.mean(0), apply(model, variables, x), rtol=1e-10
  )


def test_membrane_potential_continues_an_image():
  """One timestep and two more are three, to the last bit."""
  model, two = TINY(), TINY(time_steps=2)
  x = images()
  variables = quick.variables(model, x)
  first = functools.partial(
    TINY(time_steps=1).apply, mutable=['membrane_potential']
  )
  _, state = jax.jit(first)(variables, x)
  two_more = jax.jit(two.apply)({**variables, **state}, x)
  np.testing.assert_array_equal(two_more, jax.jit(model.apply)(variables, x))
  assert np.any(two_more != apply(two, variables, x))


@pytest.mark.parametrize(
  ('residual', 'shortcut'),
  [('ds', None), ('ds', 'norm'), ('plain', None), ('plain', 'mlf')],
)
def test_blocks_of_each_kind(residual, shortcut):
  """Results of the stages: their range tells the kinds apart."""
  model = TWO_STAGES(residual=residual, shortcut=shortcut)
  x = images()
  variables = quick.variables(model, x)
  _, captured = quick.jit(
    functools.partial(
      model.apply, capture_intermediates=True, mutable=['intermediates']
    )
  )(variables, x)
  captured = captured['intermediates']
  if shortcut is None:
    shortcut = {'ds': 'mlf', 'plain': 'norm'}[residual]
  # Units apply the coefficients of the normalisation themselves.
  assert ('shortcut_bn' in captured['layer2_0']) == (shortcut == 'norm')
  for stage, i in itertools.product((1, 2), (0, 1)):
    (y,) = captured[f'layer{stage}_{i}']['__call__']
    whole = bool(jnp.all((y >= 0) & (y == jnp.round(y))))
    if residual == 'plain':
      assert whole and y.max() <= 3
    elif shortcut == 'mlf' or stage == 1:
      # K = 3 levels in the stem or the projection, and in each block.
      assert whole and y.max() <= 3 * (i + 2)
    else:
      assert not whole


@pytest.mark.parametrize(
  'change',
  [
    {'unit': MLF((0.6,))},
    {'unit': MLF(decay=0.9)},
    {'normalize_input': True},
    {'residual': 'plain'},
  ],
)
def test_attribute_changes_the_output(change):
  x = images()
  base, changed = TINY(), TINY(**change)
  one = apply(base, quick.variables(base, x), x)
  other = apply(changed, quick.variables(changed, x), x)
  assert np.any(one != other)


@pytest.mark.parametrize('change', [{'width': 0.9}, {'surrogate': 'arctan'}])
@pytest.mark.filterwarnings('ignore:the surrogate windows')
def test_window_changes_the_gradient_alone(change):
  x = images()
  base, changed = TINY(), TINY(unit=MLF(**change))
  variables = quick.variables(base, x)
  one = trained_step(base, variables, x)
  other = trained_step(changed, variables, x)
  chex.assert_trees_all_equal(one[:2], other[:2])
  same = jax.tree.map(lambda a, b: np.allclose(a, b), one[2], other[2])
  assert not all(jax.tree.leaves(same))


def test_bfloat16_computes_convolutions_alone():
  model = TINY(dtype=jnp.bfloat16)
  x = images()
  variables = quick.variables(model, x)
  logits, stats, gradient = jax.eval_shape(
    functools.partial(trained_step.__wrapped__, model), variables, x
  )
  for leaf in jax.tree.leaves((variables, logits, stats, gradient)):
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
  variables = quick.variables(model, x)
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


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'widths': (4, 0, 8)}, r'widths must be positive .* got \(4, 0, 8\)'),
    ({'widths': (4, 6, 8)}, '1 stage_sizes but 3 widths'),
    ({'stage_sizes': ()}, 'stage_sizes must be positive'),
    ({'time_steps': 0}, 'time_steps must be positive'),
    ({'num_classes': 2.5}, 'num_classes must be positive whole'),
    ({'residual': 'dense'}, "residual 'dense' is unknown; known: ds, plain"),
    ({'shortcut': 'lif'}, "'mlf', 'norm' or None, got 'lif'"),
    ({'memory': 'least'}, "memory 'least' is unknown"),
    ({'normalization': 'layer'}, "normalization 'layer' is unknown"),
    ({'scan_blocks': 'False'}, 'must be True or False'),
    ({'unit': (0.6, 1.6)}, r'unit must be a spiking unit such as MLF\(\)'),
    ({'dtype': 'foo'}, 'dtype must be a floating dtype'),
    ({'dtype': jnp.int32}, 'dtype must be a floating dtype'),
  ],
)
def test_mistakes_at_construction(change, message):
  with pytest.raises(UserError, match=message):
    TINY(**change)


def test_mistakes_of_the_input():
  model = TINY()
  for message in (
    r'\(4, 7, 8, 8, 2\) have 7 timesteps',
    r'expected shape \(4, 3, 8, 8, 2\)',
  ):
    with pytest.raises(UserError, match=message):
      model.init(jax.random.key(0), frames(time=7))
  with pytest.raises(UserError, match=r'\(8, 8, 3\) has rank 3; expected'):
    model.init(jax.random.key(0), images()[0])
  with pytest.raises(UserError, match='depth must be 6n'):
    models.stage_sizes_for_depth(21)
  with pytest.raises(UserError, match='depth must be positive whole'):
    models.stage_sizes_for_depth(20.0)


def test_sizes_may_be_numpy_integers():
  assert TINY(num_classes=np.int64(5)) == TINY()


def num_parameters(model, shape):
  variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))
  return sum(leaf.size for leaf in jax.tree.leaves(variables['params']))


@pytest.mark.parametrize(
  ('model', 'shape', 'count'),
  [
    # As widely used without spikes, for CIFAR-10 and for ImageNet.
    (models.resnet18(num_classes=10, time_steps=1), IMAGE, 11_173_962),
    (
      models.resnet18(num_classes=1000, time_steps=1, stem='7x7'),
      (1, 224, 224, 3),
      11_689_512,
    ),
    # 12,553,600 in convolutions, 10,496 in normalisations and 133,898 in dense
    # layers. Papers with 12.63 million have a stem of 64 channels.
    (models.resnet19(num_classes=10, time_steps=2), IMAGE, 12_697_994),
  ],
)
def test_networks_in_which_papers_compare(model, shape, count):
  assert num_parameters(model, shape) == count


def test_large_images_are_small_behind_their_stem():
  """A quarter of the side; the maximum of spikes is a spike."""
  model = TWO_STAGES(stem='7x7', stage_sizes=(1, 1))
  x = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
  variables = quick.variables(model, x)

  def sides(variables):
    _, seen = model.apply(
      variables, x, capture_intermediates=lambda m, _: 'layer' in (m.name or '')
    )
    return seen['intermediates']

  seen = jax.eval_shape(sides, variables)
  (first,), (second,) = (seen[n]['__call__'] for n in ('layer1_0', 'layer2_0'))
  assert (first.shape, second.shape) == ((6, 8, 8, 4), (6, 4, 4, 6))


def test_hidden_layers_fire_at_every_timestep(x64):
  model = TINY(hidden=(7, 6), dtype=jnp.float64)
  x = frames().astype(float)
  variables = quick.variables(model, x)
  logits, seen = quick.jit(
    functools.partial(
      model.apply,
      capture_intermediates=lambda m, _: m.name and 'layer' in m.name,
    )
  )(variables, x)
  params = jax.tree.map(np.asarray, variables['params'])
  y = np.asarray(seen['intermediates']['layer1_0']['__call__'][0])
  y = y.mean((1, 2))
  for i in (1, 2):
    p = params[f'hidden{i}']
    current = y @ p['kernel'] + p['bias']
    _, y = neuron.run(neuron.MLFParams(), current.reshape(3, 4, -1))
    y = np.asarray(y).reshape(12, -1)
  y = y.reshape(3, 4, -1).mean(0)
  expected = y @ params['voting']['kernel'] + params['voting']['bias']
  np.testing.assert_allclose(logits, expected, atol=1e-12)


def test_stem_and_hidden_mistakes():
  with pytest.raises(UserError, match="stem '5x5' is unknown"):
    TINY(stem='5x5')
  with pytest.raises(UserError, match='hidden'):
    TINY(hidden=(0,))
