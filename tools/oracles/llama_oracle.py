"""What llama.cpp makes of a GGUF file: one JSON job on stdin, one JSON answer on stdout. Needs llama-cpp-python.

Job: model; optional `lines` (texts to tokenise), `prompts` (lists of ids, continued greedily for 64), `ids` and `window` (loss over windows),
`speed` (a list of ids: tokens a second of 64 tokens after it), `threads`.
"""

import json
import sys
import time

import numpy as np
from llama_cpp import Llama

NEW, F32 = 64, 0


def loss(llama, ids, window):
    total, counted = 0.0, 0
    for begin in range(0, len(ids) - window, window):
        llama.reset()
        llama.eval(ids[begin : begin + window])
        logits = np.asarray(llama.scores[:window], dtype=np.float64)
        top = logits.max(axis=1)
        lse = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        total += (lse - logits[np.arange(window), ids[begin + 1 : begin + window + 1]]).sum()
        counted += window
    return total / counted


def greedy(llama, prompt):
    llama.reset()
    llama.eval(prompt)
    out = []
    for _ in range(NEW):
        out.append(int(np.argmax(llama.scores[llama.n_tokens - 1])))
        llama.eval(out[-1:])
    return out


def main():
    job = json.load(sys.stdin)
    exact = {} if "speed" in job else {"type_k": F32, "type_v": F32}  # llama.cpp's cache is in f16 otherwise
    llama = Llama(job["model"], n_ctx=max(512, job.get("window", 0)), n_batch=512, n_threads=job["threads"], n_threads_batch=job["threads"],
                  logits_all="speed" not in job, verbose=False, **exact)
    answer = {}
    if "lines" in job:
        answer["ids"] = [llama.tokenize(text.encode(), add_bos=False, special=True) for text in job["lines"]]
    if "prompts" in job:
        answer["continued"] = [greedy(llama, prompt) for prompt in job["prompts"]]
    if "ids" in job:
        answer["loss"] = loss(llama, job["ids"], job["window"])
    if "speed" in job:
        rates = []
        for _ in range(3):
            llama.reset()
            llama.eval(job["speed"])
            begin, token = time.perf_counter(), job["speed"][-1]
            for _ in range(NEW):
                llama.eval([token])
                token = llama.sample(temp=0)
            rates.append(NEW / (time.perf_counter() - begin))
        answer["tokens_per_second"] = sorted(rates)[1]
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
