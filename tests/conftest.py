import pytest
import torch
from hypothesis import settings

# One thread per worker: the tests' tensors are tiny, and the workers share the cores.
torch.set_num_threads(1)

# No deadline: the first example of a test may have to import modules.
settings.register_profile("default", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("default")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def process_group(tmp_path):
    """A process group with world size 1."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()
