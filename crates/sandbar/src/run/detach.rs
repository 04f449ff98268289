//! `sandbar run --detach`: the run is started, its id is told, and we leave.
//!
//! Its record goes over to the attendant, whom the keeper starts when we let go of it.

use std::path::Path;

use sandbar_exec::Process;

use super::record::Record;
use crate::cli::RunArgs;
use crate::dirs::Directories;
use crate::json::Line;
use crate::output;
use crate::render::{Problem, note};

/// Leaves a run that was just started.
///
/// # Errors
/// Its id can't be told. It runs all the same.
pub(super) async fn leave(
    args: &RunArgs,
    process: Box<dyn Process>,
    mut record: Record,
) -> Result<u8, Problem> {
    // Closed first: whoever goes on waits until nobody else has it open.
    if record.leave() {
        // A keeper that is gone by now has taken the run along; whoever asks for it by its id learns that.
        let _ = process.control().release().await;
    }
    if args.json {
        return output::print(Line::started(process.record()).bytes());
    }
    output::print(format!("{}\n", process.record().id))
}

/// Says so where this machine ends what a person has running when they log out.
pub(super) fn warn(args: &RunArgs, directories: &Directories) {
    let uid = rustix::process::geteuid().as_raw();
    let user = user_name(uid);
    if !args.quiet && ends_at_logout(Path::new("/"), uid, user.as_deref(), directories.own.runtime.as_path())
    {
        note(
            "this machine ends what you run when you log out, also what is detached (lingering is off; \
             `loginctl enable-linger` turns it on).",
        );
    }
}

/// Whether systemd-logind takes the runtime directory away with the user's last session. `root` is the root of the
/// file system.
fn ends_at_logout(root: &Path, uid: u32, user: Option<&str>, runtime: &Path) -> bool {
    // sd_booted(3).
    let has_systemd = root.join("run/systemd/system").is_dir();
    let lingers = user.is_some_and(|user| root.join("var/lib/systemd/linger").join(user).exists());
    has_systemd && !lingers && runtime.starts_with(format!("/run/user/{uid}"))
}

fn user_name(uid: u32) -> Option<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let mut users = passwd.lines().map(|line| line.split(':'));
    users.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_needs_systemd_a_runtime_directory_of_its_own_and_no_lingering() {
        let root = tempfile::tempdir().unwrap();
        let ends = |runtime: &str| ends_at_logout(root.path(), 1000, Some("ada"), Path::new(runtime));
        assert!(!ends("/run/user/1000/sandbar"));
        std::fs::create_dir_all(root.path().join("run/systemd/system")).unwrap();
        assert!(ends("/run/user/1000/sandbar"));
        assert!(!ends("/home/ada/.sandbar/run") && !ends("/run/user/10001/sandbar"));
        std::fs::create_dir_all(root.path().join("var/lib/systemd/linger/ada")).unwrap();
        assert!(!ends("/run/user/1000/sandbar"));
    }

    #[test]
    fn root_has_a_name_on_every_machine() {
        assert_eq!(user_name(0).as_deref(), Some("root"));
    }
}
