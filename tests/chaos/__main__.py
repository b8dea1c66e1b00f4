"""Break everything at moments drawn from a seed, and check that no job noticed.

Needs a cluster with the image (`make image`). Exit code 0: every promise was kept. The same seed
gives the same jobs and faults at the same times.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from pathlib import Path

from bench.report import Report
from tests.chaos.faults import possible
from tests.chaos.plan import FAULTS, planned
from tests.chaos.run import Verdict, run
from tests.cluster import ClusterError, current
from tests.e2e.release import CommandFailedError

_BEGUN = time.monotonic()


def say(text: str) -> None:
    """A line with the seconds since the start."""
    print(f"{time.monotonic() - _BEGUN:6.1f} s  {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="what everything is drawn from; default: random")
    parser.add_argument("--jobs", type=int, default=300, help="how many are sent")
    parser.add_argument("--minutes", type=float, default=10, help="in which they are sent")
    parser.add_argument("--faults", type=int, help="how many; default: one in 8 seconds")
    parser.add_argument("--only", nargs="+", choices=sorted(FAULTS), help="these kinds of fault")
    parser.add_argument("--out", type=Path, help="write the results to this file (JSON)")
    parser.add_argument("--evidence", type=Path, help="write all that was found to this file")
    arguments = parser.parse_args()
    seed = random.randrange(1 << 31) if arguments.seed is None else arguments.seed
    seconds = arguments.minutes * 60
    try:
        kinds = possible(current(), cheap=False)
        skipped = sorted(set(FAULTS) - set(kinds))
        if skipped:
            say(f"this cluster cannot show, and the run leaves out: {', '.join(skipped)}")
        if arguments.only:
            kinds = [kind for kind in kinds if kind in arguments.only]
        faults = int(seconds / 8) if arguments.faults is None else arguments.faults
        plan = planned(seed, jobs=arguments.jobs, seconds=seconds, faults=faults, fault_kinds=kinds)
        say(f"seed {seed}: {len(plan.jobs)} jobs and {len(plan.faults)} faults in {seconds:g} s")
        verdict = asyncio.run(run(plan, say=say))
    except (ClusterError, CommandFailedError) as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 2
    if arguments.evidence:
        arguments.evidence.write_text(json.dumps(verdict.evidence.__dict__, default=_plain))
    _report(verdict, arguments.out)
    return 1 if verdict.violations else 0


def _report(verdict: Verdict, out: Path | None) -> None:
    plan, counts = verdict.plan, verdict.counts()
    command = (
        f"python -m tests.chaos --seed {plan.seed} --jobs {len(plan.jobs)}"
        f" --minutes {plan.seconds / 60:g} --faults {len(plan.faults)}"
    )
    report = Report("chaos", command)
    report.add("accepted_jobs", counts["accepted"])
    report.add("faults", verdict.done.total())
    report.add("violations", len(verdict.violations))
    report.add("seconds_until_all_were_over", counts["seconds_until_all_were_over"])
    report.detail("seed", plan.seed)
    report.detail("verdict", "failed" if verdict.violations else "kept")
    report.detail("violations", [str(each) for each in verdict.violations])
    report.detail("counts", counts)
    report.detail("log", verdict.log)
    if out is not None:
        report.write(out)
    else:
        report.show()
    for violation in verdict.violations:
        print(violation)
    print("verdict", "failed" if verdict.violations else "kept")


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, frozenset) else getattr(value, "__dict__", str(value))


if __name__ == "__main__":
    sys.exit(main())
