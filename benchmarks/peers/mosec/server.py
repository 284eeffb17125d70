"""mosec, with its batching; the body of a request is JSON, or bytes where BYTES is set."""

import os

import numpy as np
import orjson
from engine import DELAY_MS, MAXB, WORKERS, Engine
from mosec import Server, Worker

BYTES = bool(os.environ.get("BYTES"))


class Model(Worker):
    def __init__(self):
        self._engine = Engine()

    def deserialize(self, data):
        if BYTES:
            return self._engine.from_bytes(data)
        return self._engine.from_lists(orjson.loads(data)["inputs"])

    def serialize(self, data):
        if BYTES:
            [array] = data.values()
            return array.tobytes()
        return orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)

    def forward(self, data):
        if MAXB == 1:
            return self._engine.run(data)
        together = {name: np.concatenate([each[name] for each in data]) for name in self._engine.dtypes}
        answer = {name: np.ascontiguousarray(array) for name, array in self._engine.run(together).items()}
        return [{name: array[row : row + 1] for name, array in answer.items()} for row in range(len(data))]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Model, num=WORKERS, max_batch_size=MAXB, max_wait_time=int(DELAY_MS), timeout=30)
    server.run()
