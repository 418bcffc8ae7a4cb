"""The package `medvae` for a script that lies beside a clone of that name: hands on to the real one.

Without this file such a script would import the clone as an empty namespace package, installed or not.
"""

from importlib.util import spec_from_file_location
from pathlib import Path

_clone = Path(__file__).resolve().parent
__path__ = [str(_clone / "medvae"), str(_clone)]  # the second holds `pipelines` and `configs`
__file__ = str(_clone / "medvae" / "__init__.py")
# importlib.resources asks the spec where the files of the package lie
__spec__ = spec_from_file_location(__name__, __file__, submodule_search_locations=__path__)
exec(compile(Path(__file__).read_text("utf-8"), __file__, "exec"))
