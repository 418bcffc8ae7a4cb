"""A network that marks what does not belong in a scan, trained on healthy scans with simulated anomalies."""
