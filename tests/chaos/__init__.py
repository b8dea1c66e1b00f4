"""`make chaos`: everything is broken at moments drawn from a seed; no job may notice.

plan       what happens when: a pure function of the seed
handlers   what the jobs do, told by their payloads
ledger     what the jobs' processes say themselves, outside of everything that is broken
faults     what breaks, and mends
load       the senders: they send again until they are answered
audit      the checks of what was found afterwards: a pure function of the evidence
run        all of it, one after the other
"""
