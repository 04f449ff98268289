//! What this process's standard streams are, and which of them a command may simply have.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, OFlags};

/// Device number of /dev/null.
const NULL_DEVICE: (u32, u32) = (1, 3);

/// What a descriptor is, as far as handing it over goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A pipe, a socket or /dev/null: harmless in any sandbox.
    Harmless,
    /// A regular file, which Landlock keeps from being opened anew.
    File,
    /// A terminal.
    Terminal,
    /// Anything else: a directory, a device, a place. It is relayed.
    Other,
    /// It is not open.
    Closed,
}

/// What `fd` is.
pub(crate) fn kind(fd: impl AsFd) -> Kind {
    let Ok(stat) = rustix::fs::fstat(&fd) else { return Kind::Closed };
    if rustix::fs::fcntl_getfl(&fd).is_ok_and(|flags| flags.contains(OFlags::PATH)) {
        return Kind::Other;
    }
    let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo | FileType::Socket => Kind::Harmless,
        FileType::CharacterDevice if device == NULL_DEVICE => Kind::Harmless,
        FileType::CharacterDevice if rustix::termios::isatty(&fd) => Kind::Terminal,
        FileType::RegularFile => Kind::File,
        FileType::CharacterDevice
        | FileType::Directory
        | FileType::Symlink
        | FileType::BlockDevice
        | FileType::Unknown => Kind::Other,
    }
}

impl Kind {
    /// Whether a command may have the descriptor itself.
    pub(crate) fn may_be_direct(self, landlock: bool) -> bool {
        match self {
            Self::Harmless => true,
            Self::File => landlock,
            Self::Terminal | Self::Other | Self::Closed => false,
        }
    }
}

/// A descriptor of our own for one of the standard streams.
///
/// # Errors
/// Out of descriptors.
pub(crate) fn duplicate(fd: BorrowedFd<'_>) -> std::io::Result<OwnedFd> {
    fd.try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_told_apart() {
        let (read, _write) = rustix::pipe::pipe().unwrap();
        assert_eq!(kind(&read), Kind::Harmless);
        assert_eq!(kind(std::fs::File::open("/dev/null").unwrap()), Kind::Harmless);
        assert_eq!(kind(std::fs::File::open("/dev/zero").unwrap()), Kind::Other);
        assert_eq!(kind(std::fs::File::open("/").unwrap()), Kind::Other);
        assert_eq!(kind(tempfile::tempfile().unwrap()), Kind::File);
    }

    #[test]
    fn a_file_is_handed_over_only_behind_landlock() {
        assert!(Kind::File.may_be_direct(true) && !Kind::File.may_be_direct(false));
        assert!(!Kind::Terminal.may_be_direct(true));
    }
}
