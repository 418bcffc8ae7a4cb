"""Recipes over directories of scans; they join reading, computing and writing. Installed as `medvae.pipelines`."""
