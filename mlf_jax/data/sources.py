"""Where samples come from: data sets by name."""

from mlf_jax.data import cifar, digits
from mlf_jax.data.dataset import Dataset
from mlf_jax.errors import unknown

_NAMES = ('cifar10', 'cifar100', 'digits')
_SPLITS = ('train', 'test')


def names() -> tuple[str, ...]:
  """Returns the names that `load` knows, in alphabetical order."""
  return _NAMES


def load(
  name: str, split: str, *, data_dir: str = '', manual_dir: str = ''
) -> Dataset:
  """Loads one split of a data set into memory, preparing it if need be.

  Args:
    name: one of `names()`.
    split: 'train' or 'test'.
    data_dir: where prepared data sets are stored; empty for the place that
      TensorFlow Datasets uses, `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.
    manual_dir: folder that holds the published archive, or the archive itself;
      empty to download it. Not looked at if `data_dir` holds the data set.

  Returns:
    The split.

  Raises:
    UserError: no such name or split, or the data cannot be had.
  """
  if name not in _NAMES:
    raise unknown('data set', name, _NAMES)
  if split not in _SPLITS:
    raise unknown('split', split, _SPLITS)
  if name == 'digits':
    return digits.load(split)
  return cifar.load(name, split, data_dir, manual_dir)
