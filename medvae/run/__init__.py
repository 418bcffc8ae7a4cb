"""Many jobs: read ahead, compute, write behind; every job ends in one outcome."""
