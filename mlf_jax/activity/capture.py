"""Captures what layers of a network compute, in loops over blocks too."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax
import flax.linen as nn
import jax
from jaxtyping import Array, Num

from mlf_jax.errors import UserError
from mlf_jax.layers import OBSERVED, Observation, SpikingUnits

# Maps a module that is about to be called, and its arguments, to the arrays to
# capture; None for no arrays.
Hook = Callable[..., Any]


def capture(
  model: nn.Module,
  variables: Mapping[str, Any],
  inputs: Num[Array, 'batch ...'],
  hook: Hook,
  *,
  mutable: Sequence[str] = (),
  **options,
) -> tuple[Any, dict[str, Any]]:
  """Applies a network and collects what a function sees at each layer.

  A pure function: it can be jitted and differentiated, with the result of the
  network as the value and what was captured beside it.

  Args:
    model: the network.
    variables: its variables.
    inputs: its input.
    hook: called with every module and its arguments, `hook(module, *args,
      **kwargs)`, before the module is; returns what to capture, or None.
      Reducing there, and not afterwards, saves memory.
    mutable: collections that the network may update.
    **options: further arguments of `model.apply`.

  Returns:
    What `model.apply` returns, with updated collections if there are `mutable`
    ones, and what was captured by the path of the module, in no particular
    order; see `in_order`.
  """

  in_hook = False

  def intercept(call, args, kwargs, context):
    nonlocal in_hook
    # A hook may apply modules itself.
    if context.method_name == '__call__' and not in_hook:
      in_hook = True
      captured = hook(context.module, *args, **kwargs)
      in_hook = False
      if captured is not None:
        context.module.put_variable(OBSERVED, 'captured', captured)
    return call(*args, **kwargs)

  with nn.intercept_methods(intercept):
    result, updated = model.apply(
      variables, inputs, mutable=[*mutable, OBSERVED], **options
    )
  observed = flax.traverse_util.flatten_dict(
    updated.pop(OBSERVED, {}),
    is_leaf=lambda path, _: path[-1:] == ('captured',),
  )
  by_path = {'/'.join(path[:-1]): value for path, value in observed.items()}
  return (result, updated) if mutable else result, by_path


def depth_order(model: nn.Module, inputs: Num[Array, 'batch ...']) -> list[str]:
  """Paths of all modules of a network, in the order in which they are called.

  Args:
    model: the network.
    inputs: its input, or a `jax.ShapeDtypeStruct`; nothing is computed.
  """
  paths = []

  def intercept(call, args, kwargs, context):
    paths.append('/'.join(context.module.path))
    return call(*args, **kwargs)

  # At initialisation there are no loops over blocks.
  with nn.intercept_methods(intercept):
    jax.eval_shape(lambda x: model.init(jax.random.key(0), x), inputs)
  return list(dict.fromkeys(paths))


def in_order(
  by_path: Mapping[str, Any], order: Sequence[str]
) -> dict[str, Any]:
  """Sorts what belongs to layers by their depth, as `jax.jit` does not.

  Args:
    by_path: by the paths of layers.
    order: paths of `depth_order`.
  """
  return {path: by_path[path] for path in order if path in by_path}


def units_hook(function: Callable[[Observation], Any]) -> Hook:
  """Hook that captures a function of what spiking units let see of themselves.

  No gradient flows through it.
  """

  def hook(module, *args, **kwargs):
    if not isinstance(module, SpikingUnits):
      return None
    args, kwargs = jax.lax.stop_gradient((args, kwargs))
    return function(module.observe(*args, **kwargs))

  return hook


def observe(
  model: nn.Module,
  variables: Mapping[str, Any],
  inputs: Num[Array, 'batch ...'],
  train: bool = False,
) -> dict[str, Observation]:
  """Membrane potentials, fired levels and window membership of all units.

  They take memory: for a whole network K * T times as many numbers as there
  are units, per sample. `measure` needs far less.

  Args:
    model: the network.
    variables: `params`, `batch_stats`, and `membrane_potential` for the next
      piece of a recording (`stream.StreamState.collection`).
    inputs: input of the network.
    train: whether to normalise with the statistics of the batch, for networks
      whose `__call__` takes `train`.

  Returns:
    Layers to observations, in the order of computation.

  Raises:
    UserError: the units do not offer `observe`, or there are none; or `train`
      is true and the network does not take it.
  """
  observed = _observe(model, variables, inputs, train)
  require_units(observed, model)
  return in_order(observed, depth_order(model, inputs))


@functools.partial(jax.jit, static_argnames=('model', 'train'))
def _observe(model, variables, inputs, train):
  return capture_units(model, variables, inputs, lambda seen: seen, train)


def capture_units(
  model: nn.Module,
  variables: Mapping[str, Any],
  inputs: Num[Array, 'batch ...'],
  function: Callable[[Observation], Any],
  train: bool,
) -> dict[str, Any]:
  """Captures a function of what all units let see, by the path of the layer.

  Raises:
    UserError: `train` is true and the network does not take it.
  """
  parameters = inspect.signature(type(model).__call__).parameters.values()
  options = {'mutable': ['batch_stats'] if train else []}
  if any(p.name == 'train' or p.kind is p.VAR_KEYWORD for p in parameters):
    options['train'] = train
  elif train:
    raise UserError(
      f'train is true, but {type(model).__name__}.__call__ takes no argument '
      'train: leave it out here, or add it there'
    )
  return capture(model, variables, inputs, units_hook(function), **options)[1]


def require_units(layers: Mapping[str, Any], model: nn.Module) -> None:
  """Raises `UserError` if nothing was observed."""
  if not layers:
    raise UserError(
      f'{type(model).__name__} has no layers.SpikingUnits, which are what can '
      'be observed: instead of mlf_jax.mlf(x, ...) write '
      'layers.SpikingUnits(layers.MLF(...), time_steps)(x)'
    )
