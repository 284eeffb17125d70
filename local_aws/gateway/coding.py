"""Compressed bodies: inflated on their way in, always; deflated on their way out, where the API says so.

docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-gzip-compression-decompression.html
"""

import zlib
from dataclasses import replace

from local_aws.gateway.exchange import Answer, Exchange, Fault

_WBITS = {"gzip": 31, "deflate": 15}


def inflate(exchange: Exchange, limit: int) -> None:
    """Give the exchange the body as it was before the client compressed it, of `limit` bytes at most."""
    coding = (exchange.header("content-encoding") or "identity").strip().lower()
    if coding == "identity":
        return
    if coding not in _WBITS:
        raise Fault("UNSUPPORTED_MEDIA_TYPE", "Unsupported Media Type")
    inflater = zlib.decompressobj(_WBITS[coding])
    try:
        body = inflater.decompress(exchange.body, limit + 1)
    except zlib.error as error:
        raise Fault("BAD_REQUEST_BODY", "Invalid request body", reason=str(error)) from None
    if len(body) > limit:
        raise Fault("REQUEST_TOO_LARGE", "Request Too Long")
    exchange.body = body
    exchange.headers = {
        name: value for name, value in exchange.headers.items() if name.lower() != "content-encoding"
    }


def deflated(exchange: Exchange, answer: Answer) -> Answer:
    """The answer, compressed if it is large enough for the API and the client accepts it."""
    least = exchange.minimum_compression_size
    offers = [offer.strip() for offer in (exchange.header("accept-encoding") or "").lower().split(",")]
    coding = next((offer for offer in offers if offer in _WBITS), None)
    if least is None or coding is None or len(answer.body) < least:
        return answer
    deflater = zlib.compressobj(wbits=_WBITS[coding])
    body = deflater.compress(answer.body) + deflater.flush()
    return replace(answer, headers=answer.headers | {"Content-Encoding": coding}, body=body)
