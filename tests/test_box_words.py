"""The box's tokenizer, its chat template, and the identities of blocks."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentload.box.vocabulary import WORDS
from agentload.box.words import BLOCK, Template, digest, identities, pieces, tokenize

PLAIN = ("user", "the quick brown fox", ())


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        (" ", 0),
        ("the quick brown fox", 4),
        ("internationalization", 2),  # 20 letters
        ("2026", 2),  # digits by three
        ("end.", 2),
        ('{"path": "a.py"}', 8),  # {" path ": " a . py "}
        ("one  two", 3),  # two spaces are a token
        ("one\n\ntwo", 3),
        ("日本", 2),
    ],
)
def test_the_rule_counts_as_it_says(text, count):
    assert len(tokenize(text)) == count


def test_each_word_of_the_vocabulary_is_one_token_and_different_from_all_others():
    assert len(set(WORDS)) == len(WORDS)
    assert len(np.unique(tokenize(" ".join(WORDS)))) == len(WORDS)


@given(st.text(max_size=80), st.text(max_size=80))
def test_texts_joined_at_a_space_are_the_tokens_of_both(one, two):
    one, two = one.strip(" "), two.strip(" ")
    assert list(tokenize(f"{one} {two}" if one and two else one + two)) == [*tokenize(one), *tokenize(two)]


@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=200))
def test_pieces_are_one_token_each_and_join_to_the_text(text):
    cut = pieces(text)

    assert len(cut) == len(tokenize(text))
    assert "".join(cut) == text or not cut
    assert [int(token) for piece in cut for token in tokenize(piece)] == [int(token) for token in tokenize(text)]


def test_tokens_do_not_depend_on_the_process():
    code = "from agentload.box.words import *; print(digest(tokenize('the quick brown fox'), identities(tokenize(''))))"
    said = [subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)]

    here = tokenize("the quick brown fox")
    assert said[0] == said[1] == f"{digest(here, identities(here))}\n".encode()


def test_a_prompt_costs_its_words_and_a_fixed_template():
    template = Template()

    assert len(template.prompt([PLAIN])) == 4 + 5 + 3
    assert len(template.prompt([PLAIN, PLAIN])) == 2 * (4 + 5) + 3
    assert len(template.prompt([PLAIN], '[{"a":1}]')) == 4 + 5 + 3 + 12 + len(tokenize('[{"a":1}]'))


def test_a_remembered_message_counts_like_a_new_one():
    template = Template()
    calls = ("assistant", "", (("read_file", '{"path": "a"}'), ("read_file", '{"path": "b"}')))
    first = template.prompt([PLAIN, calls], "[]")

    assert np.array_equal(template.prompt([PLAIN, calls], "[]"), first)
    assert np.array_equal(Template(most_tokens=1).prompt([PLAIN, calls], "[]"), first)


def test_the_templates_memory_is_bounded_in_bytes_however_short_the_messages_are():
    template = Template(most_tokens=100_000)  # 800 kB
    tracemalloc.start()
    for i in range(6_000):
        template.prompt([("user", f"short {i}", ())])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert held < 1_000_000


def test_identities_agree_exactly_where_everything_before_agrees():
    rng = np.random.default_rng(0)
    one = rng.integers(0, 1 << 40, 100 * BLOCK + 5).astype(np.uint64)
    two = one.copy()
    two[40 * BLOCK + 3] += np.uint64(1)

    assert len(identities(one)) == 100
    assert list(identities(one) == identities(two)) == [True] * 40 + [False] * 60


def test_swapped_blocks_are_another_sequence():
    tokens = np.arange(4 * BLOCK, dtype=np.uint64)
    swapped = tokens.reshape(4, BLOCK)[[1, 0, 2, 3]].ravel()

    assert not (identities(tokens) == identities(swapped)).any()


@given(st.integers(0, 200), st.integers(0, 200))
def test_identities_can_be_continued(known, more):
    tokens = np.random.default_rng(known).integers(0, 1 << 60, known + more).astype(np.uint64)
    before = identities(tokens[:known])
    after = identities(tokens[len(before) * BLOCK :], before)

    assert np.array_equal(after, identities(tokens))


def test_a_digest_sees_the_last_token_of_a_partial_block():
    tokens = np.arange(BLOCK + 3, dtype=np.uint64)
    other = tokens.copy()
    other[-1] += np.uint64(1)

    assert digest(tokens, identities(tokens)) != digest(other, identities(other))
