import torch


def pytest_configure() -> None:
    # Many small products: more threads only wait for each other.
    torch.set_num_threads(min(torch.get_num_threads(), 2))
