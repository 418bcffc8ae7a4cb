"""Presets, one YAML file each. Installed as `medvae.configs`."""
