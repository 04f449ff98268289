//! What is ours on top of the dialect, and what our own clients may count on.

mod bounds;
mod control;
mod environment;
mod extensions;
mod keeping;
mod refusals;
mod takeover;

use super::over;

pub(super) use bounds::*;
pub(super) use control::*;
pub(super) use environment::*;
pub(super) use extensions::*;
pub(super) use keeping::*;
pub(super) use refusals::*;
pub(super) use takeover::*;

/// Cases for every way there is; for those where several connections reach one server; and large ones, which are run once
/// for lines, once for a websocket and once for one with TLS.
macro_rules! everywhere {
    ([$($case:ident),* $(,)?], connections: [$($several:ident),* $(,)?], large: [$($large:ident),* $(,)?]) => {
        over!(stdio, $crate::server::Over::Stdio, ours, [$($case,)* $($large),*]);
        over!(unix, $crate::server::Over::Unix, ours, [$($case,)* $($several),*]);
        over!(token, $crate::server::Over::Token, ours, [$($case,)* $($several),*]);
        over!(open, $crate::server::Over::Open, ours, [$($case,)* $($several,)* $($large),*]);
        over!(tls, $crate::server::Over::Tls, ours, [$($case,)* $($several,)* $($large),*]);
        over!(restarted, $crate::server::Over::Restarted, ours, [$($case,)* $($several),*]);
    };
}

everywhere! {[
    // refusals
    every_refusal_has_a_kind,
    plain_paths_are_taken_as_well,
    a_write_needs_no_name,
    only_what_there_is_is_announced,
    directories_are_sorted,
    // control
    a_process_is_waited_for_listed_and_its_input_closed,
    a_terminal_is_resized_and_its_end_is_told_truly,
    any_signal_is_sent_by_its_name,
    terminate_asks_first_when_it_is_told_to,
    terminate_takes_along_what_its_leader_forks_and_leaves,
    terminate_reaches_grandchildren_with_sessions_of_their_own,
    // bounds
    a_long_poll_holds_up_nothing_else,
    a_client_that_does_not_read_can_still_end_its_processes,
    // extensions
    what_nobody_asked_for_is_off,
    records_come_with_starts_and_ends,
    output_comes_within_credit_and_waits_for_no_other_process,
    a_run_in_a_persons_words_has_their_rules,
    names_that_are_reserved_for_a_sandbox_are_no_news,
    // environment
    configuration_is_read_under_the_sandbox_that_a_request_carries,
    configuration_has_bounds,
    skills_are_looked_for_under_the_sandbox_that_a_request_carries,
    what_is_discovered_has_bounds,
    // keeping
    a_start_with_the_same_start_id_is_no_second_one,
    a_start_that_is_asked_for_again_while_it_is_under_way_is_one,
    a_process_that_is_to_end_before_it_has_begun_ends_when_it_has,
], connections: [
    output_comes_in_binary_frames,
    large_messages_come_packed,
    runs_of_others_are_listed_and_attached_to,
    a_run_is_attached_to_by_its_tail,
    a_session_that_is_taken_over_tells_its_old_owner,
    polls_of_an_owner_that_lost_its_session_are_refused,
    a_peer_that_says_nothing_does_not_keep_its_session,
    what_a_resumed_client_missed_comes_once,
], large: [
    ten_thousand_requests_in_flight_are_all_answered,
    ten_thousand_long_polls_are_all_answered,
    a_message_above_the_limit_is_refused_under_its_id,
    a_gap_is_told_and_what_follows_it_is_there,
    a_page_of_a_list_has_a_bound,
] }
