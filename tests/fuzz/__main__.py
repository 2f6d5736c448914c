"""`python -m tests.fuzz --count 100000 --seed 7`: every decoder and packer on so many inputs. Exit code 1: one failed.

An input that fails is written into tests/fuzz/corpus/<target>/, which every run and every test reads first: mend the
decoder, and keep the file.
"""

import argparse
import os
import secrets
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from hashlib import blake2b
from typing import NamedTuple

from tests.fuzz.packers import PACKERS
from tests.fuzz.run import CORPUS, Failed, fuzz, replay, round_trips
from tests.fuzz.targets import TARGETS


class Ran(NamedTuple):
    """What became of a target: how many inputs it accepted and the CPU that it took, or what failed."""

    name: str
    accepted: int
    cpu_s: float
    failed: str = ""
    data: bytes | None = None


def run(name: str, count: int, seed: int) -> Ran:
    """One target, in a process of the pool."""
    began = time.process_time()
    try:
        if name in PACKERS:
            accepted = round_trips(name, count, seed)
        else:
            replay(name)
            accepted = fuzz(name, count, seed)
    except Failed as fault:
        return Ran(name, 0, 0.0, str(fault), fault.data)
    return Ran(name, accepted, time.process_time() - began)


def main() -> int:
    """Fuzz, print, and say whether all held."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="inputs for each target")
    parser.add_argument("--seed", type=int, default=None, help="repeat the run of this seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("targets", nargs="*", help=f"some of {', '.join((*TARGETS, *PACKERS))}; default: all")
    args = parser.parse_args()
    seed = secrets.randbits(32) if args.seed is None else args.seed
    # The last ones take longest, so they start first.
    chosen = args.targets or [*TARGETS, *PACKERS][::-1]
    print(f"fuzz: seed {seed}, {args.count:,} inputs each of {len(chosen)} targets", flush=True)
    failed, began = 0, time.monotonic()
    with ProcessPoolExecutor(args.jobs) as pool:
        for ran in pool.map(run, chosen, [args.count] * len(chosen), [seed] * len(chosen)):
            if ran.failed:
                failed += 1
                print(f"{ran.name}: FAILED with seed {seed}: {ran.failed}", flush=True)
                if ran.data is not None:
                    print(f"  its input is {keep(ran.name, ran.data)}")
                continue
            each = ran.cpu_s / args.count * 1e6
            print(
                f"{ran.name:20} {ran.accepted:10,} accepted {ran.cpu_s:6.1f} s of CPU {each:6.1f} µs each", flush=True
            )
    print(f"fuzz: {len(chosen) - failed} of {len(chosen)} held, {time.monotonic() - began:.0f} s")
    return min(failed, 1)


def keep(name: str, data: bytes) -> str:
    """Write a failing input into the corpus."""
    path = CORPUS / name / blake2b(data, digest_size=6).hexdigest()
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(data)
    return str(path)


if __name__ == "__main__":
    sys.exit(main())
