"""The peers' Python environment: made under build/ when absent, and the variables that a peer runs with."""

import ctypes.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / "build" / "peers-venv"
TORCH = "torch==2.15.0"
# The wheel wants CUDA's libraries to load, even to run on the CPU. A CUDA 13 toolkit on the machine has most of them; these it lacks.
BESIDE_TOOLKIT = ["nvidia-nccl-cu13==2.30.7", "nvidia-nvshmem-cu13==3.7.2", "nvidia-cusparselt-cu13==0.8.1", "nvidia-cufile"]
PURE_PYTHON = ["numpy==2.4.6", "filelock", "typing-extensions", "sympy", "networkx", "jinja2", "fsspec", "setuptools>=77.0.3"]


def cuda_libraries():
    """The lib64 folder of a CUDA 13 toolkit, or None."""
    nvcc = shutil.which("nvcc")
    folder = Path(nvcc).resolve().parents[1] / "lib64" if nvcc else None
    return folder if folder and list(folder.glob("libcudart.so.13*")) else None


def python(log=sys.stderr):
    """The interpreter that has PyTorch; installs it (2 GB of packages with a CUDA 13 toolkit here, 4 GB without) when it is missing."""
    interpreter, done = VENV / "bin" / "python", VENV / "complete"
    if done.exists() and done.read_text() == TORCH:
        return str(interpreter)
    print(f"setting up {VENV.relative_to(ROOT)} with {TORCH}: some minutes, once", file=log)
    subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
    pip = [interpreter, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    if cuda_libraries():
        subprocess.run([*pip, "--no-deps", TORCH, *BESIDE_TOOLKIT], check=True, stdout=log)
        subprocess.run([*pip, *PURE_PYTHON], check=True, stdout=log)
    else:
        subprocess.run([*pip, TORCH, *PURE_PYTHON], check=True, stdout=log)
    subprocess.run([interpreter, "-c", "import torch"], check=True, env=variables(), stdout=log)
    done.write_text(TORCH)
    return str(interpreter)


def tcmalloc():
    """The name to preload (Debian: libtcmalloc-minimal4), or None."""
    return ctypes.util.find_library("tcmalloc_minimal") or ctypes.util.find_library("tcmalloc")


def variables(preload=None):
    """The environment of a peer's process."""
    env = dict(os.environ, TORCHINDUCTOR_CACHE_DIR=str(ROOT / "build" / "peers-cache"))
    folder = cuda_libraries()
    if folder:
        env["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [str(folder), env.get("LD_LIBRARY_PATH")]))
    if preload:
        env["LD_PRELOAD"] = preload
    return env
