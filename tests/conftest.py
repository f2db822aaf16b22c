import pytest
import torch
from hypothesis import settings

# One thread a worker: the tests' tensors are tiny, and the workers share the cores.
torch.set_num_threads(1)

# The first example of a test may have to import; time is measured in benchmarks.
settings.register_profile("default", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("default")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def process_group(tmp_path):
    """A group of this process alone."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()
