"""The command line: the only place that prints, draws a progress bar and reads argv."""
