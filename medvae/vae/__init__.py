"""The variational autoencoder: posterior, likelihood, ELBO, and the networks."""
