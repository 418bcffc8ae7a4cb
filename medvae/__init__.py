"""medvae: 3D variational autoencoders for medical scans. Research use only."""

__version__ = "0.1.0"
