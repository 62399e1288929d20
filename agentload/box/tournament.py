"""Which of many acts next."""

from math import inf


class Tournament:
    """An instant for each of some players, `inf` where there is none, and whose is the first.

    A tree of winners: an instant is entered in steps as many as the logarithm of the players, and who is first costs
    nothing. A heap holds what has become void until it is first, and compares tuples.
    """

    __slots__ = ("_instants", "_leaves", "_orders", "_tree")

    def __init__(self, players: int) -> None:
        self._instants: list[float] = []
        self._orders: list[int] = []
        self._grow(max(2, players))

    @property
    def first(self) -> int:
        """Number of the player whose instant comes first."""
        return self._tree[1]

    def instant(self, player: int) -> float:
        return self._instants[player]

    def order(self, player: int) -> int:
        """Who goes before whom at one instant."""
        return self._orders[player]

    def enter(self, player: int, instant: float, order: int) -> None:
        """Give a player another instant."""
        if player >= self._leaves:
            self._grow(player + 1)
        instants, orders, tree = self._instants, self._orders, self._tree
        instants[player], orders[player] = instant, order
        node, winner = player + self._leaves, player
        while node > 1:
            rival = tree[node ^ 1]
            other = instants[rival]
            if other < instant or (other == instant and orders[rival] < order):
                winner, instant, order = rival, other, orders[rival]
            node >>= 1
            tree[node] = winner

    def _grow(self, players: int) -> None:
        """Have leaves for so many players; they hold a number whether somebody plays under it or not."""
        leaves = 1 << (players - 1).bit_length()
        self._instants += [inf] * (leaves - len(self._instants))
        self._orders += [0] * (leaves - len(self._orders))
        self._leaves = leaves
        self._tree = [0] * leaves + list(range(leaves))
        for player in range(leaves):
            self.enter(player, self._instants[player], self._orders[player])
