//! The broken event buses, and the cases that reject them.

use std::sync::Arc;

use super::bus::{ForgetfulBuses, faulty};
use super::bus_faults::{
    AcceptsTooMuch, BlocksOnFailure, BuriesNowhere, CountsNoAttempts, CountsPostponements,
    DeliversTwice, ForgetsGroups, IgnoresPauses, LetsTwoIn, LosesSome, MixesKeysUp, RetriesForEver,
    RewritesKeys, SharesNothing, SharesTwice, StartsAtTheEnd, StopsTooEarly, TakesPanicForAck,
    TakesRetryForAck, WaitsForSlowCalls,
};
use crate::conformance::event_bus::EventBusBackend;

type Fresh = fn() -> Arc<dyn EventBusBackend>;

/// Name, the cases that reject it, and how to make one.
pub(super) const BROKEN: &[(&str, &[&str], Fresh)] = &[
    (
        "loses_some_events",
        &[
            "a_slow_handler_call_does_not_hold_back_other_keys",
            "events_of_one_key_keep_their_order",
            "every_group_receives_every_event_unchanged",
        ],
        || faulty(LosesSome::default()),
    ),
    (
        "delivers_twice",
        &[
            "a_slow_handler_call_does_not_hold_back_other_keys",
            "a_postponed_event_holds_back_later_events_of_its_key",
            "a_postponed_event_comes_again_and_is_not_counted",
            "an_acknowledged_event_does_not_come_again",
            "a_retried_event_comes_again",
            "a_panicking_handler_counts_as_retry",
            "a_new_group_starts_where_it_is_told",
            "a_group_goes_on_where_it_stopped",
            "a_stopped_subscription_is_quiet",
            "event_limits_are_refused_and_the_largest_is_delivered",
            "events_of_one_key_keep_their_order",
            "a_retry_holds_back_later_events_of_its_key",
            "a_dropped_event_is_dead_lettered",
            "an_event_that_fails_too_often_is_dead_lettered",
            "events_and_positions_survive_a_restart",
            "subscribers_of_one_group_share_or_conflict",
            "every_group_receives_every_event_unchanged",
        ],
        || faulty(DeliversTwice),
    ),
    (
        "takes_retry_for_ack",
        &[
            "a_postponed_event_comes_again_and_is_not_counted",
            "a_retried_event_comes_again",
            "a_retry_holds_back_later_events_of_its_key",
            "an_event_that_fails_too_often_is_dead_lettered",
            "events_and_positions_survive_a_restart",
        ],
        || faulty(TakesRetryForAck),
    ),
    (
        "takes_panic_for_ack",
        &["a_panicking_handler_counts_as_retry"],
        || faulty(TakesPanicForAck),
    ),
    (
        "counts_no_attempts",
        &[
            "a_postponed_event_comes_again_and_is_not_counted",
            "a_retried_event_comes_again",
            "a_panicking_handler_counts_as_retry",
            "events_and_positions_survive_a_restart",
        ],
        || faulty(CountsNoAttempts),
    ),
    ("ignores_pauses", &["a_retried_event_comes_again"], || {
        faulty(IgnoresPauses)
    }),
    (
        "counts_postponements",
        &["a_postponed_event_comes_again_and_is_not_counted"],
        || faulty(CountsPostponements),
    ),
    (
        "waits_for_slow_calls",
        &["a_slow_handler_call_does_not_hold_back_other_keys"],
        || faulty(WaitsForSlowCalls),
    ),
    (
        "mixes_keys_up",
        &[
            "a_postponed_event_holds_back_later_events_of_its_key",
            "events_of_one_key_keep_their_order",
            "a_retry_holds_back_later_events_of_its_key",
        ],
        || faulty(MixesKeysUp::default()),
    ),
    (
        "blocks_on_failure",
        &[
            "a_slow_handler_call_does_not_hold_back_other_keys",
            "a_failing_event_does_not_block_other_keys",
        ],
        || faulty(BlocksOnFailure::default()),
    ),
    (
        "rewrites_keys",
        &["every_group_receives_every_event_unchanged"],
        || faulty(RewritesKeys),
    ),
    (
        "starts_at_the_end",
        &[
            "a_new_group_starts_where_it_is_told",
            "events_and_positions_survive_a_restart",
        ],
        || faulty(StartsAtTheEnd),
    ),
    (
        "forgets_groups",
        &[
            "a_new_group_starts_where_it_is_told",
            "a_group_goes_on_where_it_stopped",
            "a_stopped_subscription_is_quiet",
            "events_and_positions_survive_a_restart",
            "subscribers_of_one_group_share_or_conflict",
        ],
        || faulty(ForgetsGroups::default()),
    ),
    (
        "stops_too_early",
        &["a_stopped_subscription_is_quiet"],
        || faulty(StopsTooEarly),
    ),
    (
        "buries_nowhere",
        &[
            "a_dropped_event_is_dead_lettered",
            "an_event_that_fails_too_often_is_dead_lettered",
        ],
        || faulty(BuriesNowhere),
    ),
    (
        "retries_for_ever",
        &["an_event_that_fails_too_often_is_dead_lettered"],
        || faulty(RetriesForEver),
    ),
    (
        "lets_two_in",
        &["subscribers_of_one_group_share_or_conflict"],
        || faulty(LetsTwoIn),
    ),
    (
        "shares_nothing",
        &["subscribers_of_one_group_share_or_conflict"],
        || faulty(SharesNothing),
    ),
    (
        "shares_twice",
        &["subscribers_of_one_group_share_or_conflict"],
        || faulty(SharesTwice),
    ),
    (
        "accepts_too_much",
        &["event_limits_are_refused_and_the_largest_is_delivered"],
        || faulty(AcceptsTooMuch),
    ),
    (
        "opens_an_empty_bus",
        &["events_and_positions_survive_a_restart"],
        || Arc::new(ForgetfulBuses),
    ),
];
