"""Pictures for a person to look at."""
