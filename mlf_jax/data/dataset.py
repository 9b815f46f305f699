"""What the rest of the package sees of a data set: one split in memory."""

import dataclasses
import functools
import hashlib

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """One split of a labelled image or frame data set.

  Attributes:
    name: name of the data set, such as 'cifar10'.
    split: 'train' or 'test'.
    split_name: how the split was made, 'official' where the data set's authors
      made it. Accuracies under different split names do not compare.
    images: uint8, [n, h, w, c] for static images or [n, t, h, w, c] for frames.
    labels: int32 [n], class of each sample in 0..num_classes - 1.
    num_classes: number of classes.
    scale: the value of `images` that stands for 1.0.
    mean: mean per channel of the training images divided by `scale`.
    std: standard deviation per channel of the same.
    ids: str [n], the name of each recording of an event data set, else None.
  """

  name: str
  split: str
  split_name: str
  images: np.ndarray
  labels: np.ndarray
  num_classes: int
  scale: float
  mean: tuple[float, ...]
  std: tuple[float, ...]
  ids: np.ndarray | None = None

  def __len__(self) -> int:
    """Returns the number of samples."""
    return len(self.labels)

  @functools.cached_property
  def split_hash(self) -> str:
    """First 16 hex digits of the SHA-256 of the labels, then of the members.

    Two runs whose hashes agree saw the same samples in the same order. Images
    stand for themselves; recordings are known by their names, so that the
    hashes of two ways to make frames of them compare.
    """
    digest = hashlib.sha256()
    # Little-endian whatever the machine, so that the hash compares.
    digest.update(np.ascontiguousarray(self.labels, '<i4').data)
    if self.ids is None:
      digest.update(np.ascontiguousarray(self.images).data)
    else:
      digest.update('\n'.join(self.ids).encode())
    return digest.hexdigest()[:16]
