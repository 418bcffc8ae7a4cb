"""How well maps find lesions whose truth is known."""
