"""Quick compilation, for tests of what a program does and not of its speed.

Most of the time of the suite goes into XLA, and most of XLA's into code that a
test runs a few times. Not for tests against reference data or to the last bit
of what is computed in another order: they are about the program users run.
"""

import functools

import jax

_OPTIONS = {'xla_backend_optimization_level': 0}
# Another half of the time where XLA still has the choice.
if jax.__version_info__ < (0, 11):
  _OPTIONS['xla_cpu_use_fusion_emitters'] = False
# The same in the environment variable XLA_FLAGS of a program.
FLAGS = ' '.join(f'--{name}={int(on)}' for name, on in _OPTIONS.items())

jit = functools.partial(jax.jit, compiler_options=_OPTIONS)


def of_the_library():
  """Body of a fixture of a module: the library's own `jax.jit` is quick too."""
  # All that JAX lets a running program ask for, about half of the gain.
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)
  # Compiled functions do not remember how: not for the tests that follow.
  jax.clear_caches()
