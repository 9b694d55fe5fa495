"""`ens serve`: a server around an exported file or a run. Needs the extra `serve`."""

from importlib.util import find_spec

from ensemble.errors import UserError

NEEDED = ("fastapi", "uvicorn", "httptools", "python_multipart", "prometheus_client")


def require_extra() -> None:
    """Raise UserError that says how to install what serving needs, where something of it is missing."""
    lacking = [name for name in NEEDED if find_spec(name) is None]
    if lacking:
        raise UserError(f'ens serve needs {", ".join(lacking)}; install with: pip install "ens-vision[serve]"')
