"""Quick compilation, for tests of what a program does and not of its speed.

Most of the time of the suite goes into XLA, and most of XLA's into code that a
test runs a few times, such as what draws the variables. Not for tests against
reference data or to the last bit of what is computed in another order: they are
about the program users run.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlf_jax.training import sharding

_OPTIONS = {
  'xla_backend_optimization_level': 0,
  # Not divided into 32 modules, each with its overhead.
  'xla_cpu_parallel_codegen_split_count': 1,
}
# Another half of the time where XLA still has the choice.
if jax.__version_info__ < (0, 11):
  _OPTIONS['xla_cpu_use_fusion_emitters'] = False
# The same in the environment variable XLA_FLAGS of a program.
FLAGS = ' '.join(f'--{name}={int(on)}' for name, on in _OPTIONS.items())

jit = functools.partial(jax.jit, compiler_options=_OPTIONS)


def variables(model, x):
  """Variables of a network, drawn like its own but by NumPy.

  To compile what draws them takes longer than to compile a training step.
  """
  generator = np.random.default_rng(0)

  def draw(path, leaf):
    name = path[-1].key
    if name in ('scale', 'time_scale', 'var'):
      return np.ones(leaf.shape, leaf.dtype)
    if name != 'kernel':
      return np.zeros(leaf.shape, leaf.dtype)
    deviation = np.sqrt(2 / np.prod(leaf.shape[:-1]))
    return (deviation * generator.standard_normal(leaf.shape)).astype(
      leaf.dtype
    )

  shapes = jax.eval_shape(model.init, jax.random.key(0), x)
  return jax.tree.map(
    jnp.asarray, jax.tree_util.tree_map_with_path(draw, shapes)
  )


def of_the_library():
  """Body of a fixture of a module: the library's own `jax.jit` is quick too."""
  options = sharding.compiler_options
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      sharding, 'compiler_options', lambda name: options(name) | _OPTIONS
    )
    # Where the library names no options: all that JAX lets a running program
    # ask for, about half of the gain.
    jax.config.update('jax_disable_most_optimizations', True)
    yield
    jax.config.update('jax_disable_most_optimizations', False)
  # Compiled functions do not remember how: not for the tests that follow.
  jax.clear_caches()
