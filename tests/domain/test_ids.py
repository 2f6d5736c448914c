"""Ids: UUID version 4 in shape, with their partition in front, and all of a task's follow from its decision."""

import re
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as some

from router.domain.ids import (
    assignment_id,
    attempt_in,
    decision_id,
    from_text,
    idempotency_name,
    name_in,
    partition_in,
    partition_of,
    task_id,
    task_of,
    to_text,
)

PARTITIONS = some.integers(0, 4095)
KEYS = some.text(min_size=1, max_size=40)
RANDOM = some.binary(min_size=4, max_size=4)


@given(partition=PARTITIONS, key=KEYS, random=RANDOM, attempt=some.integers(1, 255))
def test_every_id_is_a_uuid_with_its_partition(partition: int, key: str, random: bytes, attempt: int) -> None:
    """Decision, task and assignment ids are UUIDs of version 4 that open with the partition."""
    decision = decision_id(partition, idempotency_name("acme", "request", key), random)
    task = task_id(decision)
    for one in (decision, task, assignment_id(task, attempt)):
        assert len(one) == 16
        assert partition_in(one) == partition
        uuid = UUID(bytes=one)
        assert uuid.version == 4
        assert str(uuid) == to_text(one)
        assert from_text(to_text(one)) == one


@given(partition=PARTITIONS, key=KEYS, random=RANDOM, attempt=some.integers(1, 255))
def test_a_tasks_ids_follow_from_its_decision(partition: int, key: str, random: bytes, attempt: int) -> None:
    """The name is in the decision; every assignment leads to its task and attempt; the first one is the task."""
    name = idempotency_name("acme", "key", key)
    decision = decision_id(partition, name, random)
    task = task_id(decision)
    assert name_in(decision) == name
    assert assignment_id(task, 1) == task
    assert task_of(assignment_id(task, attempt)) == task
    assert attempt_in(assignment_id(task, attempt)) == attempt


def test_the_same_request_gets_new_ids_another_day() -> None:
    """Other random bytes: another decision, another task, not only in the bytes that differ."""
    name = idempotency_name("acme", "request", "r")
    one, two = (task_id(decision_id(3, name, bytes([0, 0, 0, i]))) for i in (1, 2))
    assert sum(a != b for a, b in zip(one, two, strict=True)) > 8


@pytest.mark.parametrize("attempt", [0, -1, 256])
def test_attempts_have_a_bound(attempt: int) -> None:
    """An attempt that does not fit its byte is refused."""
    with pytest.raises(ValueError, match=r"outside 1\.\.255"):
        assignment_id(bytes(16), attempt)


def test_names_are_apart() -> None:
    """Tenant, namespace, key and step each make another name; no two fields can be shifted into each other."""
    names = [
        idempotency_name("a", "request", "k"),
        idempotency_name("b", "request", "k"),
        idempotency_name("a", "key", "k"),
        idempotency_name("a", "request", "l"),
        idempotency_name("a", "request", "k", step="s"),
        idempotency_name("a", "request", "s", step="k"),
        idempotency_name("a", "request", "ks"),
        idempotency_name("k", "request", "a"),
    ]
    assert len(set(names)) == len(names)


def test_partitions_are_stable() -> None:
    """A tenant's partition is the same in every version: it says where its keys are."""
    assert [partition_of(t, 64) for t in ("acme", "globex", "initech")] == [1, 26, 48]


@pytest.mark.parametrize("text", ["", "x" * 36, "0" * 32, "0033de6d-9039-492e-8ff6-e0ac0000000", "é" * 36])
def test_what_is_no_id(text: str) -> None:
    """Another text is None, not an error."""
    assert from_text(text) is None


def test_texts_are_of_the_usual_form() -> None:
    """Lower case, with dashes."""
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", to_text(bytes(range(16))))
