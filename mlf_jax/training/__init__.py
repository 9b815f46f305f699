"""Training: configuration, state, step, loop, checkpoints and reports."""
