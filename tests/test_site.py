"""The documentation site: built from its own files alone, and whole."""

import html.parser
import os
import pathlib
import re
import subprocess
import sys
import urllib.parse

import pytest

import mlf_jax

ROOT = pathlib.Path(mlf_jax.__file__).parents[1]


class Page(html.parser.HTMLParser):
  """Where a page leads, what it loads, and its anchors."""

  def __init__(self, path):
    super().__init__()
    self.links, self.loaded, self.anchors = [], [], set()
    self.text = path.read_text()
    self.feed(self.text)

  def handle_starttag(self, tag, attributes):
    values = dict(attributes)
    self.anchors |= {values.get('id'), values.get('name')}
    if tag == 'a' and values.get('href'):
      self.links.append(values['href'])
    elif tag == 'link' and values.get('rel') != 'canonical':
      self.loaded.append(values['href'])
    elif tag in ('script', 'img', 'iframe', 'source') and values.get('src'):
      self.loaded.append(values['src'])


@pytest.mark.slow
def test_the_site_is_built_and_whole(tmp_path):
  """One test, because building it takes minutes."""
  pytest.importorskip('mkdocs')
  command = [sys.executable, '-m', 'mkdocs', 'build', '--strict']
  built = subprocess.run(
    [*command, '--site-dir', tmp_path],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert built.returncode == 0, built.stderr[-4000:]
  site = {path: Page(path) for path in tmp_path.rglob('*.html')}
  every_link_leads_somewhere(site)
  nothing_is_loaded_from_elsewhere(site)
  if os.environ.get('EXECUTE_TUTORIALS') != 'false':
    every_tutorial_was_executed(site)


def every_link_leads_somewhere(site):
  """Links within the site, to pages, files, and places on pages."""
  dead = []
  for path, page in site.items():
    for link in page.links:
      parts = urllib.parse.urlsplit(link)
      if parts.scheme or parts.netloc or path.name == '404.html':
        continue
      target = path
      if parts.path:
        target = (path.parent / urllib.parse.unquote(parts.path)).resolve()
      if target.is_dir():
        target /= 'index.html'
      anchor = urllib.parse.unquote(parts.fragment)
      if not target.exists() or (
        anchor and target in site and anchor not in site[target].anchors
      ):
        dead.append(f'{path.name}: {link}')
  assert not dead


def nothing_is_loaded_from_elsewhere(site):
  for path, page in site.items():
    for address in page.loaded:
      assert not re.match('(https?:)?//', address), (path.name, address)
    styles = re.findall(r'url\(["\']?(https?://[^)]*)', page.text)
    assert not styles, (path.name, styles)
    for script in re.findall('<script.*?</script>', page.text, re.DOTALL):
      assert not re.findall(r'https?://[^"\'\s]*\.m?js', script), path.name


def every_tutorial_was_executed(site):
  """Each page of a tutorial holds outputs, and its notebook is beside it."""
  tutorials = [*(ROOT / 'docs' / 'tutorials').glob('*.py')]
  assert tutorials
  pages = {path.stem: path for path in site if path.parent.name == 'tutorials'}
  for tutorial in tutorials:
    path = pages[tutorial.stem]
    assert 'class="jp-OutputArea-child' in site[path].text, tutorial.name
    assert path.with_suffix('.ipynb').exists()
