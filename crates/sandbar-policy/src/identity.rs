//! Who the command is inside.
//!
//! An unprivileged caller maps itself and nobody else. A privileged one maps every id it has, and in a workspace
//! of another user the command runs as that user: files it makes then belong to the person whose workspace it is.

use sandbar_proto::{AbsPath, ByteString, EnvVar, FileFact, HostFacts, IdRange, Identity, RunAs};

use crate::grants::Draft;
use crate::reader::Reader;
use crate::{Note, RunRequest};

/// The user that a command runs as instead of the caller.
pub(crate) struct Subject {
    pub(crate) run_as: RunAs,
    name: Option<ByteString>,
    pub(crate) home: Option<AbsPath>,
}

/// Finds the owner of `place`, when the caller is root and the owner another user.
pub(crate) fn subject(draft: &mut Draft<'_>, place: &FileFact) -> Option<Subject> {
    let host = draft.reader.host();
    if host.uid != 0 || place.uid == 0 {
        return None;
    }
    let user = draft.reader.user(place.uid);
    let own_group = user.as_ref().map(|user| user.gid).filter(|gid| contains(&host.groups, *gid));
    let gid = own_group.unwrap_or(place.gid);
    let owner_of = place.pinned.path.clone();
    if !may_map(draft.request, host) || !contains(&host.users, place.uid) || !contains(&host.groups, gid) {
        draft.notes.push(Note::OwnerNotMapped { uid: place.uid, owner_of });
        return None;
    }
    let name = user.as_ref().map(|user| user.name.clone());
    draft.notes.push(Note::RunsAs { name: name.clone(), uid: place.uid, owner_of });
    let home = user.and_then(|user| AbsPath::new(user.home.clone()).ok());
    Some(Subject { run_as: RunAs { uid: place.uid, gid }, name, home })
}

/// Whether the executor can map other ids than the caller's own.
fn may_map(request: &RunRequest, host: &HostFacts) -> bool {
    host.may_map_ids && !request.executor.is_stand_in()
}

fn contains(ranges: &[IdRange], id: u32) -> bool {
    ranges.iter().any(|range| id >= range.first && id - range.first < range.count)
}

/// The identity for a plan.
pub(crate) fn identity(request: &RunRequest, reader: &Reader<'_>, subject: Option<&Subject>) -> Identity {
    let host = reader.host();
    if may_map(request, host) {
        let run_as = subject.map(|subject| subject.run_as);
        return Identity { users: host.users.clone(), groups: host.groups.clone(), run_as };
    }
    let only = |first| vec![IdRange { first, count: 1 }];
    Identity { users: only(host.uid), groups: only(host.gid), run_as: None }
}

/// Replaces `HOME`, `USER` and `LOGNAME` by those of `subject` where they are the caller's or unset.
pub(crate) fn adopt(draft: &Draft<'_>, subject: &Subject, env: &mut Vec<EnvVar>) {
    let caller = draft.reader.user(0);
    let caller_home = caller.as_ref().map(|user| user.home.as_bytes());
    let caller_name = caller.as_ref().map(|user| user.name.as_bytes());
    let asked_home = draft.request.home.as_ref().map(AbsPath::as_bytes);
    if let Some(home) = &subject.home {
        replace(env, "HOME", &[caller_home, asked_home, Some(b"/root")], home.as_bytes());
    }
    if let Some(name) = &subject.name {
        replace(env, "USER", &[caller_name, Some(b"root")], name.as_bytes());
        replace(env, "LOGNAME", &[caller_name, Some(b"root")], name.as_bytes());
    }
}

fn replace(env: &mut Vec<EnvVar>, name: &str, replaceable: &[Option<&[u8]>], value: &[u8]) {
    match env.iter_mut().find(|var| var.name.as_bytes() == name.as_bytes()) {
        Some(var) if replaceable.contains(&Some(var.value.as_bytes())) => var.value = value.into(),
        Some(_) => {}
        None => env.push(EnvVar { name: name.into(), value: value.into() }),
    }
}
