"""A worker of your own: `python examples/worker.py nats://127.0.0.1:4222`, and tasks of type `summarize` are done."""

import sys

import msgspec

from router.worker import Done, Failed, Job, Worker

worker = Worker(sys.argv[1], name="summarizer", concurrency=16)


class Text(msgspec.Struct):
    """The payload that the handler wants; what does not fit is an error that names the field."""

    text: str
    words: int = 5


@worker.job("summarize", Text)
async def summarize(job: Job[Text]) -> Done:
    """The output becomes the task's result; figures settle what was reserved by estimate."""
    words = job.payload.text.split()
    if not words:
        raise Failed("EMPTY_TEXT", "there is nothing to summarize")
    return Done({"summary": " ".join(words[: job.payload.words])}, tokens=len(words))


worker.run_until_signal()
