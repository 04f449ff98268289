//! Where a run without mounts has its temporary files: a directory of its own name in the sandboxed store.
//!
//! The keeper names it, and tells the plan: one more rule, and `TMPDIR`. The run's holder makes it and removes it.

use rustix::io::Errno;
use sandbar_proto::{AbsPath, EnvVar, Executor, LandlockAccess, LandlockRule, LaunchSpec, RunId, Sandbox};

use super::caches::{StoreError, make_private};

const VARIABLE: &str = "TMPDIR";

/// Gives the run `id` a directory of its own, if its plan asks for one.
///
/// # Errors
/// [`StoreError`]: the place for such directories can't be made.
pub(super) fn name(spec: &mut LaunchSpec, id: RunId) -> Result<(), StoreError> {
    let Sandbox::Linux(sandbox) = &mut spec.sandbox else { return Ok(()) };
    let Executor::Landlock { temporary } = &mut sandbox.executor else { return Ok(()) };
    let fail = |path: &AbsPath, errno| StoreError { path: path.clone(), errno };
    make_private(temporary).map_err(|errno| fail(temporary, errno))?;
    let own = temporary.join(id.to_string()).map_err(|_| fail(temporary, Errno::INVAL))?;
    if let Some(landlock) = &mut sandbox.landlock {
        let rule = LandlockRule { path: own.clone(), identity: None, access: LandlockAccess::Write };
        landlock.rules.push(rule);
    }
    spec.env.retain(|variable| variable.name.as_bytes() != VARIABLE.as_bytes());
    spec.env.push(EnvVar { name: VARIABLE.into(), value: own.as_bytes().into() });
    *temporary = own;
    Ok(())
}
