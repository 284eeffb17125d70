"""FastAPI and uvicorn as one would write it in a quarter of an hour."""

from typing import Any

from engine import Engine
from fastapi import Body, FastAPI
from fastapi.responses import Response
from pydantic import BaseModel

engine = Engine()
app = FastAPI()


class Request(BaseModel):
    inputs: dict[str, list[Any]]


@app.get("/ping")
def ping():
    return {}


@app.post("/invocations")
def infer(request: Request):
    return {name: array.tolist() for name, array in engine.run(engine.from_lists(request.inputs)).items()}


@app.post("/bytes")
def infer_bytes(body: bytes = Body(media_type="application/octet-stream")):
    [array] = engine.run(engine.from_bytes(body)).values()
    return Response(array.tobytes(), media_type="application/octet-stream")
