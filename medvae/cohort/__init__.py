"""Folders, files and lists -> scans."""
