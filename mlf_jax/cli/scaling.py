"""`python -m mlf_jax scaling`: time of a training step on many chips."""

import argparse

from mlf_jax.cli.argument_types import positive_float, positive_int
from mlf_jax.cli.configuration import add_config, config_of
from mlf_jax.errors import UserError, unknown


def add_command(commands) -> None:
  """Adds the command to the parser."""
  parser = commands.add_parser(
    'scaling',
    help='predict the time of a training step on many chips',
    description='Predicts the time of a training step on many chips, from the '
    'costs of the compiled step and the speeds of chips and links, and below '
    'which batch communication dominates. No such chip is needed; '
    'docs/scaling.md has the model and what it leaves out.',
    allow_abbrev=False,
  )
  add_config(parser)
  parser.add_argument(
    '--devices',
    type=_device_counts,
    default='1,8,64,512,4096',
    metavar='N,N,...',
    help='numbers of chips, powers of two (default: %(default)s)',
  )
  parser.add_argument(
    '--chip', default='h100', help='h100, h200, v5e or v5p (default: h100)'
  )
  parser.add_argument(
    '--attained',
    type=_share,
    default=0.6,
    help='share of its peak FLOP/s or memory bandwidth that the chip attains '
    '(default: 0.6)',
  )
  parser.set_defaults(command_function=_scaling)


def _device_counts(text):
  counts = [positive_int(part.strip()) for part in text.split(',')]
  for count in counts:
    if count & (count - 1):
      raise argparse.ArgumentTypeError(f'{count} is no power of two')
  return counts


def _share(text):
  if (value := positive_float(text)) > 1:
    raise argparse.ArgumentTypeError(f'{text!r} is no share above 0, at most 1')
  return value


def _scaling(arguments):
  config = config_of(arguments)
  import jax

  from mlf_jax.training import scaling_estimate
  from mlf_jax.training.chips import CHIPS
  from mlf_jax.training.config import validate

  if arguments.chip not in CHIPS:
    raise unknown('--chip', arguments.chip, CHIPS)
  validate(config, 1)
  chip, dtype = CHIPS[arguments.chip], config.model.dtype
  if dtype not in chip.flops:
    raise UserError(
      f'config.model.dtype {dtype!r} is not computed by {arguments.chip}; it '
      f'computes {" and ".join(chip.flops)}'
    )
  # Accelerators of this machine are left alone.
  jax.config.update('jax_platforms', 'cpu')
  print('compiling the training step ...', flush=True)
  costs = scaling_estimate.step_costs(config)
  plan = scaling_estimate.Plan(costs, chip, dtype, arguments.attained)
  _print_costs(config, arguments, costs)
  _print_table(plan, config.batch_size, arguments.devices)
  return 0


def _print_costs(config, arguments, costs):
  flops, size, all_reduces = costs.flops, costs.bytes, costs.all_reduces
  print(
    f'{config.data.name}, T = {config.model.time_steps}, {config.model.dtype}, '
    f'on {arguments.chip} at {arguments.attained:g} of its peak\n'
    f'per sample {flops.per_sample / 1e9:,.3g} GFLOP and '
    f'{size.per_sample / 1e6:,.3g} MB of memory traffic, besides '
    f'{flops.fixed / 1e9:,.3g} GFLOP and {size.fixed / 1e6:,.3g} MB per step\n'
    f'{all_reduces.count} all-reduces per step, '
    f'{all_reduces.bytes / 1e6:,.3g} MB in all\n'
  )


def _print_table(plan, batch_size, devices):
  print(
    f'{"all-":>15}  {f"{batch_size} in all":^21}  '
    f'{f"{batch_size} per device":^23}  all-reduces dominate\n'
    f'{"reduces":>15}  {"per":>6}{"step":>9}{"effi-":>6}  '
    f'{"in":>8}{"step":>9}{"effi-":>6}  {"below, per":>10}{"in":>10}\n'
    f'{"devices":>7}{"ms":>8}  {"device":>6}{"ms":>9}{"ciency":>7} '
    f'{"all":>8}{"ms":>9}{"ciency":>7} {"device":>10}{"all":>10}'
  )
  alone = plan.step_seconds(batch_size, 1)
  for n in devices:
    strong = f'{"-":>6}{"-":>9}{"-":>6}'
    if batch_size % n == 0:
      seconds = plan.step_seconds(batch_size // n, n)
      efficiency = alone / (n * seconds)
      strong = f'{batch_size // n:>6}{1e3 * seconds:>9,.2f}{efficiency:>6.2f}'
    seconds = plan.step_seconds(batch_size, n)
    balanced = plan.balanced_batch_size(n)
    limits = f'{"-":>10}{"-":>10}'
    if balanced > 1:
      limits = f'{balanced:>10}{balanced * n:>10}'
    print(
      f'{n:>7}{1e3 * plan.all_reduce_seconds(n):>8,.2f}  {strong}  '
      f'{batch_size * n:>8}{1e3 * seconds:>9,.2f}{alone / seconds:>6.2f}  '
      f'{limits}'
    )
