"""The spike function and the surrogate derivatives it is trained with.

A spike is a step of the membrane potential: it has no useful derivative. In
the backward pass the step's derivative is replaced by a window of unit area
and peak `1 / width`, centred on the threshold.

Source: Feng et al., "Multi-Level Firing with Spiking DS-ResNet", IJCAI 2022,
section 3.1 (rectangular); Fang et al., ICCV 2021 (arctan); Esser et al., PNAS
2016 (triangular).
"""

import functools
import numbers

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mlf_jax.errors import UserError, require_floating, unknown


def _rectangular(z, width):
  return (jnp.abs(z) < width / 2).astype(z.dtype) / width


def _arctan(z, width):
  return 1 / (width * (1 + jnp.square(jnp.pi * z / width)))


def _sigmoid(z, width):
  s = jax.nn.sigmoid(4 * z / width)
  return 4 / width * s * (1 - s)


def _triangular(z, width):
  return jnp.maximum(0, 1 - jnp.abs(z) / width) / width


_DERIVATIVES = {
  'rectangular': _rectangular,
  'arctan': _arctan,
  'sigmoid': _sigmoid,
  'triangular': _triangular,
}

SURROGATES = tuple(_DERIVATIVES)


def check_window(width: float, surrogate: str) -> None:
  """Raises `UserError` unless the window exists and has a positive width."""
  if callable(surrogate):
    raise UserError(
      f'surrogate must be one of {", ".join(SURROGATES)}, got a function; a '
      'surrogate of your own goes into a unit of your own, as a function with '
      'jax.custom_jvp that its step calls'
    )
  if surrogate not in _DERIVATIVES:
    raise unknown('surrogate', surrogate, SURROGATES)
  if not isinstance(width, numbers.Real) or not 0 < width < float('inf'):
    raise UserError(
      f'the surrogate width must be a positive number, got {width!r}'
    )


def derivative(
  z: Float[Array, '*shape'],
  width: float = 1.0,
  surrogate: str = 'rectangular',
) -> Float[Array, '*shape']:
  """Surrogate derivative of the spike function.

  Args:
    z: membrane potential relative to the threshold, `u - V`.
    width: width `a` of the window; its peak is `1 / a`, its area 1.
    surrogate: one of `SURROGATES`.

  Returns:
    h(z), in the shape and dtype of `z`. The rectangular window is open:
    `|z| < a / 2`, strictly.

  Raises:
    UserError: the width is not positive, the surrogate is unknown or `z` is not
      floating.
  """
  check_window(width, surrogate)
  z = jnp.asarray(z)
  require_floating(z=z)
  return _DERIVATIVES[surrogate](z, width)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _step_function(z, width, surrogate):
  return _step_function_fwd(z, width, surrogate)[0]


def _step_function_fwd(z, width, surrogate):
  del width, surrogate
  return (z > 0).astype(z.dtype), z


def _step_function_bwd(width, surrogate, z, g):
  return (g * _DERIVATIVES[surrogate](z, width),)


_step_function.defvjp(_step_function_fwd, _step_function_bwd)


def spike(
  u: Float[Array, '*shape'],
  threshold: Float[Array, '*#shape'] | float,
  width: float = 1.0,
  surrogate: str = 'rectangular',
) -> Float[Array, '*shape']:
  """Spike function: 1 where the membrane potential exceeds the threshold.

  The derivative with respect to `u` is the surrogate `h(u - threshold)`, with
  respect to `threshold` its negative.

  Args:
    u: membrane potential.
    threshold: a number, or an array of the rank of `u` that broadcasts to it.
    width: width `a` of the surrogate window.
    surrogate: one of `SURROGATES`.

  Returns:
    Spikes, 0 or 1, in the shape and dtype of `u`.

  Raises:
    UserError: the width is not positive, the surrogate is unknown, `u` is not
      floating, or the threshold does not fit.
  """
  check_window(width, surrogate)
  u = jnp.asarray(u)
  require_floating(u=u)
  threshold = jnp.asarray(threshold, u.dtype)
  if threshold.ndim not in (0, u.ndim):
    raise UserError(
      f'threshold must be a number or have the rank of u, {u.ndim}, got shape '
      f'{threshold.shape}'
    )
  # u > V and u - V > 0 are the same in IEEE arithmetic, and the window is
  # specified on the difference.
  return _step_function(u - threshold, width, surrogate)
