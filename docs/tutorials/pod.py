# %% [markdown]
# # From a laptop to a pod
#
# The same command trains on one core, on all GPUs of a box and on many
# machines. A batch is divided among all devices, and N of them give the numbers
# of one. Here, eight simulated devices stand for real ones.
#
# [This page as a notebook](pod.ipynb)

# %%
import os
import subprocess
import sys
import tempfile


def run(*command, **environment):
  """Runs a command of the library and prints what it printed."""
  done = subprocess.run(
    [sys.executable, '-m', 'mlf_jax', *command],
    env={**os.environ, **environment},
    capture_output=True,
    text=True,
  )
  print(done.stdout or done.stderr)


# %% [markdown]
# ## The same numbers on eight devices
#
# `config.batch_size` is the whole batch, whatever the number of devices.
# Statistics of the normalisation and gradients are averaged over all of them,
# and what augmentation draws depends on the place of a sample in the whole
# batch.

# %%
for devices in ('1', '8'):
  run(
    'train',
    '--config.num_steps=4',
    '--config.log_every=2',
    '--config.model.widths=(4, 8, 16)',
    f'--workdir={tempfile.mkdtemp()}',
    JAX_NUM_CPU_DEVICES=devices,
  )

# %% [markdown]
# Several GPUs in one box need nothing more. On a cluster, `--distributed` joins
# the processes, which find each other on Slurm, Kubernetes and TPU pods. A run
# that was stopped continues with the same command on another number of devices.
#
# ## How many chips are worth it?
#
# `scaling` compiles the training step on this machine, counts what it computes,
# moves and exchanges, and predicts its time on chips that are not here.

# %%
run('scaling', '--config=digits', '--devices=1,8,64', '--chip=h100')

# %% [markdown]
# [From one machine to many](../scaling.html) has the commands for each kind of
# cluster, and what the prediction leaves out.
