from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from simulators.faults import Disturber, Faults
from simulators.meter import Publish

per_mille = st.integers(0, 1000)
faults = st.builds(
    Faults,
    duplicate=per_mille,
    reorder=per_mille,
    delay=st.integers(0, 600),
    delay_ms=st.integers(1, 20),
    seed=st.integers(0, 99),
)
messages = st.lists(
    st.builds(Publish, st.sampled_from(["reading", "ack", "event"]), st.binary(max_size=3)),
    max_size=5,
)


@given(faults, st.lists(messages, max_size=8))
def test_a_disturbed_link_loses_nothing_and_invents_nothing(
    plan: Faults, steps: list[list[Publish]]
) -> None:
    link, arrived = Disturber(plan, "m"), []
    for now_ms, said in enumerate(steps):
        arrived += link.outgoing(said, now_ms)
    arrived += link.outgoing([], len(steps) + plan.delay_ms)
    said_all = [message for said in steps for message in said]
    sent, came = Counter(said_all), Counter(arrived)
    assert set(sent) == set(came)
    assert all(sent[m] <= came[m] <= 2 * sent[m] for m in sent)
    others = [m for m in said_all if m.kind != "reading"]
    assert [m for m in arrived if m.kind != "reading"] == others


@given(messages)
def test_without_faults_a_link_is_a_wire(said: list[Publish]) -> None:
    link = Disturber(Faults(), "m")
    assert link.outgoing(said, 0) == said
    assert not link.drops()
    assert not link.reboots()


def test_the_same_seed_gives_the_same_faults() -> None:
    said = [Publish("reading", bytes([i])) for i in range(50)]
    plan = Faults(duplicate=500, reorder=500, seed=3)
    assert Disturber(plan, "m").outgoing(said, 0) == Disturber(plan, "m").outgoing(said, 0)
    assert Disturber(plan, "m").outgoing(said, 0) != Disturber(plan, "n").outgoing(said, 0)
    assert Disturber(Faults(drop=1000, reboot=1000), "m").drops()
    assert Disturber(Faults(drop=1000, reboot=1000), "m").reboots()
