"""The parts of the DICOM reader: headers, frames, the gate, pixels."""
