//! What Codex 0.169's clients may count on, from both servers.

mod configuration;
mod discovery;
mod files;
mod first_messages;
mod input;
mod output;
mod sessions;
mod start;

use super::over;

pub(super) use configuration::*;
pub(super) use discovery::*;
pub(super) use files::*;
pub(super) use first_messages::*;
pub(super) use input::*;
pub(super) use output::*;
pub(super) use sessions::*;
pub(super) use start::*;

/// Cases for every way there is; for those where a connection can be dropped, since over standard streams the peer falls
/// silent instead; for those where several connections reach one server; and for those where something is installed before
/// the server starts, which is when the peer looks for it.
macro_rules! everywhere {
    (
        [$($case:ident),* $(,)?],
        dropping: [$($dropping:ident),* $(,)?],
        connections: [$($several:ident),* $(,)?],
        installed: [$($installed:ident),* $(,)?]
    ) => {
        over!(stdio, $crate::server::Over::Stdio, dialect, [$($case,)* $($dropping,)* $($installed),*]);
        over!(unix, $crate::server::Over::Unix, dialect, [$($case,)* $($dropping,)* $($several,)* $($installed),*]);
        over!(token, $crate::server::Over::Token, dialect, [$($case,)* $($dropping,)* $($several),*]);
        over!(open, $crate::server::Over::Open, dialect, [$($case,)* $($dropping,)* $($several),*]);
        over!(tls, $crate::server::Over::Tls, dialect, [$($case,)* $($dropping,)* $($several),*]);
        over!(restarted, $crate::server::Over::Restarted, dialect, [$($case,)* $($dropping,)* $($several),*]);
        over!(codex, $crate::server::Over::Codex, dialect, [$($case,)* $($dropping,)* $($several),*]);
        over!(codex_stdio, $crate::server::Over::CodexStdio, dialect, [$($case,)* $($installed),*]);
    };
}

everywhere! {[
    // first_messages
    the_first_messages_have_an_order,
    a_failed_initialize_may_be_tried_again,
    what_cannot_be_read_is_refused_and_the_connection_goes_on,
    ids_may_be_texts_and_members_that_nobody_knows_are_ignored,
    nothing_says_jsonrpc_and_errors_come_before_their_ids,
    an_unknown_method_has_a_code,
    the_environment_is_described,
    // start
    a_command_runs_and_its_events_are_numbered_without_a_gap,
    starts_that_fail_have_codes_and_leave_the_name_free,
    a_name_is_taken_as_long_as_it_is_remembered,
    names_may_be_empty_and_long,
    a_program_is_found_on_the_path_of_its_own_environment,
    without_a_policy_the_environment_is_exact,
    with_a_policy_the_overlay_wins_over_everything,
    a_policy_has_all_five_fields,
    a_process_has_a_session_of_its_own_and_nothing_of_the_server,
    a_process_sees_the_name_that_the_client_gave_it,
    a_terminal_has_24_rows_and_80_columns,
    paths_are_uris,
    // output
    a_read_tells_the_same_as_the_notifications,
    a_read_gives_at_least_one_chunk_and_tells_where_it_stopped,
    a_long_poll_returns_when_something_happens,
    a_long_poll_returns_at_its_deadline,
    a_poll_between_exit_and_close_waits,
    an_exit_does_not_wait_for_grandchildren_and_a_close_does,
    reads_of_unknown_processes_are_refused,
    output_of_many_processes_stays_apart,
    // input
    input_arrives_once_for_each_write_id,
    writes_say_what_became_of_them,
    what_is_no_base64_is_refused,
    an_interrupt_reaches_a_process_that_handles_it,
    terminate_kills_at_once_and_says_whether_anything_ran,
    a_terminal_echoes_and_takes_an_end_of_file,
    // files
    a_file_is_written_and_read_back,
    what_is_missing_has_a_code_of_its_own,
    metadata_tells_links_from_what_they_lead_to,
    directories_are_made_listed_and_removed,
    copies_take_trees_and_leave_links_links,
    handles_read_and_write_blocks,
    handles_are_bounded_and_their_names_unique,
    a_walk_has_bounds_and_leaves_links_out,
    a_watch_tells_once_that_what_was_missing_is_there,
    only_regular_files_are_read,
    paths_become_canonical,
    // configuration
    configuration_tells_only_what_is_asked_for,
    only_projects_that_the_user_trusts_configure,
    configuration_that_cannot_be_read_is_an_error,
    // discovery
    skills_are_found_where_they_are_installed,
    a_skill_that_cannot_be_read_hides_no_other,
    // sessions
    an_unknown_session_is_refused,
], dropping: [
    initialized_before_initialize_is_answered_by_hanging_up,
    an_unknown_notification_is_answered_by_hanging_up,
    an_answer_to_nothing_is_answered_by_hanging_up,
], connections: [
    an_attached_session_is_not_given_to_another_connection,
    a_resumed_session_goes_on_where_it_was,
    handles_end_with_their_connection,
], installed: [
    plugins_are_found_in_their_newest_version,
    a_plugin_leads_nowhere_outside_of_itself,
] }
