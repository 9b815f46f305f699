"""Puts what benchmarks print into the README: `python benchmarks/readme.py`.

There a comment `<!-- output of: COMMAND -->` stands before a block with the
output of that command. Arguments are benchmarks by name, such as `step`; their
commands are run and their blocks replaced, one after the other.
"""

import argparse
import os
import pathlib
import re
import shlex
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
_BLOCK = re.compile(
  r'(?P<before><!-- output of: (?P<command>[^\n]+?) -->\n```\n)'
  r'(?P<output>.*?)(?=```\n)',
  re.DOTALL,
)


def commands(text: str) -> list[str]:
  """The commands whose output is in a README."""
  return [block['command'] for block in _BLOCK.finditer(text)]


def replaced(text: str, command: str, output: str) -> str:
  """A README with the output of one command in the place of the former."""
  return _BLOCK.sub(
    lambda block: (
      block[0] if block['command'] != command else block['before'] + output
    ),
    text,
  )


def main():
  """Runs what was named."""
  readme = REPOSITORY / 'README.md'
  by_name = {
    pathlib.Path(shlex.split(command)[1]).stem: command
    for command in commands(readme.read_text())
  }
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('benchmarks', nargs='+', choices=by_name)
  for name in parser.parse_args().benchmarks:
    _, *arguments = shlex.split(by_name[name])
    print(f'running {by_name[name]} ...', flush=True)
    done = subprocess.run(
      [sys.executable, *arguments],
      cwd=REPOSITORY,
      stdout=subprocess.PIPE,
      text=True,
    )
    output = done.stdout
    print(output, end='', flush=True)
    if done.returncode or not output:
      raise SystemExit(f'{by_name[name]} has failed: README.md is as it was')
    # Read anew, since a benchmark may take long enough for it to be edited.
    new = replaced(readme.read_text(), by_name[name], output)
    half = readme.with_suffix('.new')
    half.write_text(new)
    os.replace(half, readme)
  return 0


if __name__ == '__main__':
  raise SystemExit(main())
