"""Reads the pickled dictionaries of CIFAR without running what they ask for.

A pickle names functions and classes that are called while it is read. Here the
few names that arrays need stand for the classes below, which keep what they are
given, and every other name is an error.
"""

import io
import math
import pickle

import numpy as np

from mlf_jax.errors import UserError


class _Dtype:
  """Stands for `numpy.dtype`; its state, the byte order, says nothing new."""

  def __init__(self, code, *unused):
    self.code = code

  def __setstate__(self, state):
    del state


class _Array:
  """Stands for `numpy.ndarray`, and becomes one of bytes."""

  def __setstate__(self, state):
    _, shape, dtype, is_fortran, content = state
    if is_fortran or dtype.code not in ('u1', b'u1'):
      raise ValueError('an array is not uint8 in C order')
    # Their product may not be computed from what is not whole numbers.
    if len(content) != math.prod(map(int, shape)):
      raise ValueError(f'{len(content)} bytes in an array of shape {shape}')
    self.array = np.frombuffer(content, np.uint8).reshape(shape)


# NumPy 2 calls its core `_core`; Python 3 writes bytes as encoded text.
_KNOWN = {
  ('numpy.core.multiarray', '_reconstruct'): lambda *unused: _Array(),
  ('numpy._core.multiarray', '_reconstruct'): lambda *unused: _Array(),
  ('numpy', 'ndarray'): _Array,
  ('numpy', 'dtype'): _Dtype,
  ('_codecs', 'encode'): lambda text, unused: text.encode('latin1'),
}


class _Unpickler(pickle.Unpickler):
  def find_class(self, module, name):
    if (module, name) not in _KNOWN:
      raise ValueError(
        f'it asks for {module}.{name}, which no file of CIFAR does'
      )
    return _KNOWN[module, name]


def unpickle(content: bytes, name: str) -> dict:
  """Reads a pickled dictionary of arrays, lists, numbers and text.

  Args:
    content: the pickle, of Python 2 or 3.
    name: name of the file in messages.

  Returns:
    The dictionary, with keys of type str and arrays of uint8.

  Raises:
    UserError: it is damaged, is no dictionary, or asks for anything else.
  """
  try:
    found = _Unpickler(io.BytesIO(content), encoding='bytes').load()
    return {
      key.decode() if isinstance(key, bytes) else key: (
        value.array if isinstance(value, _Array) else value
      )
      for key, value in found.items()
    }
  except Exception as error:  # A damaged pickle may raise nearly anything.
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise UserError(f'{name} cannot be read ({reason}).') from error
