"""The worker library: register one handler per job type; the library does the rest.

    worker = Worker("nats://127.0.0.1:4222", name="summarizer")

    class Text(msgspec.Struct):
        text: str

    @worker.job("summarize", Text)
    async def summarize(job: Job[Text]) -> object:
        return {"summary": job.payload.text[:80]}

    worker.run_until_signal()

For each assignment the worker sends an `accepted` ack and runs the handler within the deadline. Meanwhile it extends
the server's ack wait. It stores the result and only then acknowledges the message, so a worker that dies loses nothing.
An assignment whose job type has no handler is passed on to the other workers. After 20 deliveries it is rejected.

A handler returns its output, or `Done` with cost and tokens. It raises `Failed` when the attempt failed, and `Rejected`
when this worker refuses the job. Any other exception becomes an error result.
"""

from router.worker.job import ANY_TYPE, Done, Failed, Job, Rejected
from router.worker.worker import Worker

__all__ = ["ANY_TYPE", "Done", "Failed", "Job", "Rejected", "Worker"]
