"""Networks as NIR graphs: what two interpreters make of them, and back."""

import dataclasses
import functools
import pathlib
import re
import types

import chex
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

import mlf_jax
from mlf_jax import UserError, mlf, models
from mlf_jax.data.preprocessing import Preprocessing
from mlf_jax.interop.nir import export_nir, from_nir, to_nir
from mlf_jax.layers import MLF, SpikingUnit, SpikingUnits
from tests import quick

nir = pytest.importorskip('nir')
# It imports the package too.
from tests.interop import nir_interpreter  # noqa: E402

TINY = models.SpikingResNet((1,), (1,), 2, time_steps=2)
# Relative to the largest possible difference of spikes, and of classes.
FEW_SPIKES, FEW_CLASSES = 1e-4, 0.005


def random_variables(model, x):
  """Weights, and statistics and coefficients of tdBN, all of them random."""
  generator = np.random.default_rng(1)
  ranges = {'mean': (-0.3, 0.3), 'var': (0.5, 2), 'scale': (0.7, 1.5)}
  ranges['bias'] = (-0.2, 0.5)

  def draw(path, leaf):
    if path[-1].key not in ranges:
      return leaf
    values = generator.uniform(*ranges[path[-1].key], leaf.shape)
    return jnp.asarray(values, leaf.dtype)

  return jax.tree_util.tree_map_with_path(draw, quick.variables(model, x))


@functools.cache
def compiled(model):
  """The network, with what its units return in 'intermediates'."""

  def is_units(module, method):
    return isinstance(module, SpikingUnits) and method == '__call__'

  return quick.jit(
    lambda *args: model.apply(*args, capture_intermediates=is_units)
  )


def run_network(model, variables, x):
  """Logits, and spikes of each layer of units, [time, batch, channel, ...]."""
  spikes = {}
  logits, seen = compiled(model)(variables, x)
  for path, (y,) in flax.traverse_util.flatten_dict(
    seen['intermediates']
  ).items():
    y = np.asarray(y).reshape(model.time_steps, -1, *y.shape[1:])
    spikes['_'.join(path[:-1])] = np.moveaxis(y, -1, 2)
  return np.asarray(logits), spikes


def run_graph(graph, x, dtype, **options):
  """Mean logits of a graph, and the sums of the levels of its units."""
  metadata = graph.metadata
  frames = np.asarray(x)
  if x.ndim == 4:  # An image, shown at every timestep.
    frames = np.repeat(frames[:, None], metadata['time_steps'], 1)
  frames = frames.transpose(1, 0, 4, 2, 3)
  rule = {'dt': metadata['dt'], 'decay_rule': metadata['decay_rule']}
  outputs = nir_interpreter.run(graph, frames, dtype=dtype, **rule, **options)
  spikes = {}
  for name, fired in outputs.items():
    units, level, _ = name.partition('_level')
    if level:
      spikes[units] = spikes.get(units, 0) + fired
  return outputs['output'].mean(0), spikes


def different(one, other):
  """Numbers of spike counts and of classes that differ, and of all of each."""
  (logits, spikes), (their_logits, their_spikes) = one, other
  assert spikes.keys() == their_spikes.keys()
  for name, fired in spikes.items():
    # A silent network, or one that always fires, would show nothing.
    assert 0.01 < np.mean(fired > 0) < 0.99, name
  return (
    sum((spikes[name] != their_spikes[name]).sum() for name in spikes),
    sum(fired.size for fired in spikes.values()),
    (logits.argmax(-1) != their_logits.argmax(-1)).sum(),
  )


def digits_network():
  """The network of the configuration `digits`, narrow, and 200 images."""
  model = models.SpikingResNet((1, 1, 1), (4, 6, 8), 10, time_steps=4)
  images = load_digits().images[:200, :, :, None].astype(np.float32) / 16
  return model, random_variables(model, jnp.asarray(images[:1])), images


def moving_digits_network():
  """The network of the configuration `moving_digits`, narrow, and counts."""
  model = models.SpikingResNet((1, 1, 1), (4, 6, 8), 10, time_steps=10)
  counts = np.random.default_rng(2).poisson(0.4, (50, 10, 8, 8, 2))
  frames = counts.astype(np.float32)
  return model, random_variables(model, jnp.asarray(frames[:1])), frames


def test_network_of_digits_through_a_file_and_back(tmp_path):
  model, variables, images = digits_network()
  path = tmp_path / 'digits.nir'
  export_nir(path, model, variables, (8, 8, 1))
  assert [p.name for p in tmp_path.iterdir()] == ['digits.nir']
  graph = nir.read(path)
  wanted = run_network(model, variables, images)
  got = run_graph(graph, images, np.float32)
  spikes, size, classes = different(wanted, got)
  print(f'digits: {spikes} of {size} spike counts, {classes} of 200 classes')
  assert spikes <= FEW_SPIKES * size and classes <= FEW_CLASSES * 200
  if spikes == 0:
    np.testing.assert_allclose(got[0], wanted[0], atol=1e-5)

  back, its_variables = from_nir(graph)
  assert back == model
  got = run_network(back, its_variables, images)
  spikes, _, classes = different(wanted, got)
  print(f'read back: {spikes} spike counts, {classes} of 200 classes')
  assert spikes <= FEW_SPIKES * size and classes <= FEW_CLASSES * 200


def test_network_of_moving_digits():
  model, variables, frames = moving_digits_network()
  graph = to_nir(model, variables, (8, 8, 2), dt=1e-3, decay_rule='exponential')
  wanted = run_network(model, variables, frames)
  got = run_graph(graph, frames, np.float32)
  spikes, size, classes = different(wanted, got)
  print(f'moving digits: {spikes} of {size} counts, {classes} of 50 classes')
  assert spikes <= FEW_SPIKES * size and classes <= FEW_CLASSES * 50


def blocks(**attributes):
  """A residual network with one block of each kind, in float64."""
  return models.SpikingResNet(
    (1, 1), (2, 3), 4, time_steps=3, dtype=jnp.float64, **attributes
  )


@pytest.mark.parametrize(
  ('model', 'shape', 'nodes'),
  [
    # input, normalize, 5 units of K levels, 6 convolutions, pool, flatten,
    # dense, output; and 6 units with an 'mlf' shortcut.
    (blocks(residual='plain', normalize_input=True), (6, 4, 2), 5 * 3 + 12),
    pytest.param(
      blocks(residual='plain', shortcut='mlf', unit=MLF((0.6, 1.6))),
      (4, 6, 2),
      6 * 2 + 12,
      marks=pytest.mark.slow,
    ),
    pytest.param(
      blocks(residual='ds', shortcut='norm', unit=MLF((0.6,), 0.5)),
      (5, 5, 2),
      5 + 12,
      marks=pytest.mark.slow,
    ),
    pytest.param(
      models.SpikingVGG(
        4, 3, MLF((0.5, 1.5)), widths=((2, 2), (3,)), dtype=jnp.float64
      ),
      (5, 6, 2),
      5 * 2 + 12,
      marks=pytest.mark.slow,
    ),
    # Without a leak.
    pytest.param(
      blocks(unit=MLF(decay=1.0)),
      (4, 4, 2),
      6 * 3 + 12,
      marks=pytest.mark.slow,
    ),
  ],
)
def test_every_spike_is_the_same_in_double_precision(
  model, shape, nodes, x64, flax_pools
):
  raw = np.random.default_rng(3).normal(1, 1, (8, 3, *shape))
  normalisation = {'scale': 2.0, 'mean': (0.1, 0.3), 'std': (0.4, 0.6)}
  x = (raw / 2 - np.array([0.1, 0.3])) / np.array([0.4, 0.6])
  variables = random_variables(model, jnp.asarray(x[:1]))
  wanted = run_network(model, variables, x)
  for rule in ('euler', 'exponential'):
    graph = to_nir(
      model, variables, shape, dt=1.0, decay_rule=rule, **normalisation
    )
    assert len(graph.nodes) == nodes
    got = run_graph(graph, raw, np.float64)
    assert different(wanted, got)[::2] == (0, 0)
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-10)
  back, its_variables = from_nir(graph)
  assert back == dataclasses.replace(model, normalize_input=True)
  got = run_network(back, its_variables, raw)
  assert different(wanted, got)[::2] == (0, 0)
  np.testing.assert_allclose(got[0], wanted[0], rtol=1e-10)


def tiny_variables():
  return quick.variables(TINY, jnp.zeros((1, 2, 2, 1)))


def test_decay_and_resistance_are_exact_in_the_arithmetic_of_importers():
  variables = tiny_variables()
  for decay, dt in ((0.0, 1e-4), (0.25, 1e-4), (0.25, 1.0), (0.9, 1e-3)):
    model = dataclasses.replace(TINY, unit=MLF(decay=decay))
    for rule in ('euler', 'exponential')[: 2 if decay else 1]:
      node = to_nir(model, variables, (2, 2, 1), dt=dt, decay_rule=rule).nodes[
        'units1_level2'
      ]
      if rule == 'euler':  # snnTorch, `beta`, and SpikingJelly, `1 - 1 / tau`.
        found = 1 - dt / node.tau
        np.testing.assert_allclose(node.r, node.tau / dt, rtol=1e-6)
      else:
        found = np.exp(-dt / node.tau)
      assert found.dtype == node.r.dtype == np.float32
      np.testing.assert_allclose(found, decay, atol=1.2e-7)
      np.testing.assert_allclose((1 - found) * node.r, 1, rtol=2e-6)
      np.testing.assert_array_equal(node.v_threshold, np.float32(1.6))


def quarters():
  """A neuron's node per level and a current that hits thresholds exactly."""
  unit = MLF((0.5, 1.5), decay=0.5)
  model = dataclasses.replace(TINY, unit=unit)
  graph = to_nir(model, tiny_variables(), (2, 2, 1))
  x = np.random.default_rng(4).integers(-4, 7, (20, 9, 1, 2, 2)) / 4
  levels = [graph.nodes[f'units1_level{k}'] for k in (1, 2)]
  return unit, [nir.NIRGraph.from_list(n) for n in levels], x.astype(np.float32)


def fired(graphs, x, **options):
  """How many levels fire."""
  run = functools.partial(nir_interpreter.run, frames=x, dt=1e-4, **options)
  return sum(
    run(g, decay_rule='euler', dtype=np.float32)['output'] for g in graphs
  )


def test_where_comparison_and_order_of_reset_matter():
  unit, levels, x = quarters()
  wanted = np.asarray(mlf(jnp.asarray(x), unit.thresholds, unit.decay))
  np.testing.assert_array_equal(fired(levels, x), wanted)
  not_strict = fired(levels, x, fires=nir_interpreter.NOT_STRICT)
  assert np.mean(not_strict != wanted) > 0.05
  # A potential at the threshold does not fire here.
  at_threshold = x[0] == 0.5
  assert at_threshold.any()
  assert (wanted[0][at_threshold] == 0).all()
  assert (not_strict[0][at_threshold] == 1).all()
  # A reset that comes with the next current swallows that current.
  assert np.mean(fired(levels, x, late_reset=True) != wanted) > 0.05


@dataclasses.dataclass(frozen=True)
class LearnedDecay(SpikingUnit):
  """A unit that learns its decay."""

  def learned(self, shape):
    return {'decay': lambda key, dtype: jnp.full((), 0.5, dtype)}

  def init_state(self, parameters, shape, dtype):
    return jnp.zeros(shape, dtype)

  def step(self, parameters, state, x_t):
    return parameters['decay'] * state + x_t, x_t


def test_mistakes_are_told_before_anything_is_written(tmp_path):
  shape, variables = (2, 2, 1), tiny_variables()
  path = tmp_path / 'network.nir'
  wrong_shape = flax.traverse_util.path_aware_map(
    lambda path, leaf: leaf[:1, :1] if 'conv1' in path else leaf, variables
  )
  deeper = {
    collection: leaves | {'layer1_1': leaves['layer1_0']}
    for collection, leaves in variables.items()
  }
  not_finite = jax.tree.map(lambda leaf: leaf * np.float32('nan'), variables)
  replaced = lambda **values: dataclasses.replace(TINY, **values)
  for model, given, options, message in (
    (replaced(unit=LearnedDecay()), variables, {}, 'not of LearnedDecay'),
    (SpikingUnits(MLF(), 2, jnp.float32), variables, {}, 'not SpikingUnits'),
    (TINY, {'params': {}}, {}, r'bn1/bias must be .*\(1,\) .*got nothing'),
    (TINY, wrong_shape, {}, r'kernel must be .*\(3, 3, 1, 1\) .*got \(1, 1'),
    (TINY, deeper, {}, r'layer1_1/bn1/bias must not be there .*got \(1,\)'),
    (TINY, not_finite, {}, 'holds NaN or infinity'),
    (TINY, variables, {'decay_rule': 'exact'}, 'euler, exponential'),
    (TINY, variables, {'dt': 0}, 'dt must be positive'),
    (TINY, variables, {'scale': -1}, 'scale and std must be positive'),
    (TINY, variables, {'mean': (0.0, 0.0)}, 'one number or 1, one per channel'),
    (TINY, variables, {'metadata': {'dt': 1}}, r"must not hold \['dt'\]"),
    (
      replaced(unit=MLF(decay=0.0)),
      variables,
      {'decay_rule': 'exponential'},
      'a decay of 0 has no time constant',
    ),
  ):
    with pytest.raises(UserError, match=message) as error:
      export_nir(path, model, given, shape, **options)
    assert '\n' not in str(error.value)
  with pytest.raises(UserError, match=r'\(height, width, channels\)'):
    to_nir(TINY, variables, (1, 2, 2, 1))
  with pytest.raises(UserError, match='no such folder'):
    export_nir(tmp_path / 'no' / 'network.nir', TINY, variables, shape)
  assert not [*tmp_path.iterdir()]


def test_what_was_read_is_written_and_read_to_the_last_bit():
  variables = random_variables(TINY, jnp.zeros((1, 2, 2, 1)))
  _, first = from_nir(to_nir(TINY, variables, (2, 2, 1)))
  # Nothing is left to fold.
  _, second = from_nir(to_nir(TINY, first, (2, 2, 1)))
  chex.assert_trees_all_equal(second, first)


def test_networks_in_bfloat16_are_written_in_float32():
  model = dataclasses.replace(TINY, dtype=jnp.bfloat16)
  graph = to_nir(model, tiny_variables(), (2, 2, 1))
  assert graph.nodes['conv1'].weight.dtype == np.float32
  assert from_nir(graph)[0] == TINY


def test_a_graph_from_elsewhere_is_refused():
  graph = to_nir(TINY, tiny_variables(), (2, 2, 1), metadata={'classes': 'a b'})
  assert graph.metadata['classes'] == 'a b'
  assert from_nir(graph)[0] == TINY
  foreign = nir.NIRGraph.from_list(nir.Affine(np.ones((2, 2)), np.ones(2)))
  with pytest.raises(UserError, match='written by another program and cannot'):
    from_nir(foreign)
  graph.nodes['units1_level2'].v_threshold[0, 1, 1] = 1.5
  with pytest.raises(UserError, match="node 'units1_level2' differs"):
    from_nir(graph)
  graph.nodes['units1_level2'].v_threshold[0, 1, 1] = 1.6
  graph.edges.remove(('units1_level3', 'layer1_0_conv1'))
  with pytest.raises(UserError, match=r"edge \('units1_level3', 'lay"):
    from_nir(graph)


def outputs_in_time(importer, graph, frames):
  """Output of a graph as a simulator reads it, [time, batch, ...]."""
  torch = pytest.importorskip('torch')

  network, state = pytest.importorskip(importer).import_from_nir(graph), None
  outputs = []
  with torch.no_grad():
    for frame in torch.from_numpy(frames):
      output, state = network(frame, state)
      outputs.append(output)
  return torch.stack(outputs).numpy()


SNNTORCH = 'snntorch.import_nir'
SPIKINGJELLY = 'spikingjelly.activation_based.nir_exchange'
of_simulators = pytest.mark.parametrize('importer', [SNNTORCH, SPIKINGJELLY])
# Warnings that they give themselves.
theirs = pytest.mark.filterwarnings('default')


@pytest.mark.slow
@theirs
@of_simulators
@pytest.mark.parametrize('network', [digits_network, moving_digits_network])
def test_simulators_compute_the_same(importer, network, tmp_path):
  model, variables, x = network()
  path = tmp_path / 'network.nir'
  export_nir(path, model, variables, x.shape[-3:], scale=0.5)
  frames = x if x.ndim == 5 else np.repeat(x[:, None], 4, 1)
  frames = np.ascontiguousarray(frames.transpose(1, 0, 4, 2, 3)) * 0.5
  got = outputs_in_time(importer, nir.read(path), frames).mean(0)
  wanted, _ = run_network(model, variables, x)
  classes = (got.argmax(-1) != wanted.argmax(-1)).sum()
  logits = (np.abs(got - wanted).max(-1) > 1e-4).sum()
  print(f'{importer}: {logits} logits, {classes} classes of {len(x)} differ')
  assert classes <= FEW_CLASSES * len(x) and logits <= 0.02 * len(x)


@pytest.mark.slow
@theirs
@of_simulators
def test_simulators_at_the_threshold(importer):
  _, levels, x = quarters()
  strict = importer == SNNTORCH
  comparison = 'STRICT' if strict else 'NOT_STRICT'
  wanted = fired(levels, x, fires=getattr(nir_interpreter, comparison))
  got = sum(outputs_in_time(importer, level, x) for level in levels)
  np.testing.assert_array_equal(got, wanted)
  # The decay that each of them refuses.
  unit = MLF(decay=1.0 if strict else 0.0)
  model = dataclasses.replace(TINY, unit=unit)
  graph = to_nir(model, tiny_variables(), (2, 2, 1))
  with pytest.raises(AssertionError if strict else ValueError, match=r'r|tau'):
    outputs_in_time(importer, graph, x)


@pytest.mark.slow
@theirs
def test_the_commands_of_the_document(tmp_path, monkeypatch):
  torch = pytest.importorskip('torch')
  pytest.importorskip(SNNTORCH)
  monkeypatch.chdir(tmp_path)
  model, variables, images = digits_network()
  raw = torch.from_numpy(16 * images.transpose(0, 3, 1, 2))
  prepared = Preprocessing((8, 8, 1), 10, (), 16.0, (0.3,), (0.4,))
  net = types.SimpleNamespace(
    model=model, variables=variables, preprocessing=prepared
  )
  monkeypatch.setattr(mlf_jax, 'load', {'runs/digits': net}.get)
  names = {'images': raw}
  document = pathlib.Path(__file__).parents[2] / 'docs/nir.md'
  blocks = re.findall(r'```python\n(.*?)```', document.read_text(), re.DOTALL)
  for block in blocks:
    exec(block, names)
  wanted, _ = run_network(model, variables, (images - 0.3) / 0.4)
  differ = names['logits'].numpy().argmax(-1) != wanted.argmax(-1)
  assert differ.sum() <= FEW_CLASSES * len(images)
