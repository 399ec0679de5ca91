"""The names of the training losses. Nothing heavy is imported here: the command line reads them too."""

from typing import Literal, get_args

SampledLoss = Literal["sampled_softmax", "gbce"]  # over drawn negatives
LossName = Literal["full", "chunked", SampledLoss]
SAMPLED_LOSSES = get_args(SampledLoss)  # their gradient has few rows of the item table
