"""Write a worker: handlers by job type, everything else is done for them.

    worker = Worker("nats://127.0.0.1:4222", name="summarizer")

    class Text(msgspec.Struct):
        text: str

    @worker.job("summarize", Text)
    async def summarize(job: Job[Text]) -> object:
        return {"summary": job.payload.text[:80]}

    worker.run_until_signal()

An assignment is accepted, run within its deadline, prolonged at the server while it runs, reported, and only then
acknowledged: a worker that dies loses nothing. One whose type has no handler is passed on to the other workers, and
rejected when nobody takes it. A handler returns its output (or `Done`, with figures), raises `Failed` for an attempt
that failed, and `Rejected` for what it will not do. Any other exception is an error result too.
"""

from router.worker.job import ANY_TYPE, Done, Failed, Job, Rejected
from router.worker.worker import Worker

__all__ = ["ANY_TYPE", "Done", "Failed", "Job", "Rejected", "Worker"]
