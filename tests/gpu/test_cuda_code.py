"""What is generated for CUDA: compiled by NVIDIA's compiler, where there is one, for GPUs that need not be here."""

from __future__ import annotations

import re

import pytest
import tvm
from tvm import relax
from cuda_code import ARCHITECTURES, kernels, machine, needs_nvcc, opened, ptx

from layoutsel.model.random_weights import random_weights
from tests.cpu.support import model, weights
from tvm_passes.backends import BACKENDS
from tvm_passes.decision import Decision
from tvm_passes.partition import PartitionSubgraphs
from tvm_passes.rewrite_layouts import subgraph_id
from tvm_passes.targets import targeting
