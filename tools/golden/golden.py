"""What the golden scripts share: where the files go, how they are written, how far two results are apart."""

import json
import platform
from pathlib import Path

import torch
from safetensors.torch import save

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "golden"


def origin(script, seed=None):
    """The facts every file carries: what made it, with what. Strings only, as safetensors wants."""
    facts = {"script": f"tools/golden/{Path(script).name}", "torch": torch.__version__, "machine": platform.machine()}
    if seed is not None:
        facts["seed"] = str(seed)
    return facts


def write(name, tensors, script, seed, **metadata):
    """tests/golden/<name>.safetensors; metadata values that are not strings are stored as JSON."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    facts = origin(script, seed)
    for key, value in metadata.items():
        facts[key] = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), sort_keys=True)
    path = FOLDER / f"{name}.safetensors"
    path.write_bytes(in_order(save({key: t.detach().contiguous().clone() for key, t in tensors.items()}, metadata=facts)))
    print(f"{path.name}: {len(tensors)} tensors, {path.stat().st_size / 1024:.0f} KiB")


def in_order(file):
    """The same file with sorted metadata: safetensors orders it anew in each run, and a file should change only with its numbers."""
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + file[end:]


def distance(a, b):
    """||a - b|| / ||b||, in double; of two zero tensors 0."""
    a, b = a.double(), b.double()
    norm = b.norm().item()
    return (a - b).norm().item() / norm if norm else (a - b).norm().item()


def generator(seed):
    return torch.Generator().manual_seed(seed)
