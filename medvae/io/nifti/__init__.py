"""The parts of the NIfTI reader and writer."""
