"""The ids of batches and of their items."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.batches import (
    MAX_ITEMS,
    BatchTally,
    batch_id_of,
    is_certain,
    item_id,
    part_id,
    place_of,
)

PLACES = st.integers(0, MAX_ITEMS - 1)
SEEDS = st.uuids(version=4)
BATCH = "7a1c9f62-3b54-8d0e-9c11-2f6a5b1e0000"


@given(seed=SEEDS, position=PLACES)
def test_an_items_id_tells_its_batch_and_its_place(seed: uuid.UUID, position: int) -> None:
    """Of every batch, at every place."""
    batch_id = batch_id_of(seed)
    task_id = item_id(batch_id, position)
    assert (batch_id, position) == place_of(task_id)
    assert is_certain(task_id)
    assert task_id == str(uuid.UUID(task_id))


@given(seed=SEEDS)
def test_a_batchs_id_is_a_uuid_of_a_version_of_its_own(seed: uuid.UUID) -> None:
    """RFC 9562's version 8; what it is made of keeps it apart from others."""
    made = uuid.UUID(batch_id_of(seed))
    assert (8, 0) == (made.version, made.int & 0xFFFF)
    assert (made.int ^ seed.int) & ~(0xF << 76 | 0xFFFF) == 0


@given(seed=SEEDS)
def test_a_batchs_own_id_is_no_items(seed: uuid.UUID) -> None:
    """Nor are its parts'."""
    batch_id = batch_id_of(seed)
    assert [None, None] == [place_of(batch_id), place_of(part_id(batch_id, 1))]


@given(st.uuids(version=4), st.text(max_size=30))
def test_a_single_tasks_id_is_no_items(made: uuid.UUID, key: str) -> None:
    """Be it chance's, or made of an Idempotency-Key."""
    ids = [str(made), str(uuid.uuid5(made, key))]
    assert [(None, False)] * 2 == [(place_of(each), is_certain(each)) for each in ids]


@given(st.sampled_from(["nightly", "a.b", "a/b", "nightly.3", "Ünï 1", BATCH + "0"]), PLACES)
def test_a_batch_that_was_started_by_hand_has_items_with_plain_ids(
    name: str, position: int
) -> None:
    """Such an id may also be anything else, so it is not certain."""
    task_id = item_id(name, position)
    assert f"{name}.{position}" == task_id
    assert ((name, position), False) == (place_of(task_id), is_certain(task_id))


def test_two_places_of_a_batch_have_two_ids() -> None:
    """All of them, and the ids are in the order of the places."""
    ids = [item_id(BATCH, position) for position in range(MAX_ITEMS)]
    assert (MAX_ITEMS, ids) == (len(set(ids)), sorted(ids))


@pytest.mark.parametrize(
    "task_id",
    ["", "nightly", "nightly.", ".3", "nightly.03", "nightly.-1", "nightly.100000", BATCH.upper()],
)
def test_other_ids_are_no_items(task_id: str) -> None:
    """They name no batch, or no place."""
    assert (None, False) == (place_of(task_id), is_certain(task_id))


def test_the_first_part_is_the_batch_itself() -> None:
    """The others are named after it."""
    assert [BATCH, f"{BATCH}/part-1"] == [part_id(BATCH, part) for part in (0, 1)]


def test_tallies_add_up() -> None:
    """And what has not ended is pending."""
    one = BatchTally(total=5, completed=1, failed=2, cancelled=1)
    both = one.plus(BatchTally(total=3, completed=3))
    assert BatchTally(total=8, completed=4, failed=2, cancelled=1) == both
    assert [1, 1] == [one.pending, both.pending]
