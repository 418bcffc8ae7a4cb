"""Layouts of a synthetic set, one file each; the file's name is the name of the layout."""
