"""Lesions of training scans: their crops, the network that learns them, and putting new ones into a scan."""
