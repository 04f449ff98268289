//! Attempts at everything that is no file: descriptors, doors of the kernel, sockets, processes, namespaces.

use super::attempt;
use crate::attempts::{descriptors, kernel, proc, processes, sockets};
use crate::expect::Control::{self, Direct, Open, Root};
use crate::expect::Expected::{Allowed, Either, Stopped};
use crate::expect::{Attempt, When};

const NETWORK: &str = "the host's network was asked for";
const ROUTES: &str = "the host's network was asked for, and this host may have no route";
const BROKER: &str = "host sockets outside /run, /tmp and the runtime directory wait for the socket broker";
const HANDED_OVER: &str =
    "the caller gave this file: its content can't be changed, its mode and attributes can";
const OWN_PROGRAMS: &str = "programs that run from memory have no more rights than others";
const DESCRIPTIONS: &str = "descriptions of this user's keys are listed, their values are not";
const BWRAPS_DEVICES: &str = "bubblewrap can't make a device read-only without making it useless";
const ROOT_BY_BWRAP: When = When::Both(&When::Root, &When::Bwrap);
const NOBODY_ASKS: &str = "there the filter asks nobody, so there is no answer to take";
const ONE_PROC: &str = "without a pid namespace there is one /proc, and Landlock grants all of it or nothing";
const ROOT_BY_LANDLOCK: When = When::Both(&When::Root, &When::Landlock);
const KERNEL: Control = Open("it depends on how the kernel was built");
const DEVICES: Control = Open("it depends on which devices the host has");
const PID_1: Control = Open("without a sandbox pid 1 is the host's own");
const NOT_HERE: Control = Open("the kernel refuses it to everybody");

#[rustfmt::skip]
pub(super) const DESCRIPTORS: &[Attempt] = &[
    attempt("descriptors", "inherited-file", "write an outside file that the caller left open", descriptors::inherited_file).control(Direct),
    attempt("descriptors", "inherited-directory", "open a file below a directory that the caller left open", descriptors::inherited_directory).control(Direct),
    attempt("descriptors", "working-directory", "make a file through a descriptor of ..", descriptors::working_directory),
    attempt("descriptors", "input-reopen", "open the file that is standard input for writing", descriptors::input_reopen),
    attempt("descriptors", "input-chmod", "change the mode of the file that is standard input", descriptors::input_chmod)
        .accepted(&[(When::Landlock, Stopped), (When::Always, Allowed(HANDED_OVER))]),
    attempt("descriptors", "input-attribute", "set an attribute of the file that is standard input", descriptors::input_attribute)
        .accepted(&[(When::Landlock, Stopped), (When::Always, Allowed(HANDED_OVER))]),
    attempt("terminal", "type-into-own-terminal", "type into a terminal by TIOCSTI", descriptors::type_into_own_terminal).control(KERNEL),
    attempt("terminal", "type-by-high-bits", "the same with bits that the kernel ignores", descriptors::type_by_high_bits).control(KERNEL),
    attempt("terminal", "type-into-host-terminal", "type into the caller's terminal by its path", descriptors::type_into_host_terminal).control(KERNEL),
    attempt("terminal", "type-into-controlling-terminal", "type into /dev/tty", descriptors::type_into_controlling_terminal).control(KERNEL),
    attempt("terminal", "open-host-terminal", "open the caller's terminal by its path", descriptors::open_host_terminal),
    attempt("terminal", "paste-into-terminal", "paste by TIOCLINUX", descriptors::paste_into_terminal),
];

#[rustfmt::skip]
pub(super) const PROC: &[Attempt] = &[
    attempt("proc", "victim-environ", "read the environment of a process of the host", proc::victim_environ),
    attempt("proc", "victim-memory", "open its memory for writing", proc::victim_memory),
    attempt("proc", "victim-root", "list its root directory", proc::victim_root),
    attempt("proc", "victim-status", "see that it is there", proc::victim_status)
        .accepted(&[(When::Landlock, Allowed(ONE_PROC))]),
    attempt("proc", "victim-oom-score", "open its OOM score for writing", proc::victim_oom_score),
    attempt("proc", "pid-1-memory", "open the memory of pid 1 for writing", proc::pid_1_memory).control(PID_1),
    attempt("proc", "pid-1-environ", "read the environment of pid 1", proc::pid_1_environ).control(PID_1),
    attempt("proc", "pid-1-maps", "read the memory map of pid 1", proc::pid_1_maps).control(PID_1),
    attempt("proc", "pid-1-root", "list the root directory of pid 1", proc::pid_1_root).control(PID_1),
    attempt("proc", "pid-1-cwd", "follow the working directory of pid 1", proc::pid_1_cwd).control(PID_1),
    attempt("proc", "pid-1-descriptors", "list the descriptors of pid 1", proc::pid_1_descriptors).control(PID_1),
    attempt("proc", "pid-1-executable", "open the program of pid 1 for writing", proc::pid_1_executable).control(PID_1),
    attempt("proc", "pid-1-command-line", "read paths of the host in the command line of pid 1", proc::pid_1_command_line).control(PID_1),
    attempt("proc", "core-pattern", "open kernel.core_pattern for writing", proc::core_pattern).control(Root),
    attempt("proc", "drop-caches", "open vm.drop_caches for writing", proc::drop_caches).control(Root),
    attempt("proc", "host-name-setting", "open kernel.hostname for writing", proc::host_name).control(Root),
    attempt("proc", "user-namespaces-setting", "open user.max_user_namespaces for writing", proc::user_namespaces).control(KERNEL),
    attempt("proc", "ip-forward-setting", "open net.ipv4.ip_forward for writing", proc::ip_forward).control(Root),
    attempt("proc", "binary-formats", "register a binary format", proc::binary_formats).control(KERNEL),
    attempt("proc", "sysrq", "open /proc/sysrq-trigger for writing", proc::sysrq).control(KERNEL),
    attempt("proc", "interrupts", "open an interrupt's affinity for writing", proc::interrupts).control(KERNEL),
    attempt("proc", "kernel-memory", "read /proc/kcore", proc::kernel_memory).control(KERNEL),
    attempt("proc", "kernel-messages", "open /proc/kmsg", proc::kernel_messages).control(Root),
    attempt("proc", "page-flags", "read /proc/kpageflags", proc::page_flags)
        .accepted(&[(ROOT_BY_LANDLOCK, Either(ONE_PROC))]).control(KERNEL),
    attempt("proc", "timers", "read /proc/timer_list", proc::timers)
        .accepted(&[(ROOT_BY_LANDLOCK, Either(ONE_PROC))]).control(KERNEL),
    attempt("proc", "key-list", "find the caller's key in /proc/keys", proc::key_list)
        .accepted(&[(When::User, Either(DESCRIPTIONS)), (When::Landlock, Either(ONE_PROC))]).control(Direct),
    attempt("proc", "map-users", "map all users into this user namespace", proc::map_users).control(NOT_HERE),
    attempt("proc", "allow-groups", "allow setgroups(2) in this user namespace", proc::allow_groups).control(Open("the host's namespace allows it already")),
    attempt("sys", "huge-pages", "open a setting of memory in /sys for writing", proc::huge_pages).control(KERNEL),
    attempt("sys", "power-state", "open /sys/power/state for writing", proc::power_state).control(KERNEL),
    attempt("sys", "event-helper", "open the kernel's helper for events for writing", proc::event_helper).control(KERNEL),
    attempt("sys", "make-cgroup", "make a cgroup", proc::make_cgroup).control(Open("not every host has cgroups")),
    attempt("sys", "move-to-cgroup", "open the processes of the root cgroup for writing", proc::move_to_cgroup).control(Open("not every host has cgroups")),
    attempt("proc", "proc-mode", "change the mode of a file of /proc, which is the host's too", proc::proc_mode).control(Root),
    attempt("dev", "device-mode", "change the mode of /dev/null and its like, which are the host's", proc::device_mode)
        .accepted(&[(ROOT_BY_BWRAP, Allowed(BWRAPS_DEVICES))]).control(Root),
    attempt("dev", "device-mode-by-descriptor", "change it through a descriptor", proc::device_mode_by_descriptor)
        .accepted(&[(ROOT_BY_BWRAP, Allowed(BWRAPS_DEVICES))]).control(Root),
    attempt("dev", "device-times", "change the times of /dev/null", proc::device_times)
        .accepted(&[(When::Bwrap, Allowed(BWRAPS_DEVICES))]),
    attempt("dev", "memory-device", "open /dev/mem and its like", proc::memory_device).control(DEVICES),
    attempt("dev", "message-device", "open /dev/kmsg", proc::message_device).control(Root),
    attempt("dev", "disk-device", "open a disk", proc::disk_device).control(DEVICES),
    attempt("dev", "fuse-device", "open /dev/fuse", proc::fuse_device).control(DEVICES),
    attempt("dev", "tunnel-device", "open /dev/net/tun and vhost devices", proc::tunnel_device).control(DEVICES),
    attempt("dev", "machine-device", "open /dev/kvm, loop and mapper controls", proc::machine_device).control(DEVICES),
    attempt("dev", "input-device", "open input devices", proc::input_device).control(DEVICES),
    attempt("dev", "terminal-device", "open consoles", proc::terminal_device).control(DEVICES),
];

#[rustfmt::skip]
pub(super) const SOCKETS: &[Attempt] = &[
    attempt("sockets", "stream-by-path", "connect to a stream socket of the host", sockets::stream_by_path)
        .accepted(&[(When::Always, Either(BROKER))]),
    attempt("sockets", "sequential-by-path", "connect to a sequential-packet socket of the host", sockets::sequential_by_path)
        .accepted(&[(When::Always, Either(BROKER))]),
    attempt("sockets", "stream-in-runtime-directory", "connect to a socket in the runtime directory", sockets::stream_in_runtime_directory),
    attempt("sockets", "stream-in-tmp", "connect to a socket in /tmp", sockets::stream_in_tmp),
    attempt("sockets", "stream-by-abstract-name", "connect to an abstract socket of the host", sockets::stream_by_abstract_name),
    attempt("sockets", "datagram-by-sendto", "send a datagram to a socket of the host", sockets::datagram_by_sendto),
    attempt("sockets", "datagram-by-sendmsg", "send it by sendmsg(2), whose address lies in memory", sockets::datagram_by_sendmsg),
    attempt("sockets", "datagram-by-raw-kind", "send it from a socket made as SOCK_RAW", sockets::datagram_by_raw_kind),
    attempt("sockets", "datagram-by-high-bits", "send it from a socket made with bits that the kernel ignores", sockets::datagram_by_high_bits),
    attempt("sockets", "datagram-by-pair", "send it from one end of a pair", sockets::datagram_by_pair),
    attempt("sockets", "datagram-by-abstract-name", "send it to an abstract name", sockets::datagram_by_abstract_name),
    attempt("network", "tcp-4", "connect to the host's 127.0.0.1", sockets::tcp_4)
        .accepted(&[(When::NetworkOn, Allowed(NETWORK))]),
    attempt("network", "tcp-6", "connect to the host's ::1", sockets::tcp_6)
        .accepted(&[(When::NetworkOn, Either(ROUTES))]).control(Open("not every host has IPv6")),
    attempt("network", "udp", "ask a server on the host's 127.0.0.1", sockets::udp)
        .accepted(&[(When::NetworkOn, Allowed(NETWORK))]),
    attempt("network", "tcp-elsewhere", "find a route to another machine", sockets::tcp_elsewhere)
        .accepted(&[(When::NetworkOn, Either(ROUTES))]).control(Open("this host may have no route")),
    attempt("network", "raw-socket", "make a raw socket", sockets::raw_socket).control(Root),
    attempt("network", "packet-socket", "make a packet socket", sockets::packet_socket).control(KERNEL),
    attempt("network", "packet-socket-of-old", "make one by SOCK_PACKET", sockets::packet_socket_of_old).control(KERNEL),
    attempt("network", "machine-socket", "make a vsock socket, which no network namespace confines", sockets::machine_socket).control(KERNEL),
    attempt("network", "crypto-socket", "make a socket of the kernel's cryptography", sockets::crypto_socket).control(KERNEL),
    attempt("network", "netlink-audit", "make a netlink socket of audit", sockets::netlink_audit).control(KERNEL),
    attempt("network", "netlink-events", "make a netlink socket of device events", sockets::netlink_events),
    attempt("network", "netlink-sockets", "make a netlink socket that lists sockets", sockets::netlink_sockets).control(KERNEL),
    attempt("network", "netlink-firewall", "make a netlink socket of the firewall", sockets::netlink_firewall).control(KERNEL),
    attempt("network", "odd-families", "make a socket of a family that few need", sockets::odd_families).control(KERNEL),
];

#[rustfmt::skip]
pub(super) const PROCESSES: &[Attempt] = &[
    attempt("processes", "signal-victim", "send a signal to a process of the host", processes::signal_victim),
    attempt("processes", "open-victim", "open a pidfd of it", processes::open_victim),
    attempt("processes", "trace-victim", "trace it", processes::trace_victim),
    attempt("processes", "read-victim", "read its memory", processes::read_victim),
    attempt("processes", "limit-victim", "set a limit of it", processes::limit_victim),
    attempt("processes", "schedule-victim", "set its processors", processes::schedule_victim),
    attempt("processes", "nice-victim", "set its priority", processes::nice_victim),
    attempt("processes", "move-victims-pages", "ask where its pages are", processes::move_victims_pages).control(KERNEL),
    attempt("processes", "trace-sibling", "trace a process of the same run", processes::trace_sibling),
    attempt("processes", "read-sibling", "read the memory of one", processes::read_sibling),
    attempt("processes", "take-descriptor", "take a descriptor of one", processes::take_descriptor),
    attempt("processes", "compare-sibling", "compare addresses of kernel objects by kcmp(2)", processes::compare_sibling).control(KERNEL),
    attempt("ipc", "shared-segment", "open a System V segment of the host", processes::shared_segment),
    attempt("ipc", "semaphores", "open a System V semaphore set", processes::semaphores),
    attempt("ipc", "message-queue", "open a System V message queue", processes::message_queue),
    attempt("ipc", "posix-queue", "open a POSIX message queue", processes::posix_queue).control(KERNEL),
    attempt("keys", "read-key", "read a key in the caller's session keyring", processes::read_key).control(Direct),
    attempt("keys", "find-key", "find it by its name", processes::find_key).control(Direct),
    attempt("keys", "add-key", "add a key", processes::add_key).control(KERNEL),
    attempt("keys", "request-key", "request a key", processes::request_key).control(Direct),
    attempt("rights", "set-user-id-program", "execute a program that runs as its owner", processes::set_user_id_program).control(Root),
    attempt("rights", "new-privileges", "be without no_new_privs", processes::new_privileges),
    attempt("rights", "gain-capabilities", "take CAP_SYS_ADMIN", processes::gain_capabilities).control(Root),
    attempt("rights", "become-another-user", "become root, or as root somebody else", processes::become_root).control(Root),
    attempt("rights", "execute-from-memory", "execute a program that lies in memory", processes::execute_from_memory)
        .accepted(&[(When::Always, Allowed(OWN_PROGRAMS))]),
    attempt("filter", "call-of-32-bits", "make a socket through int 0x80", processes::call_of_32_bits).control(KERNEL),
    attempt("filter", "call-of-x32", "make a call of x32", processes::call_of_x32).control(KERNEL),
];

#[rustfmt::skip]
pub(super) const NAMESPACES: &[Attempt] = &[
    attempt("namespaces", "unshare-users", "make a user namespace", kernel::unshare::<{ libc::CLONE_NEWUSER }>),
    attempt("namespaces", "unshare-mounts", "make a mount namespace", kernel::unshare::<{ libc::CLONE_NEWNS }>).control(Root),
    attempt("namespaces", "unshare-network", "make a network namespace", kernel::unshare::<{ libc::CLONE_NEWNET }>).control(Root),
    attempt("namespaces", "unshare-processes", "make a pid namespace", kernel::unshare::<{ libc::CLONE_NEWPID }>).control(Root),
    attempt("namespaces", "unshare-ipc", "make an IPC namespace", kernel::unshare::<{ libc::CLONE_NEWIPC }>).control(Root),
    attempt("namespaces", "unshare-names", "make a UTS namespace", kernel::unshare::<{ libc::CLONE_NEWUTS }>).control(Root),
    attempt("namespaces", "unshare-cgroups", "make a cgroup namespace", kernel::unshare::<{ libc::CLONE_NEWCGROUP }>).control(Root),
    attempt("namespaces", "unshare-time", "make a time namespace", kernel::unshare::<{ kernel::NEWTIME }>).control(KERNEL),
    attempt("namespaces", "unshare-users-and-mounts", "make a user namespace and mounts in it", kernel::unshare_mounts_as_new_user),
    attempt("namespaces", "clone-users", "make a user namespace by clone(2)", kernel::clone_user_namespace),
    attempt("namespaces", "clone3-users", "make one by clone3(2), whose flags lie in memory", kernel::clone3_user_namespace),
    attempt("namespaces", "enter-own-mounts", "enter a mount namespace", kernel::enter_own_mounts).control(Root),
    attempt("namespaces", "enter-mounts-of-pid-1", "enter the mount namespace of pid 1", kernel::enter_mounts_of_pid_1).control(PID_1),
    attempt("namespaces", "enter-users-of-victim", "enter the user namespace of a process of the host", kernel::enter_users_of_victim)
        .control(Open("nobody enters the namespace they are in")),
    attempt("namespaces", "parent-namespace", "get the user namespace above", kernel::parent_namespace).control(NOT_HERE),
    attempt("mounts", "mount-tmpfs", "mount a tmpfs", kernel::mount_tmpfs).control(Root),
    attempt("mounts", "mount-bind", "bind a directory elsewhere", kernel::mount_bind).control(Root),
    attempt("mounts", "mount-proc", "mount a procfs", kernel::mount_proc).control(Root),
    attempt("mounts", "make-root-writable", "make / writable", kernel::make_root_writable).control(Root),
    attempt("mounts", "clone-tree", "clone a mount tree", kernel::clone_tree).control(Root),
    attempt("mounts", "clone-tree-with-attributes", "clone one by open_tree_attr(2)", kernel::clone_tree_with_attributes).control(KERNEL),
    attempt("mounts", "move-mount", "move a mount", kernel::move_mount).control(Root),
    attempt("mounts", "open-file-system", "begin to make a file system", kernel::open_file_system).control(Root),
    attempt("mounts", "pivot-root", "exchange the root", kernel::pivot_root).control(Root),
    attempt("mounts", "change-root", "change the root", kernel::change_root).control(Root),
    attempt("mounts", "list-mounts", "list mounts by listmount(2)", kernel::list_mounts).control(KERNEL),
];

#[rustfmt::skip]
pub(super) const KERNEL_CALLS: &[Attempt] = &[
    attempt("kernel", "load-program", "make a map of BPF", kernel::load_program).control(KERNEL),
    attempt("kernel", "measure", "open a counter of performance", kernel::measure).control(KERNEL),
    attempt("kernel", "handle-faults", "handle page faults of user mode", kernel::handle_faults).control(KERNEL),
    attempt("kernel", "set-up-ring", "set up io_uring", kernel::set_up_ring).control(KERNEL),
    attempt("kernel", "load-kernel", "load another kernel", kernel::load_kernel).control(KERNEL),
    attempt("kernel", "load-module", "load a kernel module", kernel::load_module).control(KERNEL),
    attempt("kernel", "load-module-file", "load one from a file", kernel::load_module_file).control(KERNEL),
    attempt("kernel", "unload-module", "unload a kernel module", kernel::unload_module).control(KERNEL),
    attempt("kernel", "restart", "restart the machine", kernel::restart).control(Root),
    attempt("kernel", "swap", "swap to a file", kernel::swap).control(KERNEL),
    attempt("kernel", "adjust-clock", "adjust the clock", kernel::adjust_clock).control(Root),
    attempt("kernel", "rename-host", "name the host", kernel::rename_host).control(Root),
    attempt("kernel", "rename-domain", "name the domain", kernel::rename_domain).control(Root),
    attempt("kernel", "read-log", "read the kernel's log", kernel::read_log).control(Root),
    attempt("kernel", "watch-everything", "watch what anybody opens", kernel::watch_everything).control(KERNEL),
    attempt("kernel", "quota", "ask about quotas", kernel::quota).control(KERNEL),
    attempt("kernel", "account", "have the kernel write accounts", kernel::account).control(KERNEL),
    attempt("kernel", "weaken-memory", "make all readable memory executable", kernel::weaken_memory),
    attempt("kernel", "ports", "take a port of the machine", kernel::ports).control(KERNEL),
    attempt("filter", "unknown-call", "make a call that no kernel has", kernel::unknown_call).control(NOT_HERE),
    attempt("filter", "asking-filter", "install a filter whose questions the command answers itself", kernel::asking_filter)
        .accepted(&[(When::Landlock, Stopped), (When::Always, Allowed(NOBODY_ASKS))]),
    attempt("filter", "second-filter", "take our filter away by one that allows everything", kernel::second_filter),
];
