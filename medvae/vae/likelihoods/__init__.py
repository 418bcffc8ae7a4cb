"""Families of p(x|z), one file each; the file's name is the name of the family."""
