"""Every scenario by its name, in the order in which a run plays them."""

from prepaid.scenarios import messages, orders, outages, readings, strangers
from prepaid.scenarios.runner import Scenario

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario(readings.duplicate),
        Scenario(readings.out_of_order),
        Scenario(readings.late_by_1_hour),
        Scenario(readings.late_by_3_days),
        Scenario(readings.gap_then_register_returns),
        Scenario(readings.rollover_6_digits),
        Scenario(readings.rollover_7_digits),
        Scenario(readings.rollover_8_digits),
        Scenario(readings.exchange),
        Scenario(readings.reset_to_zero),
        Scenario(readings.dst_day),
        Scenario(readings.seq_gap_and_resend),
        Scenario(readings.clone),
        Scenario(messages.negative_and_sentinel),
        Scenario(messages.far_future_and_1970),
        Scenario(messages.zoneless_time),
        Scenario(messages.same_seq_different_value),
        Scenario(messages.unknown_version),
        Scenario(messages.broken_json_and_cbor),
        Scenario(messages.batch_with_one_bad_row),
        Scenario(messages.message_of_64_kib),
        Scenario(orders.ack_lost),
        Scenario(orders.ack_after_expiry),
        Scenario(orders.ack_for_unknown_command),
        Scenario(orders.duplicate_command),
        Scenario(orders.stale_off_after_on),
        Scenario(orders.relay_stuck),
        Scenario(orders.relay_moved_by_hand),
        Scenario(orders.relay_moved_by_hand_and_clock_behind),
        Scenario(outages.will_without_power_fail),
        Scenario(outages.gateway_silent),
        Scenario(outages.reconnect_storm),
        Scenario(outages.consumer_killed_before_puback),
        Scenario(outages.laws_after_all),
        Scenario(outages.broker_restart, kills=True),
        Scenario(outages.database_down_10_minutes, kills=True),
        Scenario(strangers.certificate_of_a_on_topic_of_b, trusts=True),
        Scenario(strangers.revoked_certificate, trusts=True),
        Scenario(strangers.forged_order, trusts=True),
    )
}
