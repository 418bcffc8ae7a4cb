"""Reading and writing scans."""
