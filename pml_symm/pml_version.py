"""Whether the installed pytorch-metric-learning is one that this package works with."""

from importlib import metadata


def check_pml_version() -> None:
    """Raise ImportError unless the installed PML is a version 2.

    PML that is not installed, but a checkout on the path, is taken on trust.
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
