//! From a request and facts to a launch plan.
//!
//! A function without input or output: when it lacks facts it says which, and the caller calls again with their
//! answers. It asks for as many as it can foresee, so a plain workspace takes two or three rounds and the worst
//! repository (a linked worktree with nested submodules behind a symlinked path) stays within
//! [`Step::MAX_ROUNDS`].

use sandbar_proto::{
    AbsPath, EnvVar, Executor, FactQuery, Facts, FileFact, FileKind, LandlockAccess, LandlockRule,
    LandlockSpec, LaunchSpec, LinuxSandbox, NetworkMode, PinnedPath, Sandbox,
};

use crate::git::{self, Scope, WatchedIndex};
use crate::grants::{ALLOW_READ, ALLOW_WRITE, Draft, Grant, GrantKind, Root, settle};
use crate::identity::{self, Subject};
use crate::managed;
use crate::mounts::{Arrangement, Shown, arrange};
use crate::paths::below;
use crate::reader::{Found, Reader};
use crate::{
    Access, CompileError, Confinement, Entry, EntryPath, Note, Origin, PathProblem, Permissions,
    ProcessCount, Profile, Reads, RunRequest, StricterBecause, caches, carve, executor, landlock, limits,
    lines, own, secrets, syscalls, workspace,
};

/// Everything a keeper needs to start a process, made by policy and by nobody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchPlan(LaunchSpec);

impl LaunchPlan {
    /// The plain data.
    #[must_use]
    pub fn spec(&self) -> &LaunchSpec {
        &self.0
    }

    /// Gives the plain data up, for the way to the keeper.
    #[must_use]
    pub fn into_spec(self) -> LaunchSpec {
        self.0
    }
}

/// A plan and what to tell about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// What to start.
    pub plan: LaunchPlan,
    /// What it may touch.
    pub permissions: Permissions,
    /// The same in no platform's words, unless it may touch everything.
    pub confinement: Option<Confinement>,
    /// The network it has.
    pub network: NetworkMode,
    /// What a person should know.
    pub notes: Vec<Note>,
    /// Git indexes to look at again after the run, see [`WatchedIndex`].
    pub watched: Vec<WatchedIndex>,
}

/// How far [`compile`] came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// These facts are needed; call again when they are there. Never empty.
    Need(Vec<FactQuery>),
    /// Done.
    Ready(Box<Compiled>),
}

impl Step {
    /// More rounds than any file system needs; a caller that exceeds them has a host that changes its answers.
    pub const MAX_ROUNDS: usize = 24;
}

/// Compiles `request` with what is known of the host.
///
/// # Errors
/// [`CompileError`] when the request cannot be met as asked; nothing weaker is made of it.
pub fn compile(request: &RunRequest, facts: &Facts) -> Result<Step, CompileError> {
    let reader = Reader::new(facts);
    let outcome = plan(request, &reader);
    let missing = reader.into_missing();
    // The outcome is worth nothing if a guess went into it, be it a plan or an error.
    if missing.is_empty() { outcome.map(|done| Step::Ready(Box::new(done))) } else { Ok(Step::Need(missing)) }
}

fn plan(request: &RunRequest, reader: &Reader<'_>) -> Result<Compiled, CompileError> {
    // An empty name is what a shell makes of "$UNSET"; no search could find it.
    if request.argv.first().is_none_or(|program| program.as_bytes().is_empty()) {
        return Err(CompileError::EmptyCommand);
    }
    let cwd = working_directory(request, reader)?;
    match request.profile {
        Profile::External | Profile::DangerFullAccess => unconfined(request, reader, &cwd),
        Profile::ReadOnly | Profile::Workspace => confined(request, reader, &cwd),
    }
}

fn working_directory(request: &RunRequest, reader: &Reader<'_>) -> Result<FileFact, CompileError> {
    let failed = |problem| CompileError::Cwd { path: request.cwd.clone(), problem };
    let fact = reader.resolve_or_guess(&request.cwd).map_err(failed)?;
    if fact.pinned.identity.kind == FileKind::Directory {
        Ok(fact)
    } else {
        Err(failed(PathProblem::NotADirectory))
    }
}

fn unconfined(request: &RunRequest, reader: &Reader<'_>, cwd: &FileFact) -> Result<Compiled, CompileError> {
    let everything = Entry {
        pattern: EntryPath::Path(AbsPath::root()),
        access: Access::Write,
        origin: request.base_origin(),
    };
    Ok(Compiled {
        plan: launch(request, reader, &cwd.pinned, request.env.clone(), Sandbox::None)?,
        permissions: Permissions::new(vec![everything]),
        confinement: None,
        network: request.network.unwrap_or(request.profile.network()),
        notes: (request.profile == Profile::External).then_some(Note::ReliesOnOthers).into_iter().collect(),
        watched: Vec::new(),
    })
}

fn launch(
    request: &RunRequest,
    reader: &Reader<'_>,
    cwd: &PinnedPath,
    env: Vec<EnvVar>,
    sandbox: Sandbox,
) -> Result<LaunchPlan, CompileError> {
    let count = match &sandbox {
        Sandbox::None => ProcessCount::OfUser,
        // It stands in the caller's user namespace, where the kernel counts all of the user's processes.
        Sandbox::Linux(sandbox) if matches!(sandbox.executor, Executor::Landlock { .. }) => {
            ProcessCount::OfUser
        }
        Sandbox::Linux(sandbox) => {
            let host = reader.host();
            let uid = sandbox.identity.run_as.map_or(host.uid, |subject| subject.uid);
            ProcessCount::sandboxed(uid, host)
        }
    };
    let mut attributes = request.attributes.clone();
    let enforced = limits::enforce(&request.limits, reader.limits(), count, &mut attributes)
        .map_err(|(limit, obstacle)| CompileError::Limit { limit, obstacle })?;
    Ok(LaunchPlan(LaunchSpec {
        argv: request.argv.clone(),
        arg0: request.arg0.clone(),
        cwd: cwd.clone(),
        env,
        stdio: request.stdio,
        terminal: request.terminal.clone(),
        attributes,
        limits: request.limits,
        enforced,
        lifetime: request.lifetime,
        after_leader: request.after_leader,
        retention_bytes: request.retention_bytes,
        profile: request.profile_name().to_owned(),
        sandbox,
    }))
}

fn confined(request: &RunRequest, reader: &Reader<'_>, cwd: &FileFact) -> Result<Compiled, CompileError> {
    if request.within.nesting && reader.host().uid == 0 {
        return Err(CompileError::NestingAsRoot);
    }
    let mut draft = begin(request, reader);
    let homes_of_caller = homes(&draft, None);
    own::hide(&mut draft, &homes_of_caller);
    let private = remake_directories(&mut draft);
    reopen_run(&mut draft);
    let cwd_root = cwd_root(&mut draft, cwd)?;
    let mut allowed = allowed_roots(&mut draft)?;
    allowed.extend(lines::roots(&mut draft)?);
    grant_roots(&mut draft, cwd, cwd_root.as_ref(), &allowed)?;
    let place = cwd_root.as_ref().or(allowed.first()).map_or(cwd, |root| &root.fact);
    let subject = identity::subject(&mut draft, place);
    let mut env = request.env.clone();
    let homes = homes(&draft, subject.as_ref());
    own::hide_below(&mut draft, &homes);
    for root in cwd_root.iter().chain(&allowed) {
        // Only here is known whose home belongs to the run.
        own::refuse(&draft, &root.fact.pinned.path)?;
    }
    secrets::hide(&mut draft, &homes);
    allow_reads(&mut draft)?;
    lines::system_links(&mut draft);
    lines::restrict(&mut draft)?;
    carve::out(&mut draft)?;
    if let Some(subject) = &subject {
        identity::adopt(&draft, subject, &mut env);
    }
    // The last home is that of the user the command runs as. Where only named places are seen, caches are not among them.
    if let (Some(home), Reads::Everything) = (homes.last(), &request.reads) {
        let private = private.iter().rev().find(|path| caches::may_redirect_to(&draft, path));
        caches::add(&mut draft, home, &env, private);
    }
    env.append(&mut draft.redirects);
    env.sort();
    finish(draft, cwd, subject.as_ref(), env)
}

fn begin<'a>(request: &'a RunRequest, reader: &'a Reader<'a>) -> Draft<'a> {
    let home = request.home.as_ref().map(|home| reader.real(home));
    Draft {
        request,
        reader,
        home,
        git_homes: Vec::new(),
        problem: None,
        own: Vec::new(),
        grants: Vec::new(),
        notes: request.notes.clone(),
        redirects: Vec::new(),
        made: Vec::new(),
        watched: Vec::new(),
        globs: Vec::new(),
    }
}

const TEMPORARY: Origin = Origin::Default("private temporary directory");
const HOST_SOCKETS: Origin = Origin::Default("sockets of the host");
const NAME_RESOLUTION: Origin = Origin::Default("name resolution");

/// Remakes temporary directories and hides those of host sockets. Returns the temporary ones.
fn remake_directories(draft: &mut Draft<'_>) -> Vec<AbsPath> {
    let mut private = Vec::new();
    // Without mounts nothing stands in their place; the run's own directory is elsewhere.
    let has_mounts = !draft.request.executor.is_landlock();
    for name in ["/tmp", "/var/tmp"] {
        let kind = if has_mounts { GrantKind::Private } else { GrantKind::Sealed };
        let made = remake(draft, &below(&AbsPath::root(), name), kind, TEMPORARY);
        private.extend(made.filter(|_| has_mounts));
    }
    let sockets = ["/run", "/var/run"].map(|name| below(&AbsPath::root(), name));
    for path in sockets.iter().chain(&draft.request.runtime_roots) {
        remake(draft, path, GrantKind::Sealed, HOST_SOCKETS);
    }
    private
}

fn remake(draft: &mut Draft<'_>, path: &AbsPath, kind: GrantKind, origin: Origin) -> Option<AbsPath> {
    let Found::File(fact) = draft.reader.resolve(path) else { return None };
    let real = &fact.pinned;
    if real.identity.kind != FileKind::Directory || real.path == AbsPath::root() {
        return None;
    }
    draft.grant(real, kind, origin);
    Some(real.path.clone())
}

/// Shows what programs need of the hidden `/run`: the resolver's configuration, and where NixOS keeps programs.
fn reopen_run(draft: &mut Draft<'_>) {
    let run = below(&AbsPath::root(), "run");
    if let Found::File(fact) = draft.reader.resolve(&below(&AbsPath::root(), "etc/resolv.conf"))
        && fact.pinned.path.starts_with(&run)
        && fact.pinned.identity.kind == FileKind::File
    {
        draft.grant(&fact.pinned, GrantKind::Read, NAME_RESOLUTION);
    }
    for name in ["current-system", "opengl-driver"] {
        let link = below(&run, name);
        if let Found::File(fact) = draft.reader.resolve(&link)
            && !fact.pinned.path.starts_with(&run)
        {
            let kind = GrantKind::Link { to: fact.pinned.path.clone() };
            draft.grants.push(Grant { path: link, identity: None, kind, origin: Origin::Default("system") });
        }
    }
}

/// The working directory as a writable root, if the profile wants it and nothing speaks against it.
fn cwd_root(draft: &mut Draft<'_>, cwd: &FileFact) -> Result<Option<Root>, CompileError> {
    let path = &cwd.pinned.path;
    own::refuse(draft, path)?;
    refuse_kernel(path)?;
    if !draft.request.profile.writes_cwd() {
        return Ok(None);
    }
    let protected = workspace::is_protected(path).then_some(StricterBecause::IsProtected);
    let system = workspace::is_of_system(path).then_some(StricterBecause::IsSystem);
    if let Some(because) = too_broad(draft, path).or(protected).or(system) {
        // Naming the directory itself is either refused below, or all that was missing.
        let is_named = draft.request.allow_write.iter().any(|named| draft.reader.real(named) == *path);
        if !is_named {
            draft.notes.push(Note::CwdNotWritable { cwd: path.clone(), because });
        }
        return Ok(None);
    }
    Ok(Some(Root { fact: cwd.clone(), origin: draft.request.base_origin() }))
}

fn too_broad(draft: &Draft<'_>, path: &AbsPath) -> Option<StricterBecause> {
    if *path == AbsPath::root() {
        return Some(StricterBecause::IsRoot);
    }
    if draft.home.as_ref().is_some_and(|home| home.starts_with(path)) {
        return Some(StricterBecause::HoldsHome);
    }
    let held = draft.own.iter().find(|own| own.starts_with(path));
    held.map(|own| StricterBecause::HoldsOwnFiles(own.clone()))
}

fn refuse_kernel(path: &AbsPath) -> Result<(), CompileError> {
    let shm = below(&AbsPath::root(), "dev/shm");
    if path.starts_with(&shm) && *path != shm {
        return Ok(());
    }
    let remade = ["/proc", "/dev"].into_iter().find(|name| path.starts_with(&below(&AbsPath::root(), name)));
    match remade {
        Some(remade) => Err(CompileError::KernelDirectory { path: path.clone(), remade }),
        None => Ok(()),
    }
}

/// Cgroups lie there, and much else that changes the machine.
fn refuse_kernel_files(path: &AbsPath) -> Result<(), CompileError> {
    if path.starts_with(&below(&AbsPath::root(), "sys")) {
        return Err(CompileError::KernelFiles { path: path.clone() });
    }
    Ok(())
}

/// Refuses to make `path`, a real one, writable because `by` says so.
///
/// # Errors
/// [`CompileError`] when it is or holds what is never opened.
pub(crate) fn refuse_root(draft: &Draft<'_>, by: &Origin, path: &AbsPath) -> Result<(), CompileError> {
    refuse_reading(draft, path)?;
    refuse_kernel_files(path)?;
    match too_broad(draft, path) {
        Some(because) => Err(CompileError::AllowedTooBroad { by: by.clone(), path: path.clone(), because }),
        None => Ok(()),
    }
}

/// Refuses to show `path`, a real one.
///
/// # Errors
/// [`CompileError::OwnFiles`], [`CompileError::KernelDirectory`].
pub(crate) fn refuse_reading(draft: &Draft<'_>, path: &AbsPath) -> Result<(), CompileError> {
    own::refuse(draft, path)?;
    refuse_kernel(path)
}

fn named(draft: &Draft<'_>, flag: &'static str, path: &AbsPath) -> Result<FileFact, CompileError> {
    let failed = |problem| CompileError::Allowed { flag, path: path.clone(), problem };
    let fact = draft.reader.resolve_or_guess(path).map_err(failed)?;
    own::refuse(draft, &fact.pinned.path)?;
    refuse_kernel(&fact.pinned.path)?;
    Ok(fact)
}

fn allowed_roots(draft: &mut Draft<'_>) -> Result<Vec<Root>, CompileError> {
    let mut roots = Vec::new();
    for path in &draft.request.allow_write {
        let fact = named(draft, ALLOW_WRITE, path)?;
        let origin = Origin::Flag(ALLOW_WRITE);
        refuse_root(draft, &origin, &fact.pinned.path)?;
        roots.push(Root { fact, origin });
    }
    for path in &draft.request.may_write {
        let Found::File(fact) = draft.reader.resolve(path) else { continue };
        let real = &fact.pinned.path;
        let is_ours = own::refuse(draft, real).is_err() || refuse_kernel(real).is_err();
        if is_ours || too_broad(draft, real).is_some() {
            draft.notes.push(Note::LeftOut { path: path.clone() });
            continue;
        }
        roots.push(Root { fact: fact.clone(), origin: Origin::profile(managed::NAME) });
    }
    Ok(roots)
}

fn grant_roots(
    draft: &mut Draft<'_>,
    cwd: &FileFact,
    cwd_root: Option<&Root>,
    allowed: &[Root],
) -> Result<(), CompileError> {
    let roots = || cwd_root.into_iter().chain(allowed);
    draft.git_homes = git_homes(draft, roots());
    // First all of them: what one names may lie in another.
    for root in roots() {
        draft.grant(&root.fact.pinned, GrantKind::Write, root.origin.clone());
    }
    for root in roots() {
        let target = &root.fact.pinned;
        workspace::protect(draft, target)?;
        let is_cwd = *target == cwd.pinned;
        if target.identity.kind == FileKind::Directory && !workspace::is_protected(&target.path) {
            git::open(draft, target, if is_cwd { Scope::Ancestors } else { Scope::Root })?;
            git::open_nested(draft, target);
        }
    }
    if roots().next().is_some() {
        git::open_named(draft, &cwd.pinned.path);
    }
    if let Some(problem) = draft.problem.take() {
        return Err(problem);
    }
    if cwd_root.is_none() {
        // Also for a directory that is readable anyway: it may lie where the sandbox has one of its own.
        draft.grant(&cwd.pinned, GrantKind::Read, draft.request.base_origin());
    }
    Ok(())
}

/// Real paths of the homes of those whose git may look at the roots later: the caller and whoever owns one.
fn git_homes<'a>(draft: &Draft<'_>, roots: impl Iterator<Item = &'a Root>) -> Vec<AbsPath> {
    let mut found = homes(draft, None);
    for root in roots {
        let owner = draft.reader.user(root.fact.uid).and_then(|user| AbsPath::new(user.home.clone()).ok());
        if let Some(home) = owner.map(|home| draft.reader.real(&home)).filter(|home| !found.contains(home)) {
            found.push(home);
        }
    }
    found
}

/// Real paths of the homes that count: the caller's as passwd(5) says, as it says itself, and that of the user the
/// command runs as. The last one is the command's own.
fn homes(draft: &Draft<'_>, subject: Option<&Subject>) -> Vec<AbsPath> {
    let reader = draft.reader;
    // HOME may have been set to something else, which hides nothing of what lies in the real one.
    let passwd = reader.user(reader.host().uid).and_then(|user| AbsPath::new(user.home.clone()).ok());
    let passwd = passwd.map(|home| reader.real(&home));
    let subject = subject.and_then(|subject| subject.home.as_ref()).map(|home| reader.real(home));
    let mut homes: Vec<AbsPath> = Vec::new();
    for home in passwd.into_iter().chain(draft.home.clone()).chain(subject) {
        homes.retain(|other| *other != home);
        homes.push(home);
    }
    homes
}

fn allow_reads(draft: &mut Draft<'_>) -> Result<(), CompileError> {
    let facts: Vec<FileFact> = draft
        .request
        .allow_read
        .iter()
        .map(|path| named(draft, ALLOW_READ, path))
        .collect::<Result<_, _>>()?;
    for fact in facts {
        // Reading takes nothing away: below something writable the flag has nothing to add.
        if !is_writable(&draft.grants, &fact.pinned.path) {
            draft.grant(&fact.pinned, GrantKind::Read, Origin::Flag(ALLOW_READ));
        }
    }
    Ok(())
}

/// Whether the host's file at `path` may be written, going by the nearest grant above it.
pub(crate) fn is_writable(grants: &[Grant], path: &AbsPath) -> bool {
    let covering = grants.iter().filter(|grant| path.starts_with(&grant.path));
    let nearest = covering.max_by_key(|grant| (grant.path.depth(), grant.access()));
    nearest.is_some_and(|grant| grant.kind == GrantKind::Write)
}

fn finish(
    mut draft: Draft<'_>,
    cwd: &FileFact,
    subject: Option<&Subject>,
    env: Vec<EnvVar>,
) -> Result<Compiled, CompileError> {
    let (request, reader) = (draft.request, draft.reader);
    landlock::give_up(&mut draft);
    let mut grants = std::mem::take(&mut draft.grants);
    // A pattern counts as long as what it covers, and at equal length none wins, whoever says otherwise.
    grants.retain(|grant| grant.hides() || !draft.globs.iter().any(|(glob, _)| glob.matches(&grant.path)));
    let settled = settle(grants);
    let cache = reader.real(&request.own.cache);
    let store = below(&cache, "sandboxed");
    let shown = match request.reads {
        Reads::Everything => Shown::Everything,
        Reads::Named { .. } => Shown::Nothing,
    };
    let mut arrangement = arrange(&settled, (shown, &draft.made), &store, reader)?;
    let network = request.network.unwrap_or(request.profile.network());
    let mut places = arrangement.places(base_origin(request));
    let globs = arrangement.live(std::mem::take(&mut draft.globs));
    if request.executor.is_landlock() {
        landlock::refuse(request, &globs)?;
        landlock::add_places(&mut places);
    }
    let confinement = Confinement::new(places, network, cwd.pinned.path.clone(), request.limits);
    let confinement = confinement.with_globs(globs);
    let permissions = confinement.permissions();
    refuse_hidden_cwd(&settled, &permissions, &cwd.pinned.path)?;
    tell(&mut draft, &settled, &permissions);
    let temporary = below(&cache, "temporary");
    let executor = executor::choose(request.executor, &request.search, reader, &settled, &temporary)?;
    let identity = identity::identity(request, reader, subject);
    let sandbox = if request.executor.is_landlock() {
        draft.notes.push(landlock::note(network));
        LinuxSandbox {
            executor,
            identity,
            network,
            landlock: Some(landlock::spec(confinement.places(), reader)?),
            mounts: Vec::new(),
            caches: Vec::new(),
            placeholders: Vec::new(),
            placeholder_pool: None,
            globs: Vec::new(),
            seccomp: syscalls::filter_without_namespaces(network, request.within),
        }
    } else {
        LinuxSandbox {
            executor,
            identity,
            network,
            landlock: landlock_layer(&mut draft, &mut arrangement),
            mounts: arrangement.mounts,
            caches: arrangement.caches,
            placeholders: arrangement.placeholders,
            placeholder_pool: Some(below(&cache, "placeholders")),
            globs: confinement.globs().iter().map(|(glob, _)| glob.clone()).collect(),
            seccomp: syscalls::command_filter(network, request.within),
        }
    };
    let plan = launch(request, reader, &cwd.pinned, env, Sandbox::Linux(Box::new(sandbox)))?;
    let (notes, watched) = (unique(draft.notes), unique(draft.watched));
    Ok(Compiled { plan, permissions, confinement: Some(confinement), network, notes, watched })
}

/// Who decides what nothing else is said about.
fn base_origin(request: &RunRequest) -> Origin {
    match &request.reads {
        Reads::Everything => request.base_origin(),
        Reads::Named { origin } => origin.clone(),
    }
}

// A root that is named twice is looked at twice.
fn unique<T: PartialEq>(items: Vec<T>) -> Vec<T> {
    let mut kept = Vec::with_capacity(items.len());
    for item in items {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    kept
}

/// Standing in a hidden directory reopens nothing of it; only naming it does.
fn refuse_hidden_cwd(
    settled: &[Grant],
    permissions: &Permissions,
    cwd: &AbsPath,
) -> Result<(), CompileError> {
    let hidden = |origin: &Origin| CompileError::CwdHidden { path: cwd.clone(), hidden_by: origin.clone() };
    if let (Access::None, Some(entry)) = permissions.access(cwd) {
        return Err(hidden(&entry.origin));
    }
    let covering = || settled.iter().filter(|grant| cwd.starts_with(&grant.path));
    let secret = covering().rfind(|grant| matches!(grant.kind, GrantKind::Hide { .. }));
    let Some(secret) = secret else { return Ok(()) };
    let is_named = covering()
        .any(|grant| matches!(grant.origin, Origin::Flag(_)) && grant.path.starts_with(&secret.path));
    if is_named { Ok(()) } else { Err(hidden(&secret.origin)) }
}

fn landlock_layer(draft: &mut Draft<'_>, arrangement: &mut Arrangement) -> Option<LandlockSpec> {
    if draft.reader.host().landlock_abi == 0 {
        draft.notes.push(Note::NoLandlock);
        return None;
    }
    if draft.request.within.nesting {
        draft.notes.push(Note::Nesting);
        return Some(LandlockSpec { min_abi: 1, rules: Vec::new(), scopes_only: true });
    }
    let mut rules =
        vec![LandlockRule { path: AbsPath::root(), identity: None, access: LandlockAccess::Read }];
    rules.append(&mut arrangement.landlock);
    Some(LandlockSpec { min_abi: 1, rules, scopes_only: false })
}

fn tell(draft: &mut Draft<'_>, settled: &[Grant], permissions: &Permissions) {
    let temporaries = ["/tmp", "/var/tmp"].map(|name| draft.reader.real(&below(&AbsPath::root(), name)));
    for path in temporaries {
        let shows_host =
            |grant: &Grant| grant.path == path && matches!(grant.kind, GrantKind::Write | GrantKind::Read);
        if settled.iter().any(shows_host) {
            draft.notes.push(Note::HostTemporaryVisible { path: path.clone() });
        }
    }
    let Some(program) = draft.request.argv.first().and_then(|program| AbsPath::new(program.clone()).ok())
    else {
        return;
    };
    if let (_, Some(entry)) = permissions.access(&program)
        && (entry.origin == TEMPORARY || entry.origin == HOST_SOCKETS)
    {
        draft.notes.push(Note::ProgramHidden { under: entry.pattern.base().clone(), program });
    }
}

#[cfg(test)]
mod tests;
