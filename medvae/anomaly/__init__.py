"""Anomaly maps: what healthy looks like, and how far a scan is from it."""
