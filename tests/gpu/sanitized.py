"""Owns a short program for compute-sanitizer: every kernel once or twice, on small and awkward tensors."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import models
import torch

import pyadamw


def main():
    device = torch.device("cuda")
    cases = [
        {"dtype": torch.float32},
        {"dtype": torch.bfloat16, "stochastic_rounding": True},
        {"dtype": torch.float16},
        {"dtype": torch.bfloat16, "master_weight_bits": 24},
        {"dtype": torch.bfloat16, "master_weight_bits": 32},
        {"dtype": torch.float32, "amsgrad": True},
        {"dtype": torch.float32, "percentile_clipping": 50},
        {"dtype": torch.bfloat16, "block_wise": False},
        {"dtype": torch.float32, "args": {"max_unorm": 0.01}},
        {"dtype": torch.float32, "capturable": True},
    ]
    for case in cases:
        options = dict(case)
        dtype = options.pop("dtype")
        for cls in (pyadamw.AdamW8bit, pyadamw.AdamW16bit, pyadamw.AdamW32bit):
            params = models.parameters(device, dtype)
            optimizer = cls(params, min_8bit_size=100, **options)
            for step in range(2):
                models.gradients(params, step, spoiled=step == 1)
                optimizer.step()
    for backing in ("managed", "pinned"):
        manager = pyadamw.PageManager(backing, chunk_bytes=1 << 16, min_numel=100)
        params = models.parameters(device)
        optimizer = pyadamw.PagedAdamW8bit(params, min_8bit_size=100, page_manager=manager)
        for step in range(2):
            models.gradients(params, step)
            optimizer.step()
    pyadamw.functional.dequantize(
        *pyadamw.functional.quantize(torch.randn(30, 300, device=device), block_wise=False), block_wise=False
    )
    for bits in (24, 32):
        weights = torch.randn(30, 301, device=device)
        pyadamw.functional.join_weights(*pyadamw.functional.split_weights(weights, bits, rounding="stochastic"))
    torch.cuda.synchronize()
    print("ran")


if __name__ == "__main__":
    main()
