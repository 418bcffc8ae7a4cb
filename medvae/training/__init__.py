"""Fitting a VAE: batches, losses, and `fit`, a generator of epochs."""
