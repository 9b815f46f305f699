"""Recordings that arrive in pieces, with the decision so far after each.

    state = stream.init(model, variables, frame_shape=(64, 64, 2))
    for frames in pieces:  # [1, time, 64, 64, 2]
      state, logits = stream.feed(model, variables, state, frames)

After every piece the logits are those of the network for all frames so far in
one call. They are the same to the last bit if the readout averages whole
numbers (everywhere but with `residual='ds', shortcut='norm'`) and no membrane
potential lies so close to a threshold that the rounding of a convolution, which
may depend on the number of frames in a call, decides about a spike.
"""

import dataclasses
import functools
from typing import Any

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from mlf_jax.errors import (
  UserError,
  require_finite,
  require_positive_integers,
)
from mlf_jax.layers import INITIAL_STATE, MEMBRANE_POTENTIAL
from mlf_jax.models import SpikingResNet, SpikingVGG


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=('collection',),
  meta_fields=('frame_shape',),
)
@dataclasses.dataclass(frozen=True, eq=False)
class StreamState:
  """State that a network carries through a batch of recordings, a pytree.

  Attributes:
    collection: collection 'membrane_potential' of the network.
    frame_shape: (batch, height, width, channel) of the recordings.
  """

  collection: Any
  frame_shape: tuple[int, int, int, int]


def init(
  model: SpikingResNet | SpikingVGG,
  variables: dict[str, Any],
  frame_shape: tuple[int, int, int],
  batch_size: int = 1,
) -> StreamState:
  """State before the first frame: units at rest.

  Args:
    model: the network; its `time_steps` matter only if it learns something for
      each timestep, as with the normalisation 'tebn'.
    variables: `params` and `batch_stats`.
    frame_shape: (height, width, channel) of the recordings.
    batch_size: number of recordings that are fed side by side.

  Raises:
    UserError: `frame_shape` is not three sizes, or the variables are not those
      of the network on such frames.
  """
  require_positive_integers(frame_shape=frame_shape, batch_size=batch_size)
  if not isinstance(frame_shape, (tuple, list)) or len(frame_shape) != 3:
    raise UserError(
      f'frame_shape must be (height, width, channel), got {frame_shape}'
    )
  frames, several = (
    jax.ShapeDtypeStruct((batch_size, time_steps, *frame_shape), jnp.float32)
    for time_steps in (1, model.time_steps)
  )
  one_frame = model.clone(time_steps=1)
  # A layer may learn something for each timestep of training.
  wanted = jax.eval_shape(model.init, jax.random.key(0), several)
  given = flax.traverse_util.flatten_dict(variables, sep='/')
  for name, leaf in flax.traverse_util.flatten_dict(wanted, sep='/').items():
    shape = given[name].shape if name in given else 'missing'
    if shape != leaf.shape:
      raise UserError(
        'the variables are not those of this network on frames of '
        f'{frame_shape}: {name} is {shape} instead of {leaf.shape}'
      )
  collection = _initial_state(
    one_frame, variables, jnp.zeros(frames.shape, frames.dtype)
  )
  return StreamState(collection, (batch_size, *frame_shape))


@functools.partial(jax.jit, static_argnums=0)
def _initial_state(model, variables, frames):
  """State that the network starts from; XLA drops all other computation."""
  _, state = model.apply(variables, frames, mutable=[INITIAL_STATE])
  return state[INITIAL_STATE]


def feed(
  model: SpikingResNet | SpikingVGG,
  variables: dict[str, Any],
  state: StreamState,
  frames: Num[Array, 'batch time height width channel'],
  *,
  check_finite: bool = False,
) -> tuple[StreamState, Float[Array, 'batch classes']]:
  """Feeds the next frames; compiled once for every number of frames.

  Args:
    model: the network; its `time_steps` do not matter.
    variables: `params` and `batch_stats`.
    state: state after the frames before.
    frames: at least one frame, of any real dtype, normalised as in training.
    check_finite: looks for NaN and infinity in the frames first, which costs a
      copy to the host. Without, they are silent: a membrane potential that is
      NaN never fires.

  Returns:
    The state after the frames, and the logits [batch, classes] for all frames
    so far, float32 or wider. They are a mean over time, for which a float32
    network adds up spikes exactly as long as no sum exceeds 2**24; a recording
    without end should start anew before.

  Raises:
    UserError: frames of another shape than those before, or, if that is
      checked, a number that is not finite.
  """
  if check_finite:
    require_finite('frames', frames)
  return _feed(model, variables, state, frames)


@functools.partial(jax.jit, static_argnames='model')
def _feed(model, variables, state, frames):
  batch, *rest = state.frame_shape
  if frames.shape != (batch, *frames.shape[1:2], *rest) or 0 in frames.shape:
    raise UserError(
      f'frames of shape {frames.shape} do not continue recordings of shape '
      f'[{batch}, time, {", ".join(map(str, rest))}]'
    )
  logits, new = model.clone(time_steps=frames.shape[1]).apply(
    {**variables, MEMBRANE_POTENTIAL: state.collection},
    frames,
    mutable=[MEMBRANE_POTENTIAL],
  )
  return StreamState(new[MEMBRANE_POTENTIAL], state.frame_shape), logits
