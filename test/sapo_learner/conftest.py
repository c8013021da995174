import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    """These networks are tiny: a second thread would only make the tests wait for busy cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
