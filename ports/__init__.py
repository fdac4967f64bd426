"""Foreign checkpoints in, Orbax checkpoints out; needs neither PyTorch nor a network."""
