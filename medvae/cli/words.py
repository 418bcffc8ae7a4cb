"""Library texts speak Python; here they become what a person types on the command line."""

from __future__ import annotations

import re

_COMMANDS = "info|train|calibrate|detect|review|augment|demo"
_OPTIONS = (
    "include|exclude|split|config|workers|device|minutes|count|sampler|map|out|model|truth|verdicts|real|holdout|draws"
    "|merge_with"
)
_RULES: tuple[tuple[str, str], ...] = (
    (r"\bset read\.volume=", "use --volume "),
    (r"\bset read\.assume_orientation=", "use --assume-orientation "),
    (r"\bset read\.on_doubtful=", "use --on-doubtful "),
    (r"\bset detect\.dicom=true\b", "use --dicom"),
    (r"\bset ([a-z_]+(?:\.[a-z_]+)+)=", r"use --set \1="),
    (r"\b(overwrite|resume|check|hash_ids)=True\b", r"--\1"),
    (rf"(?<!\.)\b({_OPTIONS})='([^']*)'", r"--\1 \2"),
    (rf"(?<!\.)\b({_OPTIONS})=(?=\w)", r"--\1 "),
    (rf"(?<!\.)\b({_OPTIONS})=", r"--\1"),
    (rf"\bmedvae\.({_COMMANDS})\b(\([^)]*\))?", r"`medvae \1`"),
)


def translated(text: str) -> str:
    """A text of the library with Python's arguments as options, e.g. "overwrite=True" as "--overwrite"."""
    for pattern, option in _RULES:
        text = re.sub(pattern, option, text)
    return text.replace("--hash_ids", "--hash-ids").replace("--merge_with", "--merge-with")
