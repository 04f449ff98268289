//! Rules that are the same for every run on macOS: what programs need of the system besides files.
//!
//! Nothing of the host and nothing of a request is in here. Each service is one that programs fail without and that
//! tells or changes nothing of somebody else; whatever has no rule is denied: the keychain (`com.apple.SecurityServer`),
//! the clipboard, Apple events, starting programs through Launch Services, hard links, other processes.

/// Comes first (facts/sandbox.md §3.1, base).
pub(super) const BASE: &str = r#"(version 1)
(deny default)

; A run has processes of its own, and nobody else's.
(allow process-fork)
(allow process-info* (target same-sandbox))
(allow signal (target self) (target same-sandbox))

; What the machine is. Not kern.procargs2, which has the arguments and variables of other processes.
(allow sysctl-read
  (sysctl-name-prefix "hw.")
  (sysctl-name-prefix "machdep.cpu.")
  (sysctl-name "kern.argmax")
  (sysctl-name "kern.boottime")
  (sysctl-name "kern.hostname")
  (sysctl-name "kern.maxfilesperproc")
  (sysctl-name "kern.maxproc")
  (sysctl-name "kern.ngroups")
  (sysctl-name "kern.osproductversion")
  (sysctl-name "kern.osrelease")
  (sysctl-name "kern.ostype")
  (sysctl-name "kern.osvariant_status")
  (sysctl-name "kern.osversion")
  (sysctl-name "kern.secure_kernel")
  (sysctl-name "kern.usrstack64")
  (sysctl-name "kern.version")
  (sysctl-name "sysctl.proc_cputype")
  (sysctl-name "vm.loadavg"))
(allow sysctl-write (sysctl-name "kern.grade_cputype"))

; Users and groups, power state, preferences; reading the last needs the service and the right.
(allow mach-lookup
  (global-name "com.apple.system.opendirectoryd.libinfo")
  (global-name "com.apple.PowerManagement.control")
  (global-name "com.apple.cfprefsd.agent")
  (global-name "com.apple.cfprefsd.daemon"))
(allow user-preference-read)
(allow iokit-open (iokit-registry-entry-class "RootDomainUserClient"))

; Semaphores of Python's multiprocessing, and what tells OpenMP's runtime from a second copy of itself.
(allow ipc-posix-sem)
(allow ipc-posix-shm-read-data ipc-posix-shm-write-create ipc-posix-shm-write-unlink
  (ipc-posix-name-regex #"^/__KMP_REGISTERED_LIB_[0-9]+$"))
(allow pseudo-tty)

"#;

/// Devices that programs expect, behind the denial of all others. Of terminals, the ones that a run made itself: the
/// kernel issues the extension to whoever opened the other end. One that it was started on comes as a descriptor, and
/// needs no more than to be set up.
pub(super) const DEVICES: &str = r#"(allow file-read-metadata (literal "/dev"))
(allow file-read* (literal "/dev/random") (literal "/dev/urandom"))
(allow file-read* file-write-data
  (literal "/dev/null") (literal "/dev/zero") (subpath "/dev/fd")
  (literal "/dev/stdin") (literal "/dev/stdout") (literal "/dev/stderr"))
(allow file-read* file-write-data file-ioctl (literal "/dev/tty") (literal "/dev/ptmx"))
(allow file-read* file-write-data
  (require-all (regex #"^/dev/ttys[0-9]+$") (extension "com.apple.sandbox.pty")))
(allow file-ioctl (regex #"^/dev/ttys[0-9]+$"))
"#;

/// The caller's network, without the host's unix sockets but that of the resolver.
pub(super) const WHOLE_NETWORK: &str = r#"(allow system-socket (socket-domain AF_INET) (socket-domain AF_INET6))
; What the system's own libraries ask about routes and interfaces.
(allow system-socket (require-all (socket-domain AF_SYSTEM) (socket-protocol 2)))
(allow network-bind network-inbound (local ip "*:*"))
(allow network-outbound (remote ip "*:*"))
(allow network-outbound (remote unix-socket (literal "/private/var/run/mDNSResponder")))
(allow mach-lookup
  (global-name "com.apple.SystemConfiguration.configd")
  (global-name "com.apple.SystemConfiguration.DNSConfiguration")
  (global-name "com.apple.trustd")
  (global-name "com.apple.trustd.agent"))
"#;

/// Sockets of the internet protocols, without a rule about where they may reach.
pub(super) const INTERNET_SOCKETS: &str =
    "(allow system-socket (socket-domain AF_INET) (socket-domain AF_INET6))\n";

/// Servers of the run and whoever else listens on this machine: macOS has no loopback for each sandbox.
pub(super) const OWN_LOOPBACK: &str = r#"(allow network-bind network-inbound (local ip "localhost:*"))
(allow network-outbound (remote ip "localhost:*"))
"#;
