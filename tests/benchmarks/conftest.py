import pytest
from matplotlib.figure import Figure


@pytest.fixture(autouse=True, scope="session")
def full_size():
    """Draw figures with few pixels and no layout: most of the time goes into these.

    Returns matplotlib's own savefig.
    """
    save = Figure.savefig

    def save_small(figure, *args, **kwargs):
        figure.set_layout_engine(None)
        save(figure, *args, **{"dpi": 20, **kwargs})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save_small)
        yield save
