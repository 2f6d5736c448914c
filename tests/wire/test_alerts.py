from base64 import b64decode
from hashlib import sha256

import orjson
import pytest

from router.domain.alert import Alert, Condition, Severity
from router.wire.alerts import DeadLetter, alert_subject, encode_alert, encode_dead_letter, rfc3339

ALERT = Alert("bus_away:fleet:3", Condition.BUS_AWAY, Severity.CRITICAL, "bus", "NATS was away", 1_000, {"a": 1})


def test_an_alert_is_a_cloud_event() -> None:
    """Binary mode: the attributes are headers, the body is the alert."""
    data, headers = encode_alert(ALERT)
    assert orjson.loads(data) == {
        "alert_id": "bus_away:fleet:3",
        "severity": "critical",
        "component": "bus",
        "message": "NATS was away",
        "timestamp": "1970-01-01T00:00:01.000Z",
        "metadata": {"a": 1},
    }
    assert headers == {
        "ce-specversion": "1.0",
        "ce-id": "bus_away:fleet:3",
        "ce-source": "/router-fleet/bus",
        "ce-type": "beamline.alert.v1.critical",
        "ce-time": "1970-01-01T00:00:01.000Z",
        "Content-Type": "application/json",
    }


def test_the_end_of_an_alert_is_another_event() -> None:
    """Same alert_id, other ce-id: consumers that drop repeated events still see the end."""
    end = Alert("x:y:3", Condition.BUS_AWAY, Severity.INFO, "bus", "back", 2_000, {"resolved": True})
    data, headers = encode_alert(end)
    assert orjson.loads(data)["alert_id"] == "x:y:3"
    assert headers["ce-id"] == "x:y:3:resolved"
    assert alert_subject(end.severity) == "beamline.alert.v1.info"


def test_a_dead_letter_hashes_its_payload() -> None:
    """The payload itself is there only when the setting allows it, and then byte for byte."""
    letter = DeadLetter("caf.exec.result.v1", "bad\nreason", "invalid_request", 0, b"\xff", original_msg_id="m")
    data, headers = encode_dead_letter(letter, 1 << 20)
    body = orjson.loads(data)
    assert body["payload_sha256"] == sha256(b"\xff").hexdigest()
    assert "payload" not in body
    assert headers == {"x-dlq-reason": "bad�reason", "x-original-msg-id": "m"}
    kept = DeadLetter("s", "r", "c", 0, b"\xff", True, tenant_id="acme", trace_id="t", context={"a": 1})
    body = orjson.loads(encode_dead_letter(kept, 1 << 20)[0])
    assert b64decode(body["payload"]) == b"\xff"
    assert (body["tenant_id"], body["trace_id"], body["context"]) == ("acme", "t", {"a": 1})


@pytest.mark.parametrize(("size", "kept"), [(500, True), (750, False), (1000, False)])
def test_a_payload_too_long_for_a_letter_is_only_hashed(size: int, kept: bool) -> None:
    """A letter that cannot be published is none, and its message would come again for ever."""
    letter = DeadLetter("s", "r", "c", 0, b"\xff" * size, keep_payload=True)
    data, _ = encode_dead_letter(letter, 1000)
    assert len(data) <= 1000
    assert ("payload" in orjson.loads(data)) is kept


def test_times_are_utc() -> None:
    """Milliseconds, and Z."""
    assert rfc3339(1_769_860_800_123) == "2026-01-31T12:00:00.123Z"
