//! The broken state stores, and the cases that reject them.

use std::sync::Arc;

use super::store::{Restart, faulty, restarting};
use super::store_events::{
    AppliesHalfCommits, HidesItsOutbox, KeepsSettledEvents, ListsEventsBackwards, ListsStaleEvents,
    LosesEvents, RecordsPhantoms, SettlesEverything, TearsCommits,
};
use super::store_guards::{
    ChecksGuardsFirst, ClearsNewerMarks, IgnoresGuards, LowersRaisedValues, PassesMissingGuards,
    RenamesItself,
};
use super::store_reads::{
    AnswersInItsOwnOrder, DropsRepeatedKeys, FoldsCase, ReadsTextOnly, ScansByOffset, ScansForEver,
    ScansOtherKinds, SkipsAPage,
};
use super::store_writes::{
    AnswersAWrongETag, ChecksThenCreates, ChecksThenWrites, DeletesRegardless, ForgetsTombstones,
    HashesContent, IgnoresMatch, KeepsOldTtl, MissesMissingKeys, NeverExpires, OverwritesOnCreate,
    RestartsVersions, SwallowsConflicts, SwallowsLimits, WritesThenRefuses,
};
use crate::conformance::state_store::StateStoreBackend;

type Fresh = fn() -> Arc<dyn StateStoreBackend>;

/// Name, the cases that reject it, and how to make one.
pub(super) const BROKEN: &[(&str, &[&str], Fresh)] = &[
    (
        "ignores_match",
        &[
            "match_refuses_a_stale_etag",
            "a_refused_write_changes_nothing",
            "an_expired_value_is_missing",
            "a_tombstone_refuses_a_new_creation",
            "racing_updates_lose_nothing",
        ],
        || faulty(IgnoresMatch),
    ),
    (
        "deletes_regardless",
        &[
            "match_refuses_a_stale_etag",
            "a_refused_write_changes_nothing",
            "an_expired_value_is_missing",
            "a_raised_value_never_falls",
        ],
        || faulty(DeletesRegardless),
    ),
    (
        "overwrites_on_create",
        &[
            "create_refuses_an_existing_key",
            "a_refused_write_changes_nothing",
            "racing_creates_have_one_winner",
        ],
        || faulty(OverwritesOnCreate),
    ),
    (
        "checks_then_creates",
        &["racing_creates_have_one_winner"],
        || faulty(ChecksThenCreates),
    ),
    (
        "checks_then_writes",
        &["racing_updates_lose_nothing"],
        || faulty(ChecksThenWrites),
    ),
    (
        "swallows_conflicts",
        &[
            "create_refuses_an_existing_key",
            "match_refuses_a_stale_etag",
            "an_expired_value_is_missing",
            "a_tombstone_refuses_a_new_creation",
            "acknowledged_writes_survive_a_restart",
            "racing_creates_have_one_winner",
            "racing_updates_lose_nothing",
        ],
        || faulty(SwallowsConflicts),
    ),
    (
        "writes_then_refuses",
        &[
            "match_refuses_a_stale_etag",
            "a_refused_write_changes_nothing",
        ],
        || faulty(WritesThenRefuses),
    ),
    (
        "swallows_limits",
        &["limits_are_refused_and_the_largest_is_stored"],
        || faulty(SwallowsLimits),
    ),
    (
        "misses_missing_keys",
        &[
            "a_deletion_removes_and_may_be_repeated",
            "an_expired_value_is_missing",
        ],
        || faulty(MissesMissingKeys),
    ),
    (
        "answers_a_wrong_etag",
        &[
            "get_many_answers_in_the_order_of_its_keys",
            "a_change_gives_a_new_etag",
        ],
        || faulty(AnswersAWrongETag),
    ),
    (
        "hashes_content",
        &["every_write_gives_a_new_etag", "an_etag_never_comes_back"],
        || faulty(HashesContent),
    ),
    ("restarts_versions", &["an_etag_never_comes_back"], || {
        faulty(RestartsVersions::default())
    }),
    (
        "never_expires",
        &[
            "an_expired_value_is_missing",
            "a_scan_passes_over_what_has_ended",
        ],
        || faulty(NeverExpires),
    ),
    (
        "keeps_old_ttl",
        &["a_put_without_ttl_removes_the_ttl"],
        || faulty(KeepsOldTtl::default()),
    ),
    (
        "forgets_tombstones",
        &[
            "a_tombstone_refuses_a_new_creation",
            "acknowledged_writes_survive_a_restart",
        ],
        || faulty(ForgetsTombstones),
    ),
    (
        "applies_half_commits",
        &["a_commit_is_all_or_nothing"],
        || faulty(AppliesHalfCommits),
    ),
    (
        "records_phantoms",
        &["events_are_pending_if_and_only_if_committed"],
        || faulty(RecordsPhantoms),
    ),
    (
        "loses_events",
        &[
            "events_are_pending_if_and_only_if_committed",
            "pending_events_keep_the_order_of_commits",
            "settled_events_are_gone_and_settling_repeats",
            "acknowledged_writes_survive_a_restart",
        ],
        || faulty(LosesEvents),
    ),
    (
        "tears_commits",
        &["a_dropped_write_is_whole_or_absent"],
        || faulty(TearsCommits),
    ),
    (
        "lists_events_backwards",
        &["pending_events_keep_the_order_of_commits"],
        || faulty(ListsEventsBackwards),
    ),
    (
        "keeps_settled_events",
        &[
            "pending_events_keep_the_order_of_commits",
            "settled_events_are_gone_and_settling_repeats",
            "a_settled_event_is_not_listed_again",
        ],
        || faulty(KeepsSettledEvents),
    ),
    (
        "lists_stale_events",
        &[
            "pending_events_keep_the_order_of_commits",
            "a_settled_event_is_not_listed_again",
        ],
        || faulty(ListsStaleEvents::default()),
    ),
    (
        "settles_everything",
        &[
            "pending_events_keep_the_order_of_commits",
            "settled_events_are_gone_and_settling_repeats",
            "a_settled_event_is_not_listed_again",
            "acknowledged_writes_survive_a_restart",
        ],
        || faulty(SettlesEverything),
    ),
    (
        "hides_its_outbox",
        &[
            "events_are_pending_if_and_only_if_committed",
            "pending_events_keep_the_order_of_commits",
            "settled_events_are_gone_and_settling_repeats",
            "a_settled_event_is_not_listed_again",
            "undeclared_state_capabilities_are_refused",
            "events_are_published_if_and_only_if_committed",
        ],
        || faulty(HidesItsOutbox),
    ),
    (
        "ignores_guards",
        &[
            "a_commit_depends_on_its_guards",
            "a_raised_fence_stops_racing_commits",
        ],
        || faulty(IgnoresGuards),
    ),
    (
        "checks_guards_first",
        &["a_raised_fence_stops_racing_commits"],
        || faulty(ChecksGuardsFirst),
    ),
    (
        "passes_missing_guards",
        &["a_commit_depends_on_its_guards"],
        || faulty(PassesMissingGuards),
    ),
    (
        "lowers_raised_values",
        &["a_raised_value_never_falls"],
        || faulty(LowersRaisedValues),
    ),
    (
        "clears_newer_marks",
        &["a_raised_value_never_falls"],
        || faulty(ClearsNewerMarks),
    ),
    (
        "reads_text_only",
        &["get_returns_the_bytes_that_were_put"],
        || faulty(ReadsTextOnly),
    ),
    (
        "folds_case",
        &["keys_that_look_alike_are_different"],
        || faulty(FoldsCase),
    ),
    (
        "answers_in_its_own_order",
        &["get_many_answers_in_the_order_of_its_keys"],
        || faulty(AnswersInItsOwnOrder),
    ),
    (
        "drops_repeated_keys",
        &["get_many_answers_in_the_order_of_its_keys"],
        || faulty(DropsRepeatedKeys),
    ),
    (
        "skips_a_page",
        &[
            "a_scan_finds_every_key_of_its_kind",
            "a_scan_survives_writes_in_its_way",
        ],
        || faulty(SkipsAPage),
    ),
    (
        "scans_other_kinds",
        &["a_scan_finds_every_key_of_its_kind"],
        || faulty(ScansOtherKinds),
    ),
    (
        "scans_for_ever",
        &[
            "a_scan_finds_every_key_of_its_kind",
            "a_scan_survives_writes_in_its_way",
            "a_scan_passes_over_what_has_ended",
        ],
        || faulty(ScansForEver),
    ),
    (
        "scans_by_offset",
        &["a_scan_survives_writes_in_its_way"],
        || faulty(ScansByOffset),
    ),
    (
        "renames_itself",
        &["the_identity_stays_while_the_server_runs"],
        || faulty(RenamesItself::default()),
    ),
    (
        "opens_an_empty_store",
        &["acknowledged_writes_survive_a_restart"],
        || restarting(Restart::ForgetsEverything),
    ),
    (
        "forgets_events_in_a_restart",
        &["acknowledged_writes_survive_a_restart"],
        || restarting(Restart::ForgetsEvents),
    ),
    (
        "counts_anew_after_a_restart",
        &["acknowledged_writes_survive_a_restart"],
        || restarting(Restart::CountsAnew),
    ),
];

/// Those that random operations find as well, without a case that looks for them.
pub(super) const FOUND_BY_MODEL: &[&str] = &[
    "ignores_match",
    "deletes_regardless",
    "overwrites_on_create",
    "swallows_conflicts",
    "writes_then_refuses",
    "misses_missing_keys",
    "answers_a_wrong_etag",
    "hashes_content",
    "restarts_versions",
    "never_expires",
    "keeps_old_ttl",
    "forgets_tombstones",
    "applies_half_commits",
    "records_phantoms",
    "loses_events",
    "lists_events_backwards",
    "settles_everything",
    "hides_its_outbox",
    "skips_a_page",
    "scans_for_ever",
    "opens_an_empty_store",
    "forgets_events_in_a_restart",
    "counts_anew_after_a_restart",
];
