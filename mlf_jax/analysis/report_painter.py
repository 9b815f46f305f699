"""Draws the pictures of a report, each for a light and for a dark page."""

import io
import pathlib
from collections.abc import Callable

from mlf_jax.analysis import page
from mlf_jax.data import io as files

_DOTS_PER_INCH = 200
_WIDTH = 4.8  # Inches. Letters of a picture so wide are legible on a phone.

_COMMON = {
  'font.size': 9,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.grid': False,
  'legend.frameon': False,
  'legend.fontsize': 'small',
  'xtick.labelsize': 'small',
  'ytick.labelsize': 'small',
}


def _theme(card, text, line, cmap, colors):
  from matplotlib import cycler

  names = ('text.color', 'axes.labelcolor', 'xtick.color', 'ytick.color')
  return {
    **_COMMON,
    **dict.fromkeys(names, text),
    **dict.fromkeys(('figure.facecolor', 'axes.facecolor'), card),
    'savefig.facecolor': card,
    'axes.edgecolor': line,
    'image.cmap': cmap,
    'axes.prop_cycle': cycler(color=colors),
  }


# The colours of `page`, and series that the colour-blind can tell apart.
_THEMES = {
  'light': (
    *('#ffffff', '#1f2328', '#8b949e', 'Purples'),
    ('#2166ac', '#d6604d', '#4d9221', '#762a83', '#b8860b', '#35978f'),
  ),
  'dark': (
    *('#161b22', '#e6edf3', '#6e7681', 'magma'),
    ('#6baed6', '#fc8d62', '#a6d854', '#c994c7', '#ffd92f', '#66c2a5'),
  ),
}


class Painter:
  """Draws pictures for a light and for a dark page, and keeps them as PNG."""

  def __init__(self, folder: pathlib.Path):
    """Takes the folder for the pictures."""
    self._folder = folder

  def picture(
    self,
    name: str,
    draw: Callable,
    alt: str,
    caption: str = '',
    height: float = 3.2,
  ) -> str:
    """Returns a picture as HTML.

    Args:
      name: name of its file.
      draw: draws into a Matplotlib figure.
      alt: what the picture shows, in words.
      caption: line below it.
      height: in inches.
    """
    images = {}
    for theme, colors in _THEMES.items():
      images[theme] = _png(draw, (_WIDTH, height), _theme(*colors))
      end = '' if theme == 'light' else f'-{theme}'
      files.write_atomically(self._folder / f'{name}{end}.png', images[theme])
    size = tuple(round(side * _DOTS_PER_INCH) for side in (_WIDTH, height))
    return page.picture(images['light'], images['dark'], size, alt, caption)


def _png(draw, size, settings) -> bytes:
  """A figure as PNG with 256 colours, a third of the bytes."""
  import matplotlib
  from matplotlib.figure import Figure
  from PIL import Image

  with matplotlib.rc_context(settings):
    figure = Figure(figsize=size, dpi=_DOTS_PER_INCH, layout='constrained')
    draw(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png')
  image = Image.open(buffer).convert('RGB')
  image = image.quantize(256, dither=Image.Dither.NONE)
  image.save(small := io.BytesIO(), 'png', optimize=True)
  return small.getvalue()
