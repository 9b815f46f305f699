"""Multi-level firing (MLF) neurons as pure functions.

`step` is the executable specification of one timestep, `run` the fast path
over a recording, `mlf` the one-liner for a model of your own.
"""

from mlf_jax.neuron import surrogate
from mlf_jax.neuron._timestep import Affine, Equations
from mlf_jax.neuron._vjp import recurrence
from mlf_jax.neuron.compiler_hints import materialise, vary_alike
from mlf_jax.neuron.mlf import (
  MLFParams,
  MLFState,
  init_state,
  membrane_dtype,
  mlf,
  run,
  step,
)
from mlf_jax.neuron.surrogate import SURROGATES

__all__ = [
  'SURROGATES',
  'Affine',
  'Equations',
  'MLFParams',
  'MLFState',
  'init_state',
  'materialise',
  'membrane_dtype',
  'mlf',
  'recurrence',
  'run',
  'step',
  'surrogate',
  'vary_alike',
]
