"""Synthetic scans: samplers, decoding, outline, texture, copy audit."""
