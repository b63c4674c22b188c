"""Which host processes which camera: balanced by capacity, and no camera moves without need."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.cluster.assignment import assigned

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=8)
hosts = st.dictionaries(names, st.floats(0.1, 100), min_size=1, max_size=8)
cameras = st.dictionaries(names, st.none(), max_size=40)


@given(cameras, hosts, st.data())
def test_only_the_cameras_of_a_host_that_leaves_move(
    cameras: dict[str, None], hosts: dict[str, float], data: st.DataObject
):
    gone = data.draw(st.sampled_from(sorted(hosts)))
    before = assigned(cameras, hosts)
    after = assigned(cameras, {name: capacity for name, capacity in hosts.items() if name != gone})
    assert before.keys() == cameras.keys()
    for camera, host in before.items():
        assert after.get(camera) == host or host == gone
    # Read backwards: where a host joins, cameras move to it only.


@given(cameras, hosts, st.data(), st.floats(1, 10))
def test_a_host_that_grows_loses_no_camera(
    cameras: dict[str, None], hosts: dict[str, float], data: st.DataObject, factor: float
):
    grown = data.draw(st.sampled_from(sorted(hosts)))
    before = assigned(cameras, hosts)
    after = assigned(cameras, hosts | {grown: hosts[grown] * factor})
    assert all(after[camera] in (host, grown) for camera, host in before.items())


def test_shares_are_in_proportion_to_capacity():
    sites = {f"camera{number}": None for number in range(4000)}
    chosen = list(assigned(sites, {"large": 3.0, "small": 1.0, "other": 1.0}).values())
    assert abs(chosen.count("large") / 4000 - 3 / 5) < 0.03
    assert abs(chosen.count("small") / 4000 - 1 / 5) < 0.03


def test_a_pinned_camera_never_moves():
    capacities = {"alpha": 1.0, "beta": 1000.0}
    assert assigned({"gate": "alpha"}, capacities) == {"gate": "alpha"}
    assert assigned({"gate": "alpha", "yard": None}, {"beta": 1.0}) == {"yard": "beta"}
    assert assigned({"gate": None}, {}) == {}
