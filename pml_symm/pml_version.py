"""Check that this package works with the installed pytorch-metric-learning."""

from importlib import metadata


def check_pml_version() -> None:
    """Raise ImportError unless the installed PML is a version 2.

    A checkout on the path that is not installed has no known version: it is not checked.
    """
    try:
        version = metadata.version("pytorch-metric-learning")
    except metadata.PackageNotFoundError:
        return
    if version.split(".")[0] != "2":
        raise ImportError(
            "pml-symm needs pytorch-metric-learning 2 (>=2.0,<3), but "
            f"{version} is installed, whose losses and miners are built differently; "
            'try: pip install "pytorch-metric-learning>=2.0,<3"'
        )
