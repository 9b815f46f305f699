"""Pictures fit a light and a dark page."""

import io
import re

import numpy as np
from PIL import Image

from mlf_jax.analysis.report_painter import Painter


def test_a_picture_is_drawn_for_light_and_for_dark(tmp_path):
  def draw(figure):
    figure.subplots().plot([0, 1], [0, 1], color='C0')

  text = Painter(tmp_path).picture('line', draw, 'A rising line', height=2)
  assert sorted(p.name for p in tmp_path.iterdir()) == [
    'line-dark.png',
    'line.png',
  ]
  images = {}
  for name in ('line', 'line-dark'):
    content = (tmp_path / f'{name}.png').read_bytes()
    images[name] = np.asarray(Image.open(io.BytesIO(content)).convert('RGB'))
  size = re.search(r'width="(\d+)" height="(\d+)" alt="A rising line"', text)
  for image in images.values():
    assert image.shape[1::-1] == tuple(map(int, size.groups()))
  light, dark = images.values()
  # The background of each page; letters and lines stand out from it.
  assert light[0, 0].min() > 240 and dark[0, 0].max() < 50
  for image in (light, dark):
    apart = np.abs(image.astype(int) - image[0, 0]).max(-1)
    assert 0.005 < np.mean(apart > 100) < 0.2
