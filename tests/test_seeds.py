"""Sessions have the generators that NumPy gives them, however they are seeded."""

import numpy as np
import pytest

from agentload.seeds import MANY, generator


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1, 2**32, 2**63 + 5, 2**95 + 1, 2**96 - 1, 2**96, 2**200 + 3])
@pytest.mark.parametrize("number", [0, 1, MANY - 1, MANY, 1_000_003, 2**32 - 1, 2**32])
def test_a_session_has_numpys_own_generator_and_so_have_its_sub_agents(seed: int, number: int) -> None:
    ours, theirs = generator(seed, number), np.random.default_rng([seed, number])

    assert ours.bit_generator.state == theirs.bit_generator.state
    for children in (2, 1):
        assert [r.random() for r in ours.spawn(children)] == [r.random() for r in theirs.spawn(children)]
