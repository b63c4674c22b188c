"""The checker of latency after a take-over finds what it is to find."""

from support.latency import Reading, within_objective_from


def readings(late_until_s: float, silent_until_s: float = 0.0, last_s: float = 30.0) -> list[Reading]:
    """Four frames a second of each camera; those of one come late, or not at all, for a while."""
    made, in_time, tracked = [], 0.0, 0.0
    for quarter in range(int(last_s * 4)):
        time_s = quarter / 4
        tracked += time_s >= silent_until_s
        in_time += time_s >= max(late_until_s, silent_until_s)
        frames = {"north": float(quarter), "south": tracked}
        made.append(Reading(time_s, frames, frames | {"south": in_time}))
    return made


def test_it_is_within_the_objective_from_the_last_late_frame_on():
    assert within_objective_from(readings(0)) == 0.0
    assert within_objective_from(readings(8)) == 7.75
    assert within_objective_from(readings(27)) is None
    assert 12 <= within_objective_from(readings(0, silent_until_s=15)) <= 15.5, "a window of silence is not good"


def test_it_is_not_while_it_comes_and_goes():
    again_late = [
        reading._replace(in_time={**reading.in_time, "south": min(reading.in_time["south"], 100.0)})
        for reading in readings(0)
    ]
    assert within_objective_from(again_late) is None


def test_readings_are_of_the_histogram():
    text = "dasnet_capture_to_track_seconds"
    metrics = {f'{text}_count{{camera="a"}}': 9.0, f'{text}_bucket{{camera="a",le="0.5"}}': 8.0}
    assert Reading.of(3.0, metrics, ["a", "b"], 0.5) == (3.0, {"a": 9.0, "b": 0.0}, {"a": 8.0, "b": 0.0})
