"""Hooks of the documentation site: notebooks to download, names documented."""

import importlib
import os
import pathlib
import re
import tempfile

import jupytext

COMPILED = tempfile.TemporaryDirectory()


def on_startup(command, dirty):
  """Lets the notebooks share what they compile."""
  del command, dirty
  os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', COMPILED.name)


def on_pre_build(config):
  """Refuses to build if a public name of the reference has no docstring."""
  silent = [
    f'{module}.{name}'
    for page in pathlib.Path(config['docs_dir'], 'reference').glob('*.md')
    for module in re.findall('^::: (.*)', page.read_text(), re.MULTILINE)
    for name in public_names(module)
    if not documented(importlib.import_module(module), name)
  ]
  if silent:
    raise SystemExit(f'public names without a docstring: {", ".join(silent)}')


def public_names(module: str) -> list[str]:
  """Names that the reference shows of a module."""
  names = vars(importlib.import_module(module))
  return names.get('__all__') or [
    name
    for name, value in names.items()
    if getattr(value, '__module__', None) == module and name[0] != '_'
  ]


def documented(module, name: str) -> bool:
  """False for a function or a class without a docstring."""
  value = getattr(module, name)
  return not callable(value) or bool(getattr(value, '__doc__', None))


def on_post_page(output, page, config):
  """Leaves out scripts that fetch others, for formulas and diagrams.

  The notebooks have none of these.
  """
  del page, config
  fetches = re.compile(r'https?://[^"\'\s]*\.m?js')
  return re.sub(
    '<script[^>]*>.*?</script>',
    lambda found: '' if fetches.search(found[0]) else found[0],
    output,
    flags=re.DOTALL,
  )


def on_post_build(config):
  """Writes each tutorial beside its page, as a notebook to download."""
  source = pathlib.Path(config['docs_dir'], 'tutorials')
  for path in sorted(source.glob('*.py')):
    notebook = jupytext.read(path)
    jupytext.write(
      notebook,
      pathlib.Path(config['site_dir'], 'tutorials', f'{path.stem}.ipynb'),
    )
