from math import inf

from hypothesis import given
from hypothesis import strategies as st

from agentload.box.tournament import Tournament

INSTANTS = st.sampled_from([0.0, 1.0, 1.5, 2.0, 7.25, inf])


@given(st.integers(1, 9), st.lists(st.tuples(st.integers(0, 20), INSTANTS), max_size=60))
def test_the_first_is_the_one_of_all(players: int, entered: list[tuple[int, float]]) -> None:
    """Whoever plays, also more than there were at first: the earliest instant, and the order where several share it."""
    turns, known = Tournament(players), dict[int, tuple[float, int]]()
    for order, (player, instant) in enumerate(entered):
        turns.enter(player, instant, order)
        known[player] = instant, order
        first = min(known, key=known.__getitem__)
        if known[first][0] < inf:
            assert turns.first == first
        assert (turns.instant(turns.first), turns.instant(player)) == (known[first][0], instant)
        assert turns.order(player) == order
