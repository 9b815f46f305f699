"""The recurrence of units as a `custom_vjp`, and its choice of backend."""

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
from jax import custom_derivatives
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from mlf_jax.neuron import _xla
from mlf_jax.neuron._timestep import Affine, Equations, MultiLevelFiring


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def recurrence(
  unit: Equations,
  x: Float[Array, 'time *shape'],
  u: Float[Array, 'level *shape'],
  affine: Affine | None,
  values: Any,
) -> tuple[Float[Array, 'level *shape'], Float[Array, 'time *shape']]:
  """Runs any units of such equations; the arguments are not checked.

  At each timestep the current is added to what the reset of the one before has
  left: u_k[t] = left_k(u[t-1]) + x[t]. The backward pass keeps only `x` and
  computes the membranes again.

  Args:
    unit: the equations.
    x: input current, or what `affine` turns into the current.
    u: initial membrane potentials, in float32 or wider.
    affine: coefficients per channel, in the dtype of `u`, or None.
    values: of the units, a tree of scalars in the dtype of `u`.

  Returns:
    Final membrane potentials, before the reset, and spikes in the dtype of `x`.
  """
  operands = x, u, affine, values
  forward = functools.partial(_xla.forward, unit)
  gpu = _gpu_kernels(unit, x, u)
  if gpu is None:
    return forward(*operands)
  kernel = functools.partial(gpu.forward, unit)
  return jax.lax.platform_dependent(*operands, cuda=kernel, default=forward)


def _forward(unit, *primals):
  operands = custom_derivatives.custom_vjp_primal_tree_values(primals)
  learned = any(value.perturbed for value in jax.tree.leaves(primals[-1]))
  # Residuals are trees of arrays: the length of the second one says whether
  # somebody asks for the gradient of `values`.
  return recurrence(unit, *operands), (operands, (None,) * learned)


def _backward(unit, residuals, cotangents):
  (x, u, affine, values), learned = residuals
  d_final, g = (
    jnp.zeros_like(primal) if isinstance(cotangent, SymbolicZero) else cotangent
    for cotangent, primal in zip(cotangents, (u, x), strict=True)
  )
  operands = x, u, g, d_final, affine, values
  backward = functools.partial(_xla.backward, unit, bool(learned))
  gpu = _gpu_kernels(unit, x, u)
  if gpu is None:
    d_current, d_u, d_values = backward(*operands)
  else:
    kernel = functools.partial(gpu.backward, unit)
    d_current, d_u, d_values = jax.lax.platform_dependent(
      *operands, cuda=kernel, default=backward
    )
  if affine is None:
    return d_current.astype(x.dtype), d_u, None, d_values
  pull = jax.vjp(lambda x, affine: affine(x), x, affine)[1]
  d_x, d_affine = pull(d_current)
  return d_x, d_u, d_affine, d_values


recurrence.defvjp(_forward, _backward, symbolic_zeros=True)


def _gpu_kernels(unit, x, u):
  """The module with kernels for GPUs; None where XLA's own loops run."""
  if not (isinstance(unit, MultiLevelFiring) and x.size and _has_gpu()):
    return None
  gpu = _import_gpu_kernels()
  return gpu if gpu is not None and gpu.can_index(x, u) else None


def _has_gpu():
  """True if the default device is a GPU that the kernels can run on."""
  if jax.default_backend() != 'gpu':
    return False
  capability = getattr(jax.local_devices()[0], 'compute_capability', '')
  major, _, minor = str(capability).partition('.')
  # The kernels' compiler needs NVIDIA's Ampere (8.0) or later; GPUs of other
  # makers have names here, not numbers.
  return major.isdigit() and minor.isdigit() and int(major) >= 8


@functools.cache
def _import_gpu_kernels():
  """Imports the kernels; warns once and returns None if JAX lacks Pallas.

  Only called where there is a GPU: Pallas would make `import mlf_jax` slower.
  """
  try:
    from mlf_jax.neuron import _gpu
  except ImportError as error:
    warnings.warn(
      f'the GPU kernels cannot be imported ({error}); neurons run in loops, '
      'which are slower but give the same numbers',
      stacklevel=2,
    )
    return None
  return _gpu
