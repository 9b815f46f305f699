"""Networks of the published method, which other formats know."""

import flax.linen as nn

from mlf_jax.errors import UserError
from mlf_jax.layers import MLF, NORMALIZATIONS, TEBatchNorm
from mlf_jax.models import SpikingResNet, SpikingVGG

NETWORKS = {cls.__name__: cls for cls in (SpikingResNet, SpikingVGG)}


def require_published(model: nn.Module, form: str) -> None:
  """Raises `UserError` unless a network has the method's units and blocks.

  Args:
    model: the network.
    form: what it is to be written as, for the message.
  """
  if type(model) not in NETWORKS.values():
    raise UserError(
      f'only {" and ".join(NETWORKS)} can be written as {form}, not '
      f'{type(model).__name__}'
    )
  if type(model.unit) is not MLF:
    raise UserError(
      f'only networks of MLF units can be written as {form}, not of '
      f'{type(model.unit).__name__}'
    )
  residual = getattr(model, 'residual', 'ds')
  if residual not in ('ds', 'plain'):
    raise UserError(
      f"only the blocks 'ds' and 'plain' can be written as {form}, not "
      f'{residual!r}'
    )
  if issubclass(NORMALIZATIONS[model.normalization], TEBatchNorm):
    raise UserError(
      f"networks with the normalisation 'tebn', which differs between "
      f'timesteps, cannot be written as {form}'
    )
  for name, value in (('stem', '3x3'), ('hidden', ())):
    if (own := getattr(model, name, value)) != value:
      raise UserError(
        f'only networks with {name}={value!r} can be written as {form}, not '
        f'with {own!r}'
      )
