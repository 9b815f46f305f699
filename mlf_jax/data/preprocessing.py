"""From raw samples to the input of a network."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Real


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """All that a network has to know about its data set.

  Attributes:
    sample_shape: shape of a sample: (height, width, channel), or (time, height,
      width, channel) for frames.
    num_classes: number of classes.
    class_names: name of each class; empty if they are not known.
    scale: the value of a sample that stands for 1.0.
    mean: mean per channel of the samples divided by `scale`.
    std: standard deviation per channel of the same.
    dtype: dtype of raw samples.
  """

  sample_shape: tuple[int, ...]
  num_classes: int
  class_names: tuple[str, ...]
  scale: float
  mean: tuple[float, ...]
  std: tuple[float, ...]
  dtype: str = 'uint8'

  @classmethod
  def from_json(cls, stored: Mapping[str, Any]) -> 'Preprocessing':
    """Reads what `dataclasses.asdict` gave and JSON kept.

    Raises:
      TypeError: a field is missing or unknown.
    """
    return cls(
      **{n: tuple(v) if isinstance(v, list) else v for n, v in stored.items()}
    )

  def normalize(
    self, samples: Real[Array, '*batch channel'], dtype: jnp.dtype
  ) -> Float[Array, '*batch channel']:
    """Returns `(samples / scale - mean) / std`, per channel.

    Args:
      samples: raw images or frames.
      dtype: dtype of the result. The arithmetic is in float32 at least.
    """
    wide = dtype if jnp.finfo(dtype).bits > 32 else jnp.float32
    per_channel = (1,) * (samples.ndim - 1) + (-1,)
    mean = jnp.asarray(self.mean, wide).reshape(per_channel)
    std = jnp.asarray(self.std, wide).reshape(per_channel)
    return ((samples.astype(wide) / self.scale - mean) / std).astype(dtype)
