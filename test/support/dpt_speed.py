"""DPT of this package against that of ``transformers``: equal weights, in turns, on the CPU.

``python -m test.support.dpt_speed [base|large] [fp32|bf16] [side] [rounds]`` prints the median of
each, and the median of the rounds' ratios, which other work on the machine moves little.
"""

from __future__ import annotations

import statistics
import sys
import time
from unittest import mock

import torch
from transformers import DPTConfig, DPTForDepthEstimation

from dense_perception.nets import vit
from dense_perception.nets.dpt import DPT, VARIANTS
from test.support.transformers_dpt import as_ours


def pair(size: str, dtype: torch.dtype, side: int) -> tuple[DPTForDepthEstimation, DPT]:
    """Their network and ours, same weights."""
    own = VARIANTS[size]
    torch.manual_seed(0)
    config = DPTConfig(
        image_size=side,
        hidden_size=own.dim,
        num_hidden_layers=own.taps[-1] + 1,
        num_attention_heads=own.heads,
        intermediate_size=4 * own.dim,
        backbone_out_indices=list(own.taps),
        neck_hidden_sizes=list(own.channels),
        layer_norm_eps=1e-6,
        readout_type="project",
    )
    theirs = DPTForDepthEstimation(config).eval()
    ours = DPT(type(own)(**{**own.__dict__, "height": side, "width": side})).eval()
    ours.load_state_dict(as_ours(theirs))
    return theirs.to(dtype), ours.to(dtype)


def main(size: str = "base", kind: str = "fp32", side: int = 384, rounds: int = 9) -> None:
    torch.set_num_threads(2)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[kind]
    theirs, ours = pair(size, dtype, side)
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1)).to(dtype)

    def written_out() -> torch.Tensor:
        with mock.patch.object(vit, "_operators_count", return_value=True):
            return ours(image)["depth"]

    calls = {
        "transformers": lambda: theirs(image).predicted_depth,
        "this package": lambda: ours(image)["depth"],
        "this package, attention written out": written_out,
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        first, second, _ = (call().float() for call in calls.values())
        spread = float(first.max() - first.min())
        print(f"largest difference {float((first - second).abs().max()) / spread:.1e} of the range")
        for _ in range(rounds):
            for name, call in calls.items():
                start = time.process_time()
                call()
                times[name].append(1e3 * (time.process_time() - start))
    for name, taken in times.items():
        print(f"{name}: {statistics.median(taken):.0f} ms of processor time (min {min(taken):.0f})")
    reference, *others = times
    for name in others:
        ratios = [a / b for a, b in zip(times[name], times[reference], strict=True)]
        print(f"DPT-{size} {kind} {side}: {name} / {reference} {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    words = sys.argv[1:]
    main(*words[:2], *map(int, words[2:]))
