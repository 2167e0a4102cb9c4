"""Speed of a whole encoder at the published width, batch 1: NumPy over visited neurons beside PyTorch's dense twin.

Run as a program, so that the threads of NumPy's library can be set before it is loaded.
"""

import json
import os
import subprocess
import sys
import time

PUBLISHED = {"vocab_size": 32768, "hidden_size": 768, "num_hidden_layers": 16, "num_attention_heads": 12}
TREES = {"feedforward": "fff", "trees": 1, "tree_depth": 11}
OTHERS = {"dense": {"feedforward": "dense", "intermediate_size": 3072}, "none": {"feedforward": "none"}}
TOKENS = (16, 128)
ROUNDS = 7
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def random_tensors(geometry, rng):
    """Random weights by name, of the first weights' spread; a table of NumPy arrays."""
    import numpy as np
    out = {}
    for name, shape in geometry.tensors():
        if name.endswith(("norm.weight", "norm1.weight", "norm2.weight")):
            out[name] = np.ones(shape, np.float32)
        else:
            out[name] = rng.standard_normal(shape, np.float32) * np.float32(0.04)
        if name.endswith("norm_factor"):
            out[name] = np.float32(geometry.head_width**-0.5)
    return out


def networks():
    """Yields (name, callable of token ids) of every way, all without a vocabulary's decoder: a head of two classes.

    Only one of them is in memory at a time.
    """
    import numpy as np
    import torch
    from sterna.models.encoder.network import Encoder as Network
    from sterna.sim.golden.encoder import Encoder
    from sterna.sim.golden.encoder_checkpoint import EncoderGeometry
    torch.set_grad_enabled(False)
    for feedforward, kinds in (("fff", ("numpy", "torch")), ("dense", ("torch",)), ("none", ("numpy", "torch"))):
        geometry = EncoderGeometry(**PUBLISHED, **(OTHERS | {"fff": TREES})[feedforward], classes=2)
        tensors = random_tensors(geometry, np.random.default_rng(0))
        for kind in kinds:
            if kind == "numpy":
                yield f"numpy.{feedforward}", Encoder(geometry, tensors).logits
                continue
            model = Network(geometry).eval()
            model.load_state_dict({name: torch.from_numpy(np.asarray(data)) for name, data in tensors.items()})
            yield f"torch.{feedforward}", lambda ids, model=model: model(torch.from_numpy(ids)[None])[0].numpy()


def measure():
    """{"WAY.TOKENS": [median, minimum] milliseconds}, and "apart": the largest distance of NumPy's logits from
    PyTorch's, of the trees.
    """
    import numpy as np
    rng = np.random.default_rng(1)
    texts = {count: rng.integers(0, PUBLISHED["vocab_size"], (ROUNDS, count)) for count in TOKENS}
    out, logits = {}, {}
    for name, call in networks():
        for count, ids in texts.items():
            logits[name, count] = call(ids[0])
            taken = []
            for row in ids:  # a new text every time
                started = time.perf_counter()
                call(row)
                taken.append(1e3 * (time.perf_counter() - started))
            out[f"{name}.{count}"] = [sorted(taken)[ROUNDS // 2], min(taken)]
    apart = max(float(np.abs(logits["numpy.fff", count] - logits["torch.fff", count]).max()) for count in TOKENS)
    return out | {"apart": apart}


def speed(threads):
    """``measure`` in a process of so many threads, with the ratios to PyTorch's dense encoder."""
    environment = os.environ | dict.fromkeys(THREADS, str(threads))
    done = subprocess.run([sys.executable, "-m", __spec__.name], env=environment, text=True, check=True,
                          stdout=subprocess.PIPE)
    found = json.loads(done.stdout)
    out = {"apart": f"{found.pop('apart'):.0e}", "threads": threads}
    for name, (median, least) in found.items():
        out |= {f"{name}.ms": median, f"{name}.least.ms": least}
        dense = found[f"torch.dense.{name.rpartition('.')[2]}"]
        out[f"{name}.ratio"] = dense[0] / median
        out[f"{name}.least.ratio"] = dense[1] / least
    return out | {"how": f"measured: {threads} thread{'s' * (threads > 1)}, float32, random weights, "
                         f"batch 1, a new text each of {ROUNDS} times, medians"}


if __name__ == "__main__":
    print(json.dumps(measure()))
