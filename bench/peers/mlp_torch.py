"""PyTorch's side of the small steps: a perceptron of three layers, fused AdamW, eager; one JSON object."""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

from gpt_torch import resident_bytes

WARM_UP, TURN = 200, 50  # steps


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    at_start = resident_bytes("VmRSS")
    width = args.width
    model = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    x, y = torch.randn(args.batch, width), torch.randn(args.batch, width)

    def steps(count):
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            loss = F.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            loss.item()

    steps(WARM_UP)
    times, end = [], time.perf_counter() + args.seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        steps(TURN)
        times.append(1e3 * (time.perf_counter() - start) / TURN)
    median = statistics.median(times)
    print(json.dumps({"torch": torch.__version__, "threads": args.threads, "step_ms_median": median,
                      "tokens_per_second": 1e3 * args.batch / median, "startup_rss_bytes": at_start, "peak_rss_bytes": resident_bytes("VmHWM")}))


if __name__ == "__main__":
    main()
