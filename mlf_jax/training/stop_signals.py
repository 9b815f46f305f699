"""Signals that end a run, at the same step in all of its processes."""

import collections
import contextlib
import signal
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mlf_jax.training.sharding import DataParallel


@contextlib.contextmanager
def received_signals() -> Iterator[list[int]]:
  """Collects SIGINT and SIGTERM; a second one has its usual effect.

  Yields:
    Numbers of the signals, added as they arrive.
  """
  received: list[int] = []

  def receive(number, frame):
    del frame
    received.append(number)
    signal.signal(number, before[number])

  before = {}
  try:
    for number in (signal.SIGINT, signal.SIGTERM):
      before[number] = signal.signal(number, receive)
  except ValueError:  # Not in the main thread: the caller handles signals.
    pass
  try:
    yield received
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


class AgreedStop:
  """Lets all processes stop after the same step, whichever got the signal.

  A signal reaches the processes at different steps, or only one of them. After
  each step all of them exchange what they got, and act some steps later on what
  they then know to be the same, without waiting for the devices in between.
  """

  def __init__(
    self, received: Sequence[int], parallel: DataParallel, delay: int
  ):
    """Gets ready to exchange.

    Args:
      received: gets the numbers of the signals as they arrive.
      parallel: the devices of all processes.
      delay: steps between an exchange and the decision.
    """
    self._received = received
    self._parallel = parallel
    self._delay = delay
    self._under_way = collections.deque()
    self._largest = jax.jit(jnp.max, out_shardings=parallel.replicated)

  def __call__(self) -> int:
    """The signal that ends the run after this step in all processes, or 0."""
    own = max(self._received, default=0)
    if jax.process_count() == 1:
      return own
    rows = self._parallel.rows(self._parallel.num_devices)
    each = np.full(rows.stop - rows.start, own, np.int32)
    self._under_way.append(self._largest(self._parallel.shard_batch(each)))
    if len(self._under_way) <= self._delay:
      return 0
    return int(jax.device_get(self._under_way.popleft()))
