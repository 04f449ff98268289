//! Who belongs to the family of a program, and what each of them does.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::sync::mpsc::Sender;

use crate::call::Call;
use crate::ptrace::{self, Happened};
use crate::{Deeds, Milestone, Place, Task};

/// A process of the family.
#[derive(Debug, Default)]
struct Member {
    place: Place,
    children: usize,
    /// Calls of all its threads.
    steps: usize,
    /// What it is named, until it becomes another program.
    name: Option<String>,
}

/// Follows a family to its end, or to the kill.
#[derive(Debug)]
pub(crate) struct Follower {
    program: i32,
    task: Task,
    /// Whether the program is itself by now, and not what led to it.
    begun: bool,
    /// By process id.
    members: HashMap<i32, Member>,
    /// The process of each thread.
    threads: HashMap<i32, i32>,
    /// Threads that stopped before anybody said whose they are.
    early: HashSet<i32>,
    pub(crate) killed: bool,
    pub(crate) seen: BTreeMap<Place, Deeds>,
    pub(crate) status: Option<i32>,
}

type Failed = (&'static str, io::Error);

impl Follower {
    pub(crate) fn new(program: i32, task: Task) -> Self {
        Self {
            program,
            task,
            begun: false,
            members: HashMap::from([(program, Member::default())]),
            threads: HashMap::from([(program, program)]),
            early: HashSet::new(),
            killed: false,
            seen: BTreeMap::new(),
            status: None,
        }
    }

    /// Follows until somebody was killed or nobody is left.
    pub(crate) fn run(&mut self, milestones: &Sender<Milestone>) -> Result<(), Failed> {
        while let Some((thread, happened)) = ptrace::wait().map_err(|error| ("wait", error))? {
            let go_on = |quick, signal| {
                ptrace::resume(thread, quick, signal).map_err(|error| ("let a process go on", error))
            };
            let Some(&process) = self.threads.get(&thread) else {
                // Its parent's word is on its way. One that ended before has been waited for.
                if !matches!(happened, Happened::Ends(_)) {
                    self.early.insert(thread);
                }
                continue;
            };
            match happened {
                Happened::Enters => {
                    self.enters(process, thread);
                    if self.is_time(process) {
                        ptrace::kill(process).map_err(|error| ("kill a process", error))?;
                        self.killed = true;
                        return Ok(());
                    }
                    if self.begun {
                        self.count(process);
                    }
                    go_on(self.is_quick(process), 0)?;
                }
                Happened::Goes => go_on(self.is_quick(process), 0)?,
                Happened::Starts(new) => {
                    self.adopt(process, new);
                    go_on(self.is_quick(process), 0)?;
                }
                Happened::Executes => {
                    self.begun |= process == self.program;
                    if let Some(member) = self.members.get_mut(&process) {
                        member.name = None;
                    }
                    go_on(self.is_quick(process), 0)?;
                }
                Happened::Gets(signal) => go_on(self.is_quick(process), signal)?,
                Happened::Ends(status) => {
                    self.threads.remove(&thread);
                    if thread == self.program {
                        self.status = Some(status);
                        // Nobody may be waiting for it.
                        let _ = milestones.send(Milestone::ProgramEnded);
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes a new process or thread of `process` into the family.
    fn adopt(&mut self, process: i32, new: i32) {
        // A thread belongs to the process that its status names (proc_pid_status(5)).
        let of = group(new).unwrap_or(new);
        self.threads.insert(new, of);
        if of == new
            && let Some(parent) = self.members.get_mut(&process)
        {
            let mut place = parent.place.clone();
            place.push(parent.children);
            parent.children += 1;
            self.members.insert(new, Member { place, ..Member::default() });
        }
        if self.early.remove(&new) {
            // It may be gone by now.
            let _ = ptrace::resume(new, self.is_quick(of), 0);
        }
    }

    /// Whether nobody is interested in its calls.
    fn is_quick(&self, process: i32) -> bool {
        match &self.task {
            Task::Survey => false,
            Task::Kill { place, .. } => {
                self.members.get(&process).is_none_or(|member| member.place != *place)
            }
        }
    }

    fn is_time(&self, process: i32) -> bool {
        let Task::Kill { place, step } = &self.task else { return false };
        self.begun
            && self
                .members
                .get(&process)
                .is_some_and(|member| member.place == *place && member.steps == *step)
    }

    fn count(&mut self, process: i32) {
        if let Some(member) = self.members.get_mut(&process) {
            member.steps += 1;
        }
    }

    fn enters(&mut self, process: i32, thread: i32) {
        if self.task != Task::Survey || !self.begun {
            return;
        }
        let Some(member) = self.members.get_mut(&process) else { return };
        let name = member.name.get_or_insert_with(|| {
            let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
            name.trim_end().to_owned()
        });
        if let Some((number, arguments)) = ptrace::entered(thread) {
            let step = (Call::new(number, arguments), name.clone());
            self.seen.entry(member.place.clone()).or_default().steps.push(step);
        }
    }
}

/// The process of a thread.
fn group(thread: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
}
