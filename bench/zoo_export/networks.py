"""All networks that are exported."""

from __future__ import annotations

from collections.abc import Mapping

import timm_networks
import torchvision_networks
import transformers_networks
from recipes import Recipe

NETWORKS: Mapping[str, Recipe] = dict(
    sorted(
        {
            **timm_networks.NETWORKS,
            **torchvision_networks.NETWORKS,
            **transformers_networks.NETWORKS,
        }.items()
    )
)
"""Recipes by name, in ascending order."""
LICENCES: Mapping[str, str] = {
    "segmentation-models-pytorch": "MIT",
    "timm": "Apache-2.0",
    "torchvision": "BSD-3-Clause",
    "transformers": "Apache-2.0",
}
"""Licence of the code of each package."""
