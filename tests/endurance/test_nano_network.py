"""The nano detector is as large as the published one."""

import torch

from endurance.nano_network import CLASSES, NanoNetwork


def test_it_has_the_published_number_of_parameters_and_places() -> None:
    with torch.device("meta"):
        network = NanoNetwork(80).eval()
        assert sum(parameter.numel() for parameter in network.parameters()) == 2_624_080 - 16  # of a fixed layer
    with torch.no_grad():
        assert NanoNetwork().eval()(torch.rand(1, 3, 64, 96)).shape == (1, 64 + CLASSES, 12 * 8 + 6 * 4 + 3 * 2)
