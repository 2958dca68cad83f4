"""The events that are said to come very often are those that did in real migrations."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from otelbridge.catalogue import builtin
from otelbridge.catalogue.hot import COSTLY, hot_events

RECORDINGS = Path(__file__).parents[1] / "recordings"
MANY = 1000
"""More than what comes once for each section, pass or command of any recording, and less than what comes for each page."""
FEW = 20


def most(folder: Path) -> Counter[str]:
    """The most that each event came in one log of the recordings."""
    found: Counter[str] = Counter()
    for path in folder.glob("*/*/truth.json"):
        for log in json.loads(path.read_text("utf-8"))["logs"].values():
            found |= Counter(log["events"])
    return found


def assert_agrees(came: Counter[str]) -> None:
    often = {event for event, count in came.items() if count > MANY and builtin().variants(event)}
    assert often
    assert often <= hot_events().keys(), f"not in hot.events: {sorted(often - hot_events().keys())}"
    # Where whole pages or structures went over, what comes for each of them cannot be rare.
    rare = {event for event in ("ram_save_page", "vmstate_load_state_field", "multifd_send") if 0 < came[event] < FEW}
    assert not rare


def test_what_came_often_is_listed() -> None:
    assert_agrees(most(RECORDINGS))


def test_what_came_often_in_any_recording_is_listed(shared_recordings: Path) -> None:
    assert_agrees(most(shared_recordings))


@pytest.mark.parametrize("event", hot_events())
def test_a_listed_event_exists_and_says_why(event: str) -> None:
    hot = hot_events()[event]
    assert builtin().variants(event)
    assert hot.kind in COSTLY | {"turn"}
    assert hot.reason


def test_what_a_dashboard_needs_is_not_costly() -> None:
    """The contract's spans of a plain migration, and what QEMU measures itself, are there at a low cost."""
    needed = {
        "migrate_set_state", "savevm_section_start", "savevm_section_end", "migration_bitmap_sync_start",
        "migration_bitmap_sync_end", "migrate_transferred", "qemu_loadvm_state_section_startfull",
        "migration_completion_vm_stop", "postcopy_start", "multifd_send_thread_start", "migration_tls_outgoing_handshake_start",
    }  # fmt: skip
    assert not needed & hot_events().keys()


def test_the_costly_kinds_are_of_what_there_are_many() -> None:
    came = most(RECORDINGS)
    ordinary = {"savevm_section_start", "migration_bitmap_sync_start", "qemu_loadvm_state_section_startfull"}
    most_of_ordinary = max(came[event] for event in ordinary)
    for event in ("ram_save_page", "ram_load_loop", "vmstate_n_elems"):
        assert came[event] > 10 * most_of_ordinary
        assert hot_events()[event].kind in COSTLY
