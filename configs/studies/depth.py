"""DS-ResNet and the plain spiking ResNet, deeper and deeper.

`study depth:N,N,...` takes other depths than 8, 20 and 44.
"""

from mlf_jax.studies import Study, measures


def get_study(depths='8,20,44'):
  cells = {
    f'{block} {depth}': {'model.residual': block, 'model.depth': int(depth)}
    for block in ('ds', 'plain')
    for depth in depths.split(',')
  }
  return Study(
    question='Does a network go on learning as it gets deeper?',
    cells=cells,
    measures=(measures.test_accuracy, measures.network_activity),
    # Blocks in loops: hundreds of layers compile in a minute or two.
    fields={
      'model.widths': (8, 16, 32),
      'model.scan_blocks': True,
      # With the SGD of `digits`, 110 layers came to 0.44 in 15 epochs.
      'optimizer.name': 'adamw',
      'optimizer.learning_rate': 0.003,
      'optimizer.weight_decay': 0.01,
      'num_epochs': 30,
    },
  )
