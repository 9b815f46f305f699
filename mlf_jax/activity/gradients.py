"""Gradient norms by layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mlf_jax.activity.capture import in_order


def gradient_norms(
  gradient: Mapping[str, Any], order: Sequence[str] | None = None
) -> dict[str, Float[Array, '']]:
  """L2 norm of the gradient of each convolution's and dense layer's weights.

  Args:
    gradient: gradient of a loss, a tree like `variables['params']`.
    order: paths of `depth_order`; otherwise the order is that of the tree.

  Returns:
    Layers to norms; layers without a kernel, such as normalisations, are left
    out.
  """
  norms = {
    '/'.join(path[:-1]): jnp.linalg.norm(leaf)
    for path, leaf in flax.traverse_util.flatten_dict(gradient).items()
    if path[-1] == 'kernel'
  }
  return norms if order is None else in_order(norms, order)


def last_to_first(norms: Mapping[str, float]) -> float:
  """Norm of the last hidden layer's gradient over that of the first layer's.

  Far above 1: the gradient vanishes on its way to the first layer; far below:
  it explodes. The readout is left out, because its gradient passes no spiking
  unit, and so are projections of shortcuts, which are as deep as what they
  bypass.

  Args:
    norms: layers to norms in the order of computation, the readout last.

  Returns:
    The ratio; infinite if no gradient reaches the first layer, NaN if there is
    none at all.
  """
  hidden = [
    float(norm)
    for path, norm in list(norms.items())[:-1]
    if 'shortcut' not in path.rpartition('/')[2]
  ]
  if not hidden or hidden[0] == 0:
    return float('inf') if hidden and hidden[-1] > 0 else float('nan')
  return hidden[-1] / hidden[0]
