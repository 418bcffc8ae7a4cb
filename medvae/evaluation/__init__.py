"""How well maps find lesions, on which lesions, and the made cohort that both the demo and the tests use."""
