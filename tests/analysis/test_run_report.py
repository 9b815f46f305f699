"""The page is whole, needs no other file, and says what runs have."""

import collections
import html.parser
import re
import shutil
import subprocess

import matplotlib
import pytest
from matplotlib.figure import Figure

from mlf_jax import analysis
from mlf_jax.analysis import report_painter, run_report
from mlf_jax.analysis.inspection import inspect_run
from mlf_jax.errors import UserError
from tests import quick
from tests.analysis import runs

SHAPE = (8, 8, 1)
RENDER = report_painter._png
PICTURES = (
  *('curve_loss', 'curve_accuracy', 'confusion', 'wrong', 'accuracy_by_time'),
  *(
    'latency',
    'early_exit',
    'rates',
    'dormant',
    'gradients',
    'membranes',
    'raster',
  ),
  *('traces_busiest', 'traces_typical'),
)


@pytest.fixture(scope='module', autouse=True)
def quick_compilation():
  yield from quick.of_the_library()


class Page(html.parser.HTMLParser):
  """Elements of a page by tag, and its text."""

  def __init__(self, text):
    super().__init__()
    self.elements, self.open, self.text = [], [], ''
    self.feed(text)

  def handle_starttag(self, tag, attributes):
    self.elements.append((tag, dict(attributes)))
    if tag not in ('meta', 'link', 'img'):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag, f'</{tag}> closes another element'

  def handle_data(self, data):
    if self.open[-1:] != ['style']:
      self.text += ' '.join(data.split()) + ' '

  def every(self, name):
    return [attributes for tag, attributes in self.elements if tag == name]


def checked(path):
  """The page at a path, which must be well-formed and load nothing."""
  text = path.read_text()
  page = Page(text)
  assert not page.open and page.elements[0][0] == 'html'
  assert 'script' not in {tag for tag, _ in page.elements}
  assert 'url(' not in text and '@import' not in text
  ids = [a['id'] for _, a in page.elements if 'id' in a]
  assert len({*ids}) == len(ids)
  for _, attributes in page.elements:
    for name in ('src', 'srcset', 'href'):
      target = attributes.get(name, 'data:')
      assert target.startswith('data:') or target[1:] in ids, target
  for image in page.every('img'):
    assert len(image['alt']) > 10
    assert 0 < int(image['width']) <= 1000 and int(image['height']) > 0
  images = collections.Counter(a['class'] for a in page.every('img'))
  assert images['light'] == images['dark'] > 0
  pictures = [*(path.parent / 'report').iterdir()]
  assert len(pictures) == len(page.every('img'))
  assert all(p.read_bytes().startswith(b'\x89PNG') for p in pictures)
  assert len(text) < 3_000_000
  return page


def compose(draw, size, settings):
  """Stands for `_png`, and renders nothing, which would take most time."""
  if settings['image.cmap'] == 'Purples':  # The dark one is the same.
    with matplotlib.rc_context(settings):
      draw(figure := Figure(size))
    assert figure.axes and all(ax.has_data() for ax in figure.axes)
  return b'\x89PNG' + str(settings['text.color']).encode()


@pytest.fixture(scope='module')
def undrawn():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(report_painter, '_png', compose)
    yield


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  directory = tmp_path_factory.mktemp('reported')
  return directory, runs.untrained(directory, SHAPE)


@pytest.fixture(scope='module')
def path(run, undrawn):
  return analysis.report(*run)


def test_report_has_every_section_of_an_unfinished_run(path):
  page = checked(path)
  sections = [section['id'] for section in page.every('section')]
  assert ' '.join(sections) == (
    'summary training mistakes time depth sample energy run'
  )
  names = {p.stem for p in (path.parent / 'report').iterdir()}
  assert names == {f'{n}{end}' for n in PICTURES for end in ('', '-dark')}
  for text in (
    'The run is not finished.',
    'training not finished',
    'model.time_steps 2',
    'unit.thresholds (0.6, 1.6)',
    'layer3_0/units2',
    'multiply-accumulates',
    '4.6 pJ',
  ):
    assert text in page.text, text


@pytest.mark.usefixtures('undrawn')
def test_runs_are_compared_seeds_together(run, tmp_path, capsys):
  directory, dataset = run
  second, third = tmp_path / 'seed1', tmp_path / 'smooth'
  runs.untrained(second, SHAPE, seed=1)
  runs.untrained(third, SHAPE, label_smoothing=0.1)
  path = analysis.report(third, dataset, compare=[directory, second])
  assert capsys.readouterr().out.count('measuring') == 3
  assert path == third / 'report.html'
  page = checked(path)
  assert '3 runs side by side' in page.text
  # The same weights: two groups, of which one has two seeds.
  rows = re.findall(r'label_smoothing = (0\.\d) (0\.\d{4}[^%]*?) 2 ', page.text)
  assert [row[0] for row in rows] == ['0.0', '0.1']
  assert ' to ' in rows[0][1] and ' to ' not in rows[1][1]
  assert 'does not differ clearly' in page.text
  assert 'label_smoothing 0.0 0.1' in page.text and 'seed 0, 1 0' in page.text
  names = {p.stem for p in (third / 'report').iterdir()}
  assert {'rates_1', 'rates_2', 'dormant', 'gradients'} <= names


@pytest.mark.usefixtures('undrawn')
def test_a_run_without_spiking_units_says_so_in_a_line(tmp_path):
  dataset = runs.untrained(tmp_path, (2, 6, 6, 2), model='small')
  page = checked(analysis.report(tmp_path, dataset))
  assert page.text.count('has no layers.SpikingUnits') >= 2
  assert 'does not tell its logits of every timestep' in page.text.replace(
    'The network', 'the network'
  )
  names = {p.stem for p in (tmp_path / 'report').iterdir()}
  assert {'confusion', 'wrong', 'gradients'} <= names
  assert not {'rates', 'raster'} & names


def test_what_cannot_be_compared_is_refused(run):
  with pytest.raises(UserError, match='compare must be a list'):
    analysis.report(*run, compare='runs/other')


def test_labels_are_what_runs_differ_in(run, tmp_path):
  one = inspect_run(*run)

  def other(name, **fields):
    config = one.config.copy_and_resolve_references()
    config.update_from_flattened_dict(fields)
    return one._replace(workdir=tmp_path / name, config=config)

  def labels(*runs_):
    return [group.label for group in run_report._grouped(runs_)]

  levels = [
    other(f'run{k}', **{'unit.thresholds': tuple(0.6 + i for i in range(k))})
    for k in (1, 2, 3)
  ]
  assert labels(*levels[::-1]) == ['K = 1', 'K = 2', 'K = 3']
  assert labels(other('a', seed=1), other('b', seed=2)) == ['a']
  faster = other('fast', **{'optimizer.learning_rate': 0.2})
  assert labels(levels[1], faster) == [
    'learning_rate = 0.1',
    'learning_rate = 0.2',
  ]
  # Too much to write down.
  much = other('much', **{'optimizer.learning_rate': 0.2, 'batch_size': 8})
  assert labels(levels[1], much) == ['run2', 'much']


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
  directory = tmp_path_factory.mktemp('drawn')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(report_painter, '_png', RENDER)
    path = analysis.report(directory, runs.untrained(directory, SHAPE))
  checked(path)
  return path


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which('chromium'), reason='needs Chromium')
@pytest.mark.parametrize('width', [1280, 500])
def test_a_browser_opens_it_without_a_word(drawn, tmp_path, width):
  def spoken(page):
    command = ['chromium', '--headless=new', '--no-sandbox', '--disable-gpu']
    command += ['--enable-logging=stderr', f'--window-size={width},900']
    command += [f'--user-data-dir={tmp_path}', '--dump-dom', f'file://{page}']
    done = subprocess.run(
      command, capture_output=True, text=True, check=True, timeout=120
    )
    assert '</html>' in done.stdout
    return [line for line in done.stderr.splitlines() if 'CONSOLE' in line]

  assert spoken(drawn) == []
  broken = tmp_path / 'broken.html'
  broken.write_text('<!doctype html><title>x</title><script>a b</script>')
  assert spoken(broken)
