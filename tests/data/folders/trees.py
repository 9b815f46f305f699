"""Folders of images and of recordings, and what is in them."""

import pathlib

import numpy as np
import PIL.Image


def picture(label, number, size=(6, 5), channels=3):
  """An image whose pixels tell its label and its number."""
  image = np.full((*size, channels), 40 * label, np.uint8)
  image[0, 0] = number
  return image


def write_images(root, counts, **options):
  """Writes `root/SPLIT/CLASS/NUMBER.png`; `counts` maps 'SPLIT/CLASS' to n."""
  for label, (folder, count) in enumerate(counts.items()):
    for number in range(count):
      path = pathlib.Path(root, folder, f'{number:03d}.png')
      path.parent.mkdir(parents=True, exist_ok=True)
      PIL.Image.fromarray(picture(label, number, **options).squeeze()).save(
        path
      )


def write_recordings(root, counts, suffix='.npy', size=(6, 5)):
  """Writes recordings of as many events as their number plus 1, in a row."""
  for label, (folder, count) in enumerate(counts.items()):
    for number in range(count):
      path = pathlib.Path(root, folder, f'{number:03d}{suffix}')
      path.parent.mkdir(parents=True, exist_ok=True)
      np.save(path, recording(label, number))


def recording(label, number):
  """Events at one pixel, whose row is the label, 1 ms apart."""
  events = np.zeros(
    number + 1, [('t', 'i8'), ('x', 'i2'), ('y', 'i2'), ('p', '?')]
  )
  events['t'] = 1000 * np.arange(number + 1)
  events['y'] = label
  return events
