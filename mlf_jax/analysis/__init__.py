"""Pictures of spiking units and recordings; needs `mlf_jax[plot]`."""
