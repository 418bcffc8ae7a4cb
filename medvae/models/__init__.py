"""Networks, one file each: `Settings`, and `build(settings, likelihood, grid)`."""
