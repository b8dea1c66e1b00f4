"""`make simulate`: many seeds, one after another; what fails is printed, with how to repeat it."""

import argparse
import sys
import time
from collections import Counter
from random import Random

from bench.report import Report
from tests.simulation.world import World

_STEPS_A_SEED = 600


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000, help="end when so many are done")
    parser.add_argument("--seconds", type=float, default=3600, help="end at the latest after these")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--chaos", type=int, default=_STEPS_A_SEED, help="steps of a seed's chaos")
    parser.add_argument("--seed", type=int, help="run this one only, and print all that happened")
    given = parser.parse_args()
    if given.seed is not None:
        return _show(given.seed, given.chaos)
    return _run(given.steps, given.seconds, given.first, given.chaos)


def _show(seed: int, chaos: int) -> int:
    world = World(Random(seed))
    try:
        world.run(chaos)
    except AssertionError as violation:
        print(*world.trace, f"seed {seed}: {violation}", sep="\n")
        return 1
    print(*world.trace, f"seed {seed}: {world.steps} steps, nothing wrong", sep="\n")
    return 0


def _run(steps: int, seconds: float, first: int, chaos: int) -> int:
    began, used = time.monotonic(), time.process_time()
    done, seed, deeds = 0, first, 0
    failed: list[int] = []
    ends: Counter[str] = Counter()
    orderings: set[int] = set()
    while done < steps and time.monotonic() - began < seconds:
        world = World(Random(seed))
        try:
            world.run(chaos)
        except AssertionError as violation:
            failed.append(seed)
            print(f"seed {seed}: {violation}", file=sys.stderr)
            command = f"python -m tests.simulation --seed {seed} --chaos {chaos}"
            print(f"  again: {command}", file=sys.stderr)
        done += world.steps
        deeds += world.deeds
        orderings.add(hash(tuple(line[9:] for line in world.trace)))
        ends.update(each["outcome"] or "open" for each in world.store.rows()[1].values())
        seed += 1
    report = Report("simulation", f"make simulate STEPS={steps}")
    report.add("steps", done)
    report.add("orderings", len(orderings))
    report.add("violations", len(failed))
    report.add("disturbances", deeds)
    report.add("steps_a_second", done / (time.monotonic() - began))
    report.add("steps_a_cpu_second", done / (time.process_time() - used))
    report.detail("seeds", {"first": first, "last": seed - 1, "failed": failed})
    report.detail("attempts", dict(ends.most_common()))
    report.write()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
