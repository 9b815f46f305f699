"""Which evaluation of a run is the best."""

import contextlib
import json
import math
import pathlib
from collections.abc import Mapping, Sequence


def accuracy(metrics: Mapping[str, float | None]) -> float | None:
  """The accuracy by which an evaluation is ranked; None if there is none.

  It is that of the validation samples, or of the test samples if no validation
  samples are held out.
  """
  test_accuracy = metrics.get('test/accuracy')
  value = metrics.get('validation/accuracy', test_accuracy)
  return None if value is None or math.isnan(value) else value


def best_of(evaluations: Sequence[Mapping]) -> Mapping:
  """The evaluation with the highest accuracy; ties go to the later step.

  Args:
    evaluations: at least one, each with its `step`.
  """
  return max(
    evaluations,
    key=lambda line: (-1 if (a := accuracy(line)) is None else a, line['step']),
  )


def evaluations(workdir: pathlib.Path) -> list[dict]:
  """The evaluations in `metrics.jsonl` so far."""
  path, lines = workdir / 'metrics.jsonl', []
  for text in path.read_bytes().splitlines() if path.exists() else ():
    with contextlib.suppress(ValueError):  # A killed run may leave half a line.
      line = json.loads(text)
      if accuracy(line) is not None:
        lines.append(line)
  return lines
