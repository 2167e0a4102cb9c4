"""The golden model as a runtime."""

import numpy as np

from sterna.host.device.run import stop_tokens
from sterna.host.runtime.runtime import Runtime
from sterna.sim.golden.model import GoldenModel


class GoldenRuntime(Runtime):
    """The golden model in this process; bit for bit what the hardware computes."""

    label = "golden model"

    def __init__(self, model):
        super().__init__(model)
        self._golden = GoldenModel(model.packed)
        self._state = self._golden.start(1)

    def clear(self):
        super().clear()
        self._state = self._golden.start(1)

    def _read(self, tokens, cancelled):
        for done, token in enumerate(tokens, 1):
            if cancelled():
                return
            x = self._golden.embed([token])
            for number in range(self.model.geometry.num_hidden_layers):
                x = self._golden.layer(number, x, self._state[number])
            yield done

    def _make(self, token, n, sampling, stop, cancelled):
        stops = stop_tokens(stop)
        for _ in range(n):
            if cancelled():
                return
            head = self._golden.step([token], self._state)
            token = int(self._golden.sample(head, sampling.seed, self.position, sampling.temperature,
                                            sampling.top_k, sampling.top_p)[0])
            yield token
            if token in stops:
                return

    def _values(self):
        return self._state[:, 0].copy()

    def _set_values(self, values):
        self._state = np.array(values)[:, None]
