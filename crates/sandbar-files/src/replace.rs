//! Replacing a file's content, as a whole or not at all.
//!
//! New content goes into a file without a name in the target's directory, which gets the target's owner, mode and
//! attributes, is brought to disk, and takes the target's name by rename(2): whoever opens the target finds the old
//! content or the new, also when this process is killed or the power fails. Nothing is left behind in either case,
//! except that a kill between linkat(2) and rename(2), or on a file system without `O_TMPFILE`, leaves a file named
//! `.sandbar-….tmp`.
//!
//! Where that can't be done, the target is written to in place, as the dialect's own server does, unless atomicity was
//! asked for by name: where the target has other names (hard links), where nothing can be made or renamed in its
//! directory, where its owner or attributes can't be given to another file, where it is a mount point.
//!
//! Another writer is noticed only as far as a precondition asks for it, and not in the moment between the last look
//! and the rename: files have no compare-and-swap.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

use rustix::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RenameFlags, Stat, fchmod, fstat, fsync, ftruncate, linkat, openat,
    readlinkat, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use sandbar_proto::{AbsPath, FileKind};

use crate::at::{Identity, Place, kind};
use crate::attributes;
use crate::read::{Links, is_a_symlink, retry};
use crate::{ErrorKind, FileError};

/// Most symbolic links on the way to a file, as in path_resolution(7).
const MAX_LINKS: usize = 40;

/// Whether the content is replaced as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Atomicity {
    /// As a whole where that is possible, else in place.
    #[default]
    Preferred,
    /// As a whole, or it is refused.
    Required,
    /// In place, as the dialect's own server does.
    InPlace,
}

/// What must be there for a write to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Missing,
    /// A file whose content has this hash.
    Hash(blake3::Hash),
}

impl Expected {
    /// Reads `expectedHash`: 64 hexadecimal digits, or nothing for a file that must not be there.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidParams`].
    pub fn parse(text: &str) -> Result<Self, FileError> {
        if text.is_empty() {
            return Ok(Self::Missing);
        }
        let hash = blake3::Hash::from_hex(text);
        hash.map(Self::Hash).map_err(|error| {
            FileError::new(ErrorKind::InvalidParams, None, format!("expectedHash is no BLAKE3 hash: {error}"))
        })
    }
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriteOptions {
    /// Whether a symbolic link in its place is followed.
    pub links: Links,
    /// As a whole or not.
    pub atomicity: Atomicity,
    /// Refuse with [`ErrorKind::Changed`] unless this is there.
    pub expected: Option<Expected>,
    /// Permission bits of a file that is made, whatever the umask; by default 0666 without the umask's. At most 0777.
    pub mode: Option<u32>,
}

/// New content on its way into a file. Dropped before [`Replacement::commit`], it leaves the file as it was, unless it
/// is written in place.
#[derive(Debug)]
pub struct Replacement {
    path: AbsPath,
    options: WriteOptions,
    target: Target,
    stage: Stage,
    hasher: Option<blake3::Hasher>,
    /// The end of what was appended.
    position_bytes: u64,
}

/// Where the content goes in the end.
#[derive(Debug)]
struct Target {
    place: Place,
    /// What is there.
    existing: Option<Existing>,
}

#[derive(Debug)]
struct Existing {
    stat: Stat,
    /// Open for writing; none for a program that runs (ETXTBSY), which can be replaced and not written to.
    file: Option<File>,
}

/// Where the content is until then.
#[derive(Debug)]
enum Stage {
    /// In a file without a name.
    Unnamed(File),
    /// In a file with another name in the target's directory.
    Named(Named),
    /// In the target itself.
    InPlace(File),
}

impl Replacement {
    /// Looks at the target and makes a place for the content. Nothing has changed yet, unless the target is written in
    /// place and `beginning` says so.
    pub(crate) fn begin(
        path: &AbsPath,
        options: WriteOptions,
        beginning: Beginning,
    ) -> Result<Self, FileError> {
        let place = Place::of(path).map_err(|errno| FileError::at(path, errno))?;
        Self::begin_at(place, path, options, beginning)
    }

    /// The same for `path` that was found to be at `place`.
    pub(crate) fn begin_at(
        place: Place,
        path: &AbsPath,
        options: WriteOptions,
        beginning: Beginning,
    ) -> Result<Self, FileError> {
        if options.mode.is_some_and(|mode| mode > 0o777) {
            let message = "mode has more than permission bits (at most 0777)";
            return Err(FileError::new(ErrorKind::InvalidParams, Some(path), message));
        }
        let target = Target::find(place, path, options.links)?;
        target.expect(path, options.expected)?;
        let stage = target.stage(path, &options)?;
        if let (Stage::InPlace(file), Beginning::Empty) = (&stage, beginning) {
            ftruncate(file, 0).map_err(|errno| FileError::at(path, errno))?;
        }
        let hasher = options.expected.map(|_| blake3::Hasher::new());
        Ok(Self { path: path.clone(), options, target, stage, hasher, position_bytes: 0 })
    }

    /// Appends to what was written before.
    ///
    /// # Errors
    /// What write(2) says.
    pub fn write(&mut self, content: &[u8]) -> Result<(), FileError> {
        // Not at an offset, which some files of /proc and /sys do not have.
        let mut file = self.stage.file();
        file.write_all(content).map_err(|error| FileError::io(&self.path, &error))?;
        self.position_bytes += content.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(content);
        }
        Ok(())
    }

    /// Writes at `offset`; what lies between it and the end so far reads as zeros.
    pub(crate) fn write_at(&mut self, offset: u64, content: &[u8]) -> Result<(), FileError> {
        self.stage.file().write_all_at(content, offset).map_err(|error| FileError::io(&self.path, &error))?;
        self.position_bytes = self.position_bytes.max(offset + content.len() as u64);
        Ok(())
    }

    /// What is replaced, as it was at the beginning.
    pub(crate) fn existing(&self) -> Option<&Stat> {
        self.target.existing.as_ref().map(|existing| &existing.stat)
    }

    /// Where the content is, for somebody who appends to it by other means and says so with
    /// [`Replacement::advance`].
    pub(crate) fn file(&self) -> &File {
        self.stage.file()
    }

    /// Counts what was appended to [`Replacement::file`].
    pub(crate) fn advance(&mut self, bytes: u64) {
        self.position_bytes += bytes;
    }

    /// Puts the content in its place, and returns its BLAKE3 hash in hexadecimal if the options expected one.
    ///
    /// # Errors
    /// [`ErrorKind::Changed`] when the precondition does not hold any more; what the kernel says. The file is as it was
    /// then, unless it is written in place.
    pub fn commit(self) -> Result<Option<String>, FileError> {
        self.finish(Durability::Synced)
    }

    pub(crate) fn finish(mut self, durability: Durability) -> Result<Option<String>, FileError> {
        let at = |errno| FileError::at(&self.path, errno);
        let file = self.stage.file();
        if matches!(self.stage, Stage::InPlace(_)) {
            ftruncate(file, self.position_bytes).map_err(at)?;
        }
        if durability == Durability::Synced {
            sync(file).map_err(at)?;
        }
        // A file that is written in place has changed by our own hand.
        if self.options.expected.is_some() && !matches!(self.stage, Stage::InPlace(_)) {
            self.target.expect_unchanged(&self.path)?;
        }
        let collision = match (self.options.expected, &self.target.existing) {
            (Some(Expected::Missing), _) => Collision::Refuse,
            (_, None) => Collision::Unlikely,
            (_, Some(_)) => Collision::Certain,
        };
        match self.stage.settle(&self.target.place, collision) {
            Ok(()) => {}
            Err(Errno::EXIST) if collision == Collision::Refuse => {
                return Err(changed(&self.path, "is there"));
            }
            Err(errno) => self.settle_in_place(errno)?,
        }
        Ok(self.hasher.map(|hasher| hasher.finalize().to_hex().to_string()))
    }

    /// The last resort where the staged file can't take the target's name.
    fn settle_in_place(&self, refusal: Errno) -> Result<(), FileError> {
        let at = |errno| FileError::at(&self.path, errno);
        let existing = self.target.existing.as_ref().and_then(|existing| existing.file.as_ref());
        let Some(target) = existing.filter(|_| is_refusal(refusal)) else { return Err(at(refusal)) };
        if self.options.atomicity == Atomicity::Required {
            return Err(not_atomic(&self.path, "it can't be renamed over"));
        }
        copy_content(self.stage.file(), target).map_err(at)?;
        ftruncate(target, self.position_bytes).map_err(at)?;
        sync(target).map_err(at)
    }
}

/// Whether something has the name that a staged file is to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Collision {
    /// Nothing should, and it is not to be replaced if it does.
    Refuse,
    /// Nothing had when we looked.
    Unlikely,
    /// The target has.
    Certain,
}

/// What a target that is written in place is at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// Cut to the new content's length at the end, so that it is never shorter than it must be.
    Kept,
    /// Emptied, so that what is skipped reads as zeros.
    Empty,
}

/// Whether the content is brought to disk before it is in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    Synced,
    Cached,
}

impl Target {
    /// Finds what is to be replaced, through symbolic links if they are followed.
    fn find(mut place: Place, path: &AbsPath, links: Links) -> Result<Self, FileError> {
        let at = |errno| FileError::at(path, errno);
        for _ in 0..=MAX_LINKS {
            let stat = match place.stat() {
                Ok(stat) => stat,
                Err(Errno::NOENT) => return Ok(Self { place, existing: None }),
                Err(errno) => return Err(at(errno)),
            };
            match kind(&stat) {
                FileKind::File => return Self::open(path, links, place, stat),
                FileKind::Symlink if links == Links::Follow => {
                    let target = readlinkat(&place.dir, &place.name, Vec::new()).map_err(at)?;
                    place = Place::below(place.dir.as_fd(), target.as_bytes()).map_err(at)?;
                }
                FileKind::Symlink => return Err(is_a_symlink(path)),
                FileKind::Directory | FileKind::Other => return Err(FileError::not_a_file(path)),
            }
        }
        Err(at(Errno::LOOP))
    }

    fn open(path: &AbsPath, links: Links, place: Place, stat: Stat) -> Result<Self, FileError> {
        let at = |errno| FileError::at(path, errno);
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat(&place.dir, &place.name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::TXTBSY) => return Ok(Self { place, existing: Some(Existing { stat, file: None }) }),
            Err(errno) => return Err(at(errno)),
        };
        // What a magic link of /proc leads to need not be what its text names (proc(5), "/proc/pid/fd/").
        let meant =
            if links == Links::Follow { statat(CWD, path.as_bytes(), AtFlags::empty()) } else { Ok(stat) };
        let meant = Identity::of(&meant.map_err(at)?);
        let stat = fstat(&file).map_err(at)?;
        if Identity::of(&stat) != meant {
            return Err(changed(path, "is another file now"));
        }
        Ok(Self { place, existing: Some(Existing { stat, file: Some(file) }) })
    }

    /// Refuses unless what is there is what was expected.
    fn expect(&self, path: &AbsPath, expected: Option<Expected>) -> Result<(), FileError> {
        match (expected, &self.existing) {
            (None, _) | (Some(Expected::Missing), None) => Ok(()),
            (Some(Expected::Missing), Some(_)) => Err(changed(path, "is there")),
            (Some(Expected::Hash(_)), None) => Err(changed(path, "is missing")),
            (Some(Expected::Hash(hash)), Some(existing)) => {
                let found = self.hash(path, existing)?;
                if found == hash { Ok(()) } else { Err(changed(path, "has other content")) }
            }
        }
    }

    fn hash(&self, path: &AbsPath, existing: &Existing) -> Result<blake3::Hash, FileError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.place.dir, &self.place.name, flags, Mode::empty());
        let file = file.map_err(|errno| FileError::at(path, errno))?;
        let opened = fstat(&file).map_err(|errno| FileError::at(path, errno))?;
        if !is_unchanged(&opened, &existing.stat) {
            return Err(changed(path, "is being changed"));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::from(file)).map_err(|error| FileError::io(path, &error))?;
        Ok(hasher.finalize())
    }

    /// Refuses unless what is there is what was there at first, to the last change.
    fn expect_unchanged(&self, path: &AbsPath) -> Result<(), FileError> {
        match (self.place.stat(), &self.existing) {
            (Err(Errno::NOENT), None) => Ok(()),
            (Ok(_), None) => Err(changed(path, "is there")),
            (Err(Errno::NOENT), Some(_)) => Err(changed(path, "is missing")),
            (Ok(now), Some(existing)) if is_unchanged(&now, &existing.stat) => Ok(()),
            (Ok(_), Some(_)) => Err(changed(path, "was changed meanwhile")),
            (Err(errno), _) => Err(FileError::at(path, errno)),
        }
    }

    /// Makes a place for the content.
    fn stage(&self, path: &AbsPath, options: &WriteOptions) -> Result<Stage, FileError> {
        let obstacle = match &self.existing {
            _ if options.atomicity == Atomicity::InPlace => return self.stage_in_place(path, options.mode),
            None => match self.stage_new(options.mode) {
                Ok(stage) => return Ok(stage),
                Err(errno) => return Err(FileError::at(path, errno)),
            },
            Some(existing) if existing.stat.st_nlink > 1 => "it has other names (hard links)",
            Some(existing) => match self.stage_beside(existing) {
                Ok(stage) => return Ok(stage),
                Err(Obstacle::Directory(errno)) if is_refusal(errno) => {
                    "nothing can be made in its directory"
                }
                Err(Obstacle::Directory(errno)) => return Err(FileError::at(path, errno)),
                Err(Obstacle::Attributes) => "its owner or attributes can't be given to another file",
            },
        };
        if options.atomicity == Atomicity::Required {
            return Err(not_atomic(path, obstacle));
        }
        self.stage_in_place(path, options.mode)
    }

    fn stage_new(&self, mode: Option<u32>) -> Result<Stage, Errno> {
        // The kernel applies the umask or the directory's default access list.
        let stage = Stage::make(self.place.dir.as_fd(), Mode::from_raw_mode(0o666))?;
        if let Some(mode) = mode {
            fchmod(stage.file(), Mode::from_raw_mode(mode))?;
        }
        Ok(stage)
    }

    fn stage_beside(&self, existing: &Existing) -> Result<Stage, Obstacle> {
        // Nobody else may read it before it has the target's mode.
        let stage =
            Stage::make(self.place.dir.as_fd(), Mode::RUSR | Mode::WUSR).map_err(Obstacle::Directory)?;
        let carried = match &existing.file {
            Some(old) => attributes::carry(old, &existing.stat, stage.file()),
            None => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                openat(&self.place.dir, &self.place.name, flags, Mode::empty())
                    .and_then(|old| attributes::carry(old, &existing.stat, stage.file()))
            }
        };
        carried.map_err(|_| Obstacle::Attributes)?;
        Ok(stage)
    }

    fn stage_in_place(&self, path: &AbsPath, mode: Option<u32>) -> Result<Stage, FileError> {
        let at = |errno| FileError::at(path, errno);
        match &self.existing {
            Some(Existing { file: Some(file), .. }) => {
                file.try_clone().map(Stage::InPlace).map_err(|error| FileError::io(path, &error))
            }
            Some(Existing { file: None, .. }) => Err(at(Errno::TXTBSY)),
            None => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = openat(&self.place.dir, &self.place.name, flags, Mode::from_raw_mode(0o666));
                let file = file.map_err(at)?;
                if let Some(mode) = mode {
                    fchmod(&file, Mode::from_raw_mode(mode)).map_err(at)?;
                }
                Ok(Stage::InPlace(File::from(file)))
            }
        }
    }
}

/// Why no place beside the target could be made.
enum Obstacle {
    Directory(Errno),
    Attributes,
}

impl Stage {
    /// A new file in `dir`, without a name if the file system can.
    fn make(dir: BorrowedFd<'_>, mode: Mode) -> Result<Self, Errno> {
        match openat(dir, c".", OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode) {
            Ok(file) => Ok(Self::Unnamed(File::from(file))),
            // Kernels and file systems without O_TMPFILE (open(2)).
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => Self::make_named(dir, mode),
            Err(errno) => Err(errno),
        }
    }

    fn make_named(dir: BorrowedFd<'_>, mode: Mode) -> Result<Self, Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = duplicate(dir)?;
        let (file, name) = with_free_name(|name| openat(&dir, name, flags, mode))?;
        Ok(Self::Named(Named { file: File::from(file), dir, name: Some(name) }))
    }

    fn file(&self) -> &File {
        match self {
            Self::Unnamed(file) | Self::Named(Named { file, .. }) | Self::InPlace(file) => file,
        }
    }

    /// Gives the file the name of `place`.
    ///
    /// # Errors
    /// `EEXIST` if something has the name and is not to be replaced.
    fn settle(&mut self, place: &Place, collision: Collision) -> Result<(), Errno> {
        if let Self::Unnamed(file) = self {
            if collision != Collision::Certain {
                match link(file, place.dir.as_fd(), &place.name) {
                    Err(Errno::EXIST) if collision == Collision::Unlikely => {}
                    answer => return answer,
                }
            }
            let dir = duplicate(place.dir.as_fd())?;
            let ((), name) = with_free_name(|name| link(file, dir.as_fd(), name))?;
            let file = file.try_clone().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            *self = Self::Named(Named { file, dir, name: Some(name) });
        }
        match self {
            Self::Named(named) => named.rename(place, collision),
            Self::Unnamed(_) | Self::InPlace(_) => Ok(()),
        }
    }
}

/// A file with a name that nobody asked for, which goes when it is not given another.
#[derive(Debug)]
struct Named {
    file: File,
    dir: OwnedFd,
    /// None once it was given another.
    name: Option<CString>,
}

impl Named {
    fn rename(&mut self, place: &Place, collision: Collision) -> Result<(), Errno> {
        let Some(name) = self.name.as_deref() else { return Ok(()) };
        let flags =
            if collision == Collision::Refuse { RenameFlags::NOREPLACE } else { RenameFlags::empty() };
        match renameat_with(&self.dir, name, &place.dir, &place.name, flags) {
            // Not every file system knows NOREPLACE (rename(2)); that nothing is there was seen a moment ago.
            Err(Errno::INVAL) if collision == Collision::Refuse => {
                renameat(&self.dir, name, &place.dir, &place.name)?;
            }
            answer => answer?,
        }
        self.name = None;
        Ok(())
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        if let Some(name) = self.name.as_deref() {
            // Nothing more can be done about a file that can't be removed.
            let _ = unlinkat(&self.dir, name, AtFlags::empty());
        }
    }
}

fn duplicate(dir: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(dir, 0)
}

/// Gives a file without a name one.
fn link(file: &File, dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    // The way that needs no capability (open(2), "O_TMPFILE"); the other is for views without /proc.
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    match linkat(CWD, own, dir, name, AtFlags::SYMLINK_FOLLOW) {
        Err(Errno::NOENT) => linkat(file, c"", dir, name, AtFlags::EMPTY_PATH),
        answer => answer,
    }
}

/// How often a name is tried that turns out to be taken. Names have 64 random bits.
const NAME_TRIES: usize = 8;

/// Calls `make` with names until one is free, and returns it.
fn with_free_name<T>(mut make: impl FnMut(&CStr) -> Result<T, Errno>) -> Result<(T, CString), Errno> {
    for _ in 0..NAME_TRIES {
        // Its keys are random; what is hashed does not matter.
        let random = RandomState::new().hash_one(std::process::id());
        let name = CString::new(format!(".sandbar-{random:016x}.tmp")).map_err(|_| Errno::INVAL)?;
        match make(&name) {
            Err(Errno::EXIST) => {}
            answer => return answer.map(|made| (made, name)),
        }
    }
    Err(Errno::EXIST)
}

/// Whether the kernel says that a name can't be made or taken here, as opposed to trouble on the way.
fn is_refusal(errno: Errno) -> bool {
    // ENOENT: /proc and the like, which take no new names. EBUSY: a mount point. EXDEV: another mount of it.
    matches!(errno, Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::NOENT | Errno::BUSY | Errno::XDEV)
}

fn is_unchanged(now: &Stat, before: &Stat) -> bool {
    let times = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec);
    Identity::of(now) == Identity::of(before) && now.st_size == before.st_size && times(now) == times(before)
}

/// Brings a file's content to disk, where there is one.
fn sync(file: &File) -> Result<(), Errno> {
    match retry(|| fsync(file)) {
        // A file that has no disk behind it, such as those of /proc (fsync(2)).
        Err(Errno::INVAL) => Ok(()),
        answer => answer,
    }
}

/// Copies all of `from` to the beginning of `to`.
fn copy_content(from: &File, to: &File) -> Result<(), Errno> {
    let mut buffer = vec![0; COPY_STEP];
    let mut offset = 0;
    loop {
        let got = retry(|| rustix::io::pread(from, &mut buffer, offset))?;
        if got == 0 {
            return Ok(());
        }
        let written = to.write_all_at(&buffer[..got], offset);
        written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        offset += got as u64;
    }
}

/// As many bytes as one read(2) takes from the page cache without the buffer leaving the processor's.
const COPY_STEP: usize = 256 * 1024;

fn changed(path: &AbsPath, how: &str) -> FileError {
    FileError::new(ErrorKind::Changed, Some(path), format!("path `{}` {how}", path.to_display()))
}

fn not_atomic(path: &AbsPath, why: &str) -> FileError {
    let message = format!("path `{}` can't be replaced as a whole: {why}", path.to_display());
    FileError::new(ErrorKind::NotAtomic, Some(path), message)
}
