from itertools import islice

from hybridjobs.controller.sweep import pauses


def test_releases_that_start_together_do_not_sweep_together() -> None:
    first, *others = islice(pauses(30), 100)
    assert 0 <= first <= 6
    assert all(24 <= pause <= 36 for pause in others)
    assert max(others) - min(others) > 6
    assert list(islice(pauses(30), 100)) != [first, *others]
