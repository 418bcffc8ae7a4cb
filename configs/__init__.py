"""Presets, one YAML a file. Installed as `medvae.configs`."""
