"""Guards of what the compiler is given: each protects a measured gain."""

import collections
import re

import jax
import jax.numpy as jnp
import pytest
from jax.extend import core

from mlf_jax import models, neuron
from mlf_jax.layers.convolution_vjp import conv_general_dilated


def traced_gradient(model, x):
  """The traced gradient of a loss of the logits; nothing is computed."""
  variables = jax.eval_shape(model.init, jax.random.key(0), x)

  def loss(params, stats):
    logits, new = model.apply(
      {'params': params, **stats}, x, train=True, mutable=['batch_stats']
    )
    return jnp.square(logits - 1).sum(), new

  return jax.jit(jax.grad(loss, has_aux=True)).trace(
    variables['params'], {'batch_stats': variables['batch_stats']}
  )


def equations(jaxpr, in_loop=False):
  """All equations with their inner ones, and whether a loop holds them.

  Branches per platform: only those for accelerators, which come last.
  """
  for equation in jaxpr.eqns:
    yield equation, in_loop
    loops = in_loop or equation.primitive.name in ('scan', 'while')
    params = dict(equation.params)
    if params.get('branches_platforms'):
      params['branches'] = params['branches'][-1:]
    for inner in core.jaxprs_in_params(params):
      yield from equations(inner, loops)


def network(time_steps, **attributes):
  return models.SpikingResNet((1, 1), (4, 6), 3, time_steps, **attributes)


def test_stem_convolves_an_image_once():
  """The convolution of the stem sees the batch, not T times the batch."""
  model, x = network(7), jnp.zeros((2, 8, 8, 2))
  variables = jax.eval_shape(model.init, jax.random.key(0), x)
  jaxpr = jax.make_jaxpr(model.apply)(variables, x).jaxpr
  first, second, *_ = (
    equation.invars[0].aval.shape
    for equation, _ in equations(jaxpr)
    if equation.primitive.name == 'conv_general_dilated'
  )
  assert (first[0], second[0]) == (2, 14)


@pytest.mark.parametrize(('mode', 'passes'), [('fastest', 3), ('smallest', 4)])
def test_convolutions_are_few_and_outside_of_loops(mode, passes):
  """Forward and two gradients each; once more where blocks run again."""
  jaxpr = traced_gradient(
    network(8, memory=mode), jnp.zeros((1, 8, 8, 8, 2))
  ).jaxpr.jaxpr
  in_loops = [
    in_loop
    for equation, in_loop in equations(jaxpr)
    if equation.primitive.name == 'conv_general_dilated'
  ]
  of_blocks = 5  # Two per block, and a shortcut.
  # The stem is not run again. Nobody asks for the gradient of its input, which
  # the compiler drops.
  assert len(in_loops) == passes * of_blocks + 3
  assert not any(in_loops)


def test_depth_adds_blocks_to_loops_only():
  """Instead of the time that 110 layers take to compile."""
  of_depth = []
  for n in (3, 9):
    model = models.SpikingResNet(
      (n, n), (4, 6), 3, 2, memory='smallest', scan_blocks=True
    )
    jaxpr = traced_gradient(model, jnp.zeros((1, 2, 8, 8, 2))).jaxpr.jaxpr
    of_depth.append(
      collections.Counter(
        (equation.primitive.name, in_loop)
        for equation, in_loop in equations(jaxpr)
        # These stack the variables and take them apart.
        if equation.primitive.name
        not in ('broadcast_in_dim', 'slice', 'squeeze', 'reshape')
      )
    )
  assert of_depth[0] == of_depth[1]
  assert of_depth[0]['conv_general_dilated', True] > 0


@pytest.mark.parametrize(
  ('mode', 'floats', 'counts'),
  [('fastest', 4, 0), ('balanced', 2, 2), ('smallest', 0, 1)],
)
def test_loops_keep_what_the_mode_says(mode, floats, counts):
  """Currents of a block, and its inputs of convolutions or of itself."""
  model = models.SpikingResNet((3,), (4,), 3, 2, memory=mode, scan_blocks=True)
  jaxpr = traced_gradient(model, jnp.zeros((1, 2, 8, 8, 2))).jaxpr.jaxpr
  kept = [
    v.aval
    for equation, _ in equations(jaxpr)
    if equation.primitive.name == 'scan'
    for v, of_body in zip(
      equation.outvars, equation.params['jaxpr'].out_avals, strict=True
    )
    # Arrays that the loop stacks for the outside.
    if v.aval.shape != of_body.shape and v.aval.shape[1:] == (2, 8, 8, 4)
  ]
  assert sum(a.dtype == jnp.float32 for a in kept) == floats
  assert sum(a.dtype == jnp.uint8 for a in kept) == counts


@pytest.mark.slow
def test_less_is_kept_in_each_mode():
  """Temporaries of the compiled step."""
  # At fewer timesteps, 'fastest' takes no more than the other modes in so small
  # a network.
  x = jnp.zeros((4, 20, 16, 16, 2))
  fastest, balanced, smallest = (
    traced_gradient(network(20, memory=mode), x)
    .lower()
    .compile(
      compiler_options={
        'xla_cpu_scheduler_type': 'CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED'
      }
    )
    .memory_analysis()
    .temp_size_in_bytes
    for mode in ('fastest', 'balanced', 'smallest')
  )
  assert balanced < fastest
  assert smallest < fastest


@pytest.mark.parametrize(
  ('platform', 'waits'), [('cuda', True), ('cpu', False)]
)
def test_counts_are_widened_when_the_gradient_is_there(platform, waits):
  """On GPUs XLA would otherwise keep what the forward pass widens."""
  apply = conv_general_dilated((0, 3))

  def loss(x, kernel):
    dimensions = ('NHWC', 'HWIO', 'NHWC')
    y = apply(x, kernel, (1, 1), 'SAME', dimension_numbers=dimensions)
    return jnp.square(y).sum()

  operands = jnp.ones((2, 5, 5, 4)), jnp.ones((3, 3, 4, 4))
  traced = jax.jit(jax.grad(loss, argnums=(0, 1))).trace(*operands)
  text = traced.lower(lowering_platforms=(platform,)).as_text()
  barriers = re.findall('optimization_barrier .+ : (.+)', text)
  assert ('tensor<2x5x5x4xui8>, tensor<2x5x5x4xf32>' in barriers) == waits


@pytest.mark.parametrize('backward', [False, True])
def test_loops_run_on_all_cores(backward):
  """XLA for CPUs may make one call, on one core, of a loop over timesteps."""
  apply = lambda x: neuron.run(neuron.MLFParams(), x)[1].sum()
  x = jnp.zeros((40, 4, 32, 32, 16))
  apply = jax.grad(apply) if backward else apply
  text = jax.jit(apply).lower(x).compile().as_text()
  assert ' while(' in text
  assert 'xla_cpu_small_call' not in text
