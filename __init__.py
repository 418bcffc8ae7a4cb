"""The package `medvae` for a script that lies beside a clone of that name: hands on to the real one.

Without this file such a script would import the clone as an empty namespace package, installed or not.
"""

from pathlib import Path

_clone = Path(__file__).resolve().parent
__path__ = [str(_clone / "medvae"), str(_clone)]  # the second holds `pipelines` and `configs`
__file__ = str(_clone / "medvae" / "__init__.py")
exec(compile(Path(__file__).read_text("utf-8"), __file__, "exec"))
