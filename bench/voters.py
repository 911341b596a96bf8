"""Many concurrent voters over HTTP in one process: each signs in, then answers its tasks.

It uses plain sockets: a client slower than the server would measure itself.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import tell


@dataclass
class Tally:
    acknowledged: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # from sending a vote to its acknowledgement
    errors: list[str] = field(default_factory=list)


class Line:
    """One kept connection; JSON in and out."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.head = ""
        self.reader: Any = None
        self.writer: Any = None

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, str], Any]:
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        data = json.dumps(body).encode() if body is not None else b""
        kind = "Content-Type: application/json\r\n" if data else ""
        self.writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n{self.head}{kind}"
            f"Content-Length: {len(data)}\r\n\r\n".encode() + data
        )
        status, headers = 0, {}
        first = await self.reader.readuntil(b"\r\n\r\n")
        lines = first.decode("latin-1").split("\r\n")
        status = int(lines[0].split()[1])
        for line in lines[1:]:
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        content = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return status, headers, json.loads(content) if content else None

    async def sign_in(self, token: str) -> None:
        _, headers, said = await self.call("POST", "/api/session", {"token": token})
        cookie = headers["set-cookie"].split(";")[0]
        self.head = f"Cookie: {cookie}\r\nX-CSRF-Token: {said['csrf']}\r\n"


async def voter(line: Line, token: str, share: int, gap: float, begin: asyncio.Event, tally: Tally) -> None:
    """``share`` votes, one every ``gap`` seconds on average (0: as quickly as it can)."""
    dice = random.Random(token)
    await line.sign_in(token)
    _, _, told = await line.call("GET", "/api/task")
    await begin.wait()
    due = time.perf_counter() + dice.random() * gap
    for _ in range(share):
        if told["task"] is None:
            if told["why"] != "later":
                return
            await asyncio.sleep(0.05)
            _, _, told = await line.call("GET", "/api/task")
            continue
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        due += gap
        name = uuid.uuid4().hex
        sent = {"id": name, "showing": told["task"]["showing"], "pick": dice.randint(1, 4), "seconds": 1.0}
        began = time.perf_counter()
        status, _, answer = await line.call("POST", "/api/votes", sent)
        tally.seconds.append(time.perf_counter() - began)
        if status != 200:
            tally.errors.append(f"{status} {answer}")
            return
        tally.acknowledged.append(name)
        told = answer["next"]


async def main(address: str, tokens: str, votes: str, rate: str, out: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    people = Path(tokens).read_text().split()
    share = -(-int(votes) // len(people))
    gap = len(people) / float(rate) if float(rate) else 0.0
    tally, begin = Tally(), asyncio.Event()
    jobs = [
        asyncio.ensure_future(voter(Line(host, int(port)), token, share, gap, begin, tally)) for token in people
    ]
    await asyncio.sleep(5)  # all sign in
    begin.set()
    began = time.perf_counter()
    for done in await asyncio.gather(*jobs, return_exceptions=True):
        if isinstance(done, BaseException):
            tally.errors.append(repr(done))
    spent = time.perf_counter() - began
    Path(out).write_text("\n".join(tally.acknowledged))
    tell({
        "votes": len(tally.acknowledged), "errors": len(tally.errors), "first": (tally.errors or [""])[0],
        "spent": spent, "seconds": tally.seconds,
    })


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
