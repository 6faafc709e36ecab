#!/usr/bin/env bash
# setup.sh [DIR] - a virtual environment with transformers and llama.cpp, for check_real_model.py (about 4 GB; llama.cpp is built, ten minutes on two
# cores). Does nothing where it is there already.
set -euo pipefail
venv=${1:-build/oracles}
requirements=$(dirname "$0")/requirements.txt
[ -e "$venv/complete" ] && cmp -s "$requirements" "$venv/complete" && exit
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
cp "$requirements" "$venv/complete"
