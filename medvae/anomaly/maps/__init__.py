"""Anomaly maps, one file each; the file's name is the name of the map."""
