//! A mount namespace in memory: applies a plan's operations in order and says what a path then allows.
//!
//! Deliberately simple-minded and written against the meaning of [`MountOp`], not against the code that makes
//! them: the last operation that covers a path decides. Also checks what an executor could not do, such as
//! binding onto nothing.

use sandbar_proto::{AbsPath, BindAccess, LinuxSandbox, MountOp, PathGlob, TmpfsAccess};

use crate::Access;

pub(crate) struct Simulator {
    layers: Vec<(AbsPath, Layer)>,
    globs: Vec<PathGlob>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Host(Access),
    /// The host's below a private copy-on-write layer.
    Overlay,
    /// What the host has there is gone; a command may make something of its own, or not.
    Remade(Access),
    /// Made by the plan inside a remade directory, to carry a mount.
    Made,
}

impl Layer {
    fn has_host(self) -> bool {
        match self {
            Self::Host(_) | Self::Overlay => true,
            Self::Remade(_) | Self::Made => false,
        }
    }
}

impl Simulator {
    pub(crate) fn new(sandbox: &LinuxSandbox) -> Self {
        let root = vec![(AbsPath::root(), Layer::Host(Access::Read))];
        let mut made = Self { layers: root, globs: sandbox.globs.clone() };
        for cache in &sandbox.caches {
            made.layers.push((cache.target.path.clone(), Layer::Overlay));
        }
        for operation in &sandbox.mounts {
            made.apply(operation);
        }
        for placeholder in &sandbox.placeholders {
            let at = placeholder.parent.path.join(placeholder.name.as_bytes()).unwrap();
            assert_eq!(made.top(&at).1, Layer::Host(Access::Write), "{at:?} needs no reservation");
            made.layers.push((at, Layer::Host(Access::Read)));
        }
        made
    }

    fn apply(&mut self, operation: &MountOp) {
        match operation {
            MountOp::Bind { source, target, access } => {
                assert_eq!(source.path, *target, "nothing is shown elsewhere than where it is");
                let (at, layer) = self.top(target);
                let exists = layer.has_host() || (layer == Layer::Made && at == *target);
                assert!(exists, "{target:?} is bound onto nothing");
                let access = match access {
                    BindAccess::Read => Access::Read,
                    BindAccess::Write => Access::Write,
                };
                self.layers.push((target.clone(), Layer::Host(access)));
            }
            MountOp::Mask { target, .. } => {
                assert!(self.top(&target.path).1.has_host(), "{target:?} is not there to mask");
                self.layers.push((target.path.clone(), Layer::Remade(Access::None)));
            }
            MountOp::Tmpfs { target, access, .. } => {
                let access = match access {
                    TmpfsAccess::Read => Access::None,
                    TmpfsAccess::Write => Access::Write,
                };
                self.layers.push((target.clone(), Layer::Remade(access)));
            }
            MountOp::MakeDir { path, .. }
            | MountOp::MakeFile { path, .. }
            | MountOp::Symlink { path, .. } => {
                let (_, layer) = self.top(path);
                assert!(!layer.has_host(), "{path:?} would be made on the host");
                self.layers.push((path.clone(), Layer::Made));
            }
            MountOp::Proc => self.remake("/proc", Access::Read),
            MountOp::Dev => {
                self.remake("/dev", Access::Write);
                self.remake("/dev/shm", Access::Write);
            }
        }
    }

    fn remake(&mut self, at: &str, access: Access) {
        self.layers.push((AbsPath::new(at).unwrap(), Layer::Remade(access)));
    }

    fn top(&self, path: &AbsPath) -> (AbsPath, Layer) {
        let (at, layer) = self.layers.iter().rev().find(|(at, _)| path.starts_with(at)).unwrap();
        (at.clone(), *layer)
    }

    /// What `path` allows in the end.
    pub(crate) fn access(&self, path: &AbsPath) -> Access {
        // The keeper covers what comes to be where the mounts show the host's.
        let (top, layer) = self.top(path);
        if layer.has_host()
            && self.globs.iter().any(|glob| glob.deepest(path).is_some_and(|at| at > top.depth()))
        {
            return Access::None;
        }
        let mut layers = self.layers.iter().rev().filter(|(at, _)| path.starts_with(at));
        layers
            .find_map(|(_, layer)| match layer {
                Layer::Host(access) | Layer::Remade(access) => Some(*access),
                Layer::Overlay => Some(Access::Write),
                Layer::Made => None,
            })
            .unwrap()
    }

    /// Every directory that a command could rename on the host to get what lies below it out of a mount's way.
    pub(crate) fn renamable_above_mounts(&self) -> Vec<AbsPath> {
        let mounts = self.layers.iter().filter(|(_, layer)| *layer != Layer::Made).map(|(at, _)| at);
        let above = mounts.flat_map(|at| std::iter::successors(at.parent(), AbsPath::parent));
        let mut found: Vec<AbsPath> = above.filter(|at| self.can_rename(at)).collect();
        found.sort();
        found.dedup();
        found
    }

    fn can_rename(&self, path: &AbsPath) -> bool {
        let is_mount_point = self.layers.iter().any(|(at, layer)| at == path && *layer != Layer::Made);
        let writes_host = |parent: AbsPath| self.top(&parent).1 == Layer::Host(Access::Write);
        !is_mount_point && path.parent().is_some_and(writes_host)
    }
}
