"""Last layers for networks with random weights, so that their scores can be compared."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

_DIRECTIONS = 3


@torch.no_grad()
def respond_to_photos(last: nn.Linear, run: Callable[[], object]) -> None:
    """Let the last layer read the directions in which the features of some photos differ most.

    Each logit gets a mean of 0 and a deviation of 2 over the photos. Arbitrary directions would
    have to be scaled up until the rounding of a pixel decides, which no trained network does.

    Args:
        last: The layer that makes the logits.
        run: Runs the network on the photos.
    """
    inputs: list[torch.Tensor] = []
    hook = last.register_forward_pre_hook(lambda module, given: inputs.append(given[0].double()))
    run()
    hook.remove()
    centre = inputs[0].mean(dim=0)
    _, _, directions = torch.linalg.svd(inputs[0] - centre, full_matrices=False)
    basis = directions[:_DIRECTIONS]
    deviations = ((inputs[0] - centre) @ basis.T).std(dim=0)
    generator = torch.Generator().manual_seed(0)
    mixture = torch.randn(last.out_features, len(basis), generator=generator, dtype=torch.float64)
    mixture *= 2 / mixture.norm(dim=1, keepdim=True)
    weight = mixture @ (basis / deviations[:, None])
    last.weight.copy_(weight)
    last.bias.copy_(-weight @ centre)
