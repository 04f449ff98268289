//! Roles that this program plays for itself, told by `argv[0]` or `argv[1]`.
//!
//! Looked at before argument parsing and before any thread. A role's name is never a subcommand: nobody types it.

use std::ffi::OsStr;
use std::process::ExitCode;

use sandbar_files::{HELPER_ARGUMENT as FILES_ARGUMENT, helper_main as files_main};
use sandbar_keeper::{ATTENDANT_ARGUMENT, KEEPER_ARGUMENT, keeper_main};
use sandbar_sandbox::{HOLDER_ARGUMENT, holder_main};

/// Runs the role that the arguments name, if they name one.
pub(crate) fn helper() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    let name = arguments.next()?;
    let name = std::path::Path::new(&name).file_name().unwrap_or_default().to_owned();
    match role(&name, arguments.next().as_deref())? {
        Role::Keeper => Some(code(keeper_main())),
        Role::Attendant => Some(code(crate::attend::main())),
        Role::Files => Some(code(files_main())),
        Role::Holder => Some(code(holder_main())),
    }
}

/// A role other than the command line's.
#[derive(Debug, PartialEq, Eq)]
enum Role {
    /// The keeper.
    Keeper,
    /// The one that records what nobody else records.
    Attendant,
    /// The one that touches files inside a sandbox.
    Files,
    /// The one that holds a command inside a sandbox that another program made.
    Holder,
}

fn role(_argv0: &OsStr, argv1: Option<&OsStr>) -> Option<Role> {
    let roles = [
        (KEEPER_ARGUMENT, Role::Keeper),
        (ATTENDANT_ARGUMENT, Role::Attendant),
        (FILES_ARGUMENT, Role::Files),
        (HOLDER_ARGUMENT, Role::Holder),
    ];
    let argument = argv1?;
    roles.into_iter().find(|(name, _)| argument == *name).map(|(_, role)| role)
}

fn code(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_told_by_its_first_argument_and_nothing_else() {
        let keeper = role(OsStr::new("sandbar-keeper"), Some(OsStr::new(KEEPER_ARGUMENT)));
        assert_eq!(keeper, Some(Role::Keeper));
        let attendant = role(OsStr::new("sandbar-attendant"), Some(OsStr::new(ATTENDANT_ARGUMENT)));
        assert_eq!(attendant, Some(Role::Attendant));
        let files = role(OsStr::new("sandbar"), Some(OsStr::new(FILES_ARGUMENT)));
        assert_eq!(files, Some(Role::Files));
        assert_eq!(role(OsStr::new("sandbar"), Some(OsStr::new("run"))), None);
        assert_eq!(role(OsStr::new("sandbar"), None), None);
    }
}
