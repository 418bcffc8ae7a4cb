"""Networks, one file each; the file's name is the name of the network."""
