"""Answering over a pipe: prompts are taken as they come and as there is room for them, answers are said as they end."""

import queue
import threading
from collections import deque
from pathlib import Path
from typing import BinaryIO

import msgspec
import torch

from schemas.answers import Answered, Ask, Cancel, Opening, Ready, Refused, Reply, Request, Token
from trainer.answers.desk import Answer, Desk
from trainer.data.assets import GenerationConfig
from trainer.errors import ModelError, OutOfMemory
from trainer.model.decoder import Decoder
from trainer.model.weights import load_pretrained


class Wire:
    """Both directions of the pipe. A thread reads, so that whoever asks never waits for a step to end."""

    def __init__(self, requests: BinaryIO, replies: BinaryIO) -> None:
        self._replies = replies
        self._coming: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.is_open = True
        threading.Thread(target=self._read, args=(requests,), daemon=True).start()

    def _read(self, requests: BinaryIO) -> None:
        for line in requests:
            self._coming.put(line)
        self._coming.put(None)

    def hear(self, *, wait: bool) -> Request | None:
        """Return the next request; None where there is none now, or after the last. Raises ModelError for what is none."""
        try:
            line = self._coming.get(block=wait and self.is_open)
        except queue.Empty:
            return None
        if line is None:
            self.is_open = False
            return None
        try:
            request: Request = msgspec.json.decode(line, type=Request)
        except msgspec.DecodeError as error:
            raise ModelError(f"not a request: {error}; expected a line as schemas/answers.py describes it") from None
        return request

    def say(self, reply: Reply) -> None:
        """Write one reply."""
        self._replies.write(msgspec.json.encode(reply) + b"\n")
        self._replies.flush()


def serve(directory: Path, wire: Wire) -> None:
    """Answer what comes in over `wire` with the model in `directory`. Raises ModelError and OutOfMemory."""
    opening = wire.hear(wait=True)
    if opening is None:
        return
    if not isinstance(opening, Opening):
        raise ModelError("the first request must be an opening")
    model, stop_ids = load_model(directory), frozenset(opening.stop_ids) | stop_ids_of(directory)
    if not stop_ids:
        raise ModelError(
            f"{directory}: neither generation_config.json nor config.json names an eos_token_id, and the chat template ends "
            "no turn with a token, so no answer could end; set eos_token_id in generation_config.json"
        )
    weight = model.head_VC
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    dtype = str(weight.dtype).removeprefix("torch.")
    desk = Desk(model, opening.generation, stop_ids=stop_ids)
    wire.say(Ready(room=desk.room, device=str(weight.device), dtype=dtype, n_parameters=n_parameters))
    try:
        with torch.autocast(weight.device.type, dtype=torch.bfloat16, enabled=weight.dtype == torch.bfloat16):
            _Service(desk, wire).run()
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            f"{weight.device}: out of memory: {str(error).splitlines()[0]} Lower generation.batch (it is "
            f"{opening.generation.batch}), e.g. --set generation.batch=1"
        ) from None


def load_model(directory: Path) -> Decoder:
    """Return the model on this machine's device: in float32 on a CPU, in bfloat16 on a GPU that multiplies it."""
    model, _ = load_pretrained(directory, vocab_size=0)
    if not torch.cuda.is_available():
        return model.eval()
    dtype = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return model.to(device="cuda", dtype=dtype).eval()


def stop_ids_of(directory: Path) -> frozenset[int]:
    """Return the ids that end an answer as generation_config.json says, or else config.json; none where both are silent."""
    for name in ("generation_config.json", "config.json"):
        path = directory / name
        try:
            found = msgspec.json.decode(path.read_bytes(), type=_Stops)
        except FileNotFoundError:
            continue
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ModelError(f"{path}: cannot be read: {error}") from None
        if found.eos_token_id is not None:
            return GenerationConfig(eos_token_id=found.eos_token_id).stop_ids()
    return frozenset()


class _Stops(msgspec.Struct, frozen=True):
    """What is read of a generation_config.json or config.json."""

    eos_token_id: int | list[int] | None = None


class _Service:
    """The answers under way, and the prompts that wait for a place."""

    def __init__(self, desk: Desk, wire: Wire) -> None:
        self.desk, self.wire = desk, wire
        self.waiting: deque[Ask] = deque()
        self.streamed: set[int] = set()
        """Open answers whose tokens are said as they are written."""

    def run(self) -> None:
        """Write answers until nothing more comes and all is answered."""
        while self.wire.is_open or self.waiting or self.desk.n_open:
            self._listen()
            while self.waiting and not self.desk.is_full:
                self._take(self.waiting.popleft())
            if self.desk.n_open:
                self._step()

    def _listen(self) -> None:
        is_idle = not self.waiting and not self.desk.n_open
        while (request := self.wire.hear(wait=is_idle)) is not None:
            is_idle = False
            if isinstance(request, Ask):
                self.waiting.append(request)
            elif isinstance(request, Cancel):
                self._cancel(request.key)
            else:
                raise ModelError("a second opening; there is one at the beginning")

    def _take(self, ask: Ask) -> None:
        problem = self.desk.problem(ask.input_ids)
        if problem is not None:
            self.wire.say(Refused(key=ask.key, reason=problem))
            return
        self.desk.add(ask.key, ask.input_ids, seed=ask.seed)
        if ask.is_streamed:
            self.streamed.add(ask.key)

    def _step(self) -> None:
        for key, token, answer in self.desk.step():
            is_stop = answer is not None and answer.is_stopped
            if key in self.streamed and not is_stop:
                self.wire.say(Token(key=key, id=token))
            if answer is not None:
                self._say_answer(key, answer)

    def _say_answer(self, key: int, answer: Answer) -> None:
        self.streamed.discard(key)
        ids = answer.ids[:-1] if answer.is_stopped else answer.ids
        self.wire.say(Answered(key=key, ids=ids, is_stopped=answer.is_stopped))

    def _cancel(self, key: int) -> None:
        is_waiting = [ask for ask in self.waiting if ask.key == key]
        self.waiting = deque(ask for ask in self.waiting if ask.key != key)
        ids = self.desk.drop(key)
        if ids is not None or is_waiting:
            self._say_answer(key, Answer(ids=ids or (), is_stopped=False))
