//! The host's side of the attempts: what there is to reach, and the caller from whom a sandboxed command descends.
//!
//! [`prepare`] makes files, sockets, memory, a key, a terminal and a process to attack, and writes what the attempts have to
//! know into the workspace. Everything is this user's own and goes with it: files lie in folders that the caller names,
//! and [`Prepared`] takes back what lies elsewhere when it is dropped.

mod files;
mod ipc;

pub(crate) use ipc::unix_address;

use std::fs::File;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::raw;

/// The descriptor of an outside file that the caller leaves open, for reading and writing.
pub const INHERITED_FILE: i32 = 9;
/// The descriptor of an outside directory that the caller leaves open.
pub const INHERITED_DIRECTORY: i32 = 8;
/// What every secret holds.
pub const SECRET: &str = "hunter2-of-the-escape-probe";
/// The variable that looks like a secret.
pub const SECRET_VARIABLE: &str = "ESCAPE_PROBE_API_KEY";
/// The file in the workspace that tells attempts of the host's side.
pub const FILE: &str = "stage.json";

/// The folders that a stage is made in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folders {
    /// The command's working directory, a git repository afterwards.
    pub workspace: PathBuf,
    /// A folder that no sandbox makes writable, on the workspace's file system.
    pub outside: PathBuf,
    /// The home directory of whom the command runs for.
    pub home: PathBuf,
    /// A runtime directory (`XDG_RUNTIME_DIR`).
    pub runtime: PathBuf,
}

/// What attempts know of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// The folders.
    pub folders: Folders,
    /// A folder of the host's /tmp, with a file `file` and a socket `stream.sock`.
    pub tmp: PathBuf,
    /// A file of the host's /dev/shm.
    pub shared_memory: PathBuf,
    /// A file outside that the caller leaves open.
    pub inherited: PathBuf,
    /// A process of the host that does nothing.
    pub victim: i32,
    /// Name of an abstract stream socket.
    pub abstract_name: String,
    /// Name of an abstract datagram socket.
    pub abstract_datagram: String,
    /// TCP on 127.0.0.1.
    pub tcp4: u16,
    /// TCP on ::1, unless this host has none.
    pub tcp6: Option<u16>,
    /// UDP on 127.0.0.1, which answers everything.
    pub udp: u16,
    /// Key of a System V segment, a semaphore set and a message queue.
    pub ipc_key: i32,
    /// Name of a POSIX message queue, unless this host has none.
    pub posix_queue: Option<String>,
    /// A key in the caller's session keyring, unless this host has none.
    pub key: Option<i32>,
    /// The caller's terminal.
    pub terminal: PathBuf,
    /// A program that runs as another user, if the stage could make one.
    pub set_user_id: Option<PathBuf>,
    /// A socket of Sandbar's own.
    pub own_socket: Option<PathBuf>,
    /// A directory of Sandbar's own.
    pub own: Option<PathBuf>,
}

impl Stage {
    /// A path in the folder outside.
    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        self.folders.outside.join(name)
    }

    /// A path in the workspace.
    pub(crate) fn workspace(&self, name: &str) -> PathBuf {
        self.folders.workspace.join(name)
    }

    /// A path in the home.
    pub(crate) fn home(&self, name: &str) -> PathBuf {
        self.folders.home.join(name)
    }

    /// Reads what [`prepare`] wrote.
    ///
    /// # Errors
    /// It can't be read, or is something else.
    pub fn read(file: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(file)?)?)
    }
}

/// A stage that stands.
#[derive(Debug)]
pub struct Prepared {
    /// What attempts know of it.
    pub stage: Stage,
    _kept: Kept,
    _elsewhere: Elsewhere,
}

/// What is there as long as it is open.
#[derive(Debug)]
struct Kept {
    _streams: Vec<UnixListener>,
    _datagrams: Vec<UnixDatagram>,
    _sequential: OwnedFd,
    _tcp: Vec<TcpListener>,
    _fifo: File,
    _terminal: OwnedFd,
}

/// What lies in no folder of the stage and has to be taken back, also if the rest can't be made.
#[derive(Debug)]
struct Elsewhere {
    tmp: PathBuf,
    shared_memory: PathBuf,
    system_v: Option<[i64; 3]>,
    posix_queue: Option<String>,
    victim: Option<i32>,
}

impl Elsewhere {
    fn make(unique: u32, ipc_key: i32) -> io::Result<Self> {
        let mut this = Self {
            tmp: PathBuf::from(format!("/tmp/escape-probe-{unique}")),
            shared_memory: PathBuf::from(format!("/dev/shm/escape-probe-{unique}")),
            system_v: None,
            posix_queue: None,
            victim: None,
        };
        std::fs::create_dir_all(&this.tmp)?;
        std::fs::write(this.tmp.join("file"), "untouched")?;
        std::fs::write(&this.shared_memory, "untouched")?;
        this.system_v = Some(ipc::make_system_v(ipc_key)?);
        this.posix_queue = ipc::make_posix_queue(&format!("escape-probe-{unique}"));
        this.victim = Some(ipc::start_victim()?);
        Ok(this)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // What is gone already needs no taking back.
        let _ = std::fs::remove_dir_all(&self.tmp);
        let _ = std::fs::remove_file(&self.shared_memory);
        if let Some(made) = self.system_v {
            ipc::remove_system_v(made);
        }
        if let Some(name) = &self.posix_queue {
            let _ = raw::sys!(libc::SYS_mq_unlink, &raw::path(name));
        }
        if let Some(victim) = self.victim {
            raw::kill(victim, libc::SIGKILL);
            let _ = raw::wait(victim);
        }
    }
}

/// Makes the host's side in `folders`, which exist. Afterwards this process leads a session on a terminal of its own,
/// has a session keyring of its own, and [`INHERITED_FILE`] and [`INHERITED_DIRECTORY`] are open in it and in what it starts.
///
/// # Errors
/// Something can't be made that every Linux has.
pub fn prepare(folders: &Folders, own: Option<PathBuf>, own_socket: Option<PathBuf>) -> io::Result<Prepared> {
    let unique = std::process::id();
    files::make_workspace(folders)?;
    files::make_outside(&folders.outside)?;
    files::make_home(&folders.home)?;
    // Before anything else gets these numbers.
    let inherited = folders.outside.join("inherited");
    ipc::leave_open(&inherited, &folders.outside)?;
    let ipc_key = 0x5a00_0000 | i32::try_from(unique & 0xff_ffff).unwrap_or(1);
    let elsewhere = Elsewhere::make(unique, ipc_key)?;

    let abstract_name = format!("escape-probe-{unique}");
    let abstract_datagram = format!("escape-probe-datagram-{unique}");
    let outside = &folders.outside;
    let streams = vec![
        UnixListener::bind(outside.join("stream.sock"))?,
        UnixListener::bind(folders.runtime.join("stream.sock"))?,
        UnixListener::bind(elsewhere.tmp.join("stream.sock"))?,
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(&abstract_name)?)?,
    ];
    let datagrams = vec![
        UnixDatagram::bind(outside.join("datagram.sock"))?,
        UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&abstract_datagram)?)?,
    ];
    let tcp4 = TcpListener::bind("127.0.0.1:0")?;
    let tcp6 = TcpListener::bind("[::1]:0").ok();
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    let (terminal, master) = ipc::make_terminal()?;
    let stage = Stage {
        folders: folders.clone(),
        tmp: elsewhere.tmp.clone(),
        shared_memory: elsewhere.shared_memory.clone(),
        inherited,
        victim: elsewhere.victim.unwrap_or_default(),
        abstract_name,
        abstract_datagram,
        tcp4: tcp4.local_addr()?.port(),
        tcp6: tcp6.as_ref().and_then(|listener| Some(listener.local_addr().ok()?.port())),
        udp: udp.local_addr()?.port(),
        ipc_key,
        posix_queue: elsewhere.posix_queue.clone(),
        key: ipc::make_key(),
        terminal,
        set_user_id: files::make_set_user_id(outside)?,
        own_socket,
        own,
    };
    ipc::answer_datagrams(udp)?;
    let kept = Kept {
        _streams: streams,
        _datagrams: datagrams,
        _sequential: ipc::listen_sequential(&outside.join("sequential.sock"))?,
        _tcp: std::iter::once(tcp4).chain(tcp6).collect(),
        _fifo: File::options().read(true).write(true).open(outside.join("fifo"))?,
        _terminal: master,
    };
    std::fs::write(folders.workspace.join(FILE), serde_json::to_vec_pretty(&stage)?)?;
    Ok(Prepared { stage, _kept: kept, _elsewhere: elsewhere })
}
