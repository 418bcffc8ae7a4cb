"""DICOM objects of a detection, beside its NIfTI files: in the study of the scan, for archives and viewers."""
