//! Attempts at files.

use super::attempt;
use crate::attempts::{files, protected, secrets};
use crate::expect::Control::{self, Direct, Open, Root};
use crate::expect::Expected::Allowed;
use crate::expect::{Attempt, When};

const ONE_INODE: &str = "a hard link that was there before is the same file";
const THE_WORKSPACE: &str = "it is the workspace, which whoever runs it reviews";
const GITS_OWN: &str = "git writes its log wherever a link there leads, and commits need the log";
const READING: &str = "builds read toolchains from anywhere; secrets are hidden";
const LOCKS: &str = "who may read a file may lock it; that delays others and changes nothing";
const GIVEN_UP: &str =
    "Landlock alone can't protect a name in a writable folder, and it was given up by its name";
const GIVES_UP: When = When::Both(&When::Writable, &When::Landlock);
const MENDED: Control = Open("kernels were mended");
const FILE_SYSTEM: Control = Open("not every file system and kernel has it");

#[rustfmt::skip]
pub(super) const OUTSIDE: &[Attempt] = &[
    attempt("outside", "write-outside", "open a file outside for writing", files::write_outside),
    attempt("outside", "create-in-root", "make a file in /", files::create_in_root).control(Root),
    attempt("outside", "create-outside", "make a file outside", files::create_outside),
    attempt("outside", "create-in-home", "make a file in the home directory", files::create_in_home),
    attempt("outside", "create-above", "make a file in the directory above the workspace", files::create_above),
    attempt("outside", "write-passwd", "open /etc/passwd for writing", files::write_passwd).control(Root),
    attempt("outside", "write-through-symbolic-link", "write through a link in the workspace that leads out", files::write_through_symbolic_link),
    attempt("outside", "write-through-hard-link", "write through a hard link in the workspace that was there before", files::write_through_hard_link)
        .accepted(&[(When::Writable, Allowed(ONE_INODE))]),
    attempt("outside", "link-outside", "make a hard link of an outside file in the workspace", files::link_outside),
    attempt("outside", "link-by-descriptor", "make such a link from an open descriptor", files::link_by_descriptor),
    attempt("outside", "rename-into-workspace", "move an outside file into the workspace", files::rename_into_workspace),
    attempt("outside", "rename-out-of-workspace", "move a file of the workspace out", files::rename_out_of_workspace),
    attempt("outside", "exchange-outside", "exchange a file of the workspace with an outside one", files::exchange_outside),
    attempt("outside", "rename-workspace", "move the workspace itself", files::rename_workspace),
    attempt("outside", "write-by-proc-root", "write outside through /proc/self/root", files::write_by_proc_root),
    attempt("outside", "write-by-proc-cwd", "write outside through /proc/self/cwd/..", files::write_by_proc_cwd),
    attempt("outside", "write-by-proc-1-root", "write outside through /proc/1/root", files::write_by_proc_1_root).control(Open("without a sandbox pid 1 is the host's own")),
    attempt("outside", "reopen-to-write", "open an outside file for reading, and its descriptor for writing", files::reopen_to_write),
    attempt("outside", "write-mapped", "map an outside file and write into the mapping", files::write_mapped),
    attempt("outside", "write-mapped-read-only", "write into a mapping of a file opened for reading", files::write_mapped_read_only)
        .control(Open("the kernel refuses it to everybody")),
    attempt("outside", "truncate-outside", "truncate an outside file by path", files::truncate),
    attempt("outside", "chmod-outside", "change an outside file's mode", files::chmod),
    attempt("outside", "chmod-by-descriptor", "change it through a descriptor opened for reading", files::chmod_by_descriptor),
    attempt("outside", "chown-outside", "change an outside file's owner", files::chown),
    attempt("outside", "set-times-outside", "change an outside file's times", files::set_times),
    attempt("outside", "set-attribute-outside", "set an extended attribute of an outside file", files::set_attribute),
    attempt("outside", "set-attribute-by-descriptor", "set it through a descriptor opened for reading", files::set_attribute_by_descriptor),
    attempt("outside", "set-file-attributes-outside", "set an outside file's flags by file_setattr(2)", files::set_file_attributes).control(FILE_SYSTEM),
    attempt("outside", "set-inode-flags-outside", "set an outside file's flags by ioctl", files::set_inode_flags).control(FILE_SYSTEM),
    attempt("outside", "make-unnamed-outside", "make a file without a name outside", files::make_unnamed),
    attempt("outside", "make-directory-outside", "make a directory outside", files::make_directory_outside),
    attempt("outside", "remove-outside", "remove an outside file", files::remove_outside),
    attempt("outside", "make-symbolic-link-outside", "make a symbolic link outside", files::make_symbolic_link_outside),
    attempt("outside", "make-fifo-outside", "make a FIFO outside", files::make_fifo_outside),
    attempt("outside", "bind-socket-outside", "bind a socket to a path outside", files::bind_socket_outside),
    attempt("outside", "write-fifo", "open a FIFO of the host for writing", files::write_fifo),
    attempt("outside", "write-host-tmp", "write a file of the host's /tmp", files::write_host_tmp),
    attempt("outside", "write-host-shared-memory", "write a file of the host's /dev/shm", files::write_host_shared_memory),
    attempt("outside", "read-outside", "read an ordinary outside file", files::read_outside)
        .accepted(&[(When::Always, Allowed(READING))]),
    attempt("outside", "lock-outside", "lock an outside file against others", files::lock_outside)
        .accepted(&[(When::Always, Allowed(LOCKS))]),
    attempt("outside", "lease-outside", "take a lease on an outside file, which delays who writes it", files::lease_outside)
        .accepted(&[(When::Always, Allowed(LOCKS))]),
    attempt("outside", "dirty-pipe", "write into the page cache of a file opened for reading (CVE-2022-0847)", files::dirty_pipe).control(MENDED),
];

#[rustfmt::skip]
pub(super) const PROTECTED: &[Attempt] = &[
    attempt("git", "git-config", "open .git/config for writing", protected::git_config)
        .accepted(&[(GIVES_UP, Allowed(GIVEN_UP))]),
    attempt("git", "git-hook", "make a hook", protected::git_hook)
        .accepted(&[(GIVES_UP, Allowed(GIVEN_UP))]),
    attempt("git", "git-hook-change", "open a hook for writing", protected::git_hook_change)
        .accepted(&[(GIVES_UP, Allowed(GIVEN_UP))]),
    attempt("git", "git-rename", "move .git away", protected::git_rename)
        .accepted(&[(GIVES_UP, Allowed(GIVEN_UP))]),
    attempt("git", "git-hooks-rename", "move .git/hooks away", protected::git_hooks_rename)
        .accepted(&[(GIVES_UP, Allowed(GIVEN_UP))]),
    attempt("git", "git-info-rename", "move a directory above a protected name away", protected::git_info_rename)
        .accepted(&[(GIVES_UP, Allowed(GIVEN_UP))]),
    attempt("git", "git-config-replace", "rename another file onto .git/config", protected::git_config_replace)
        .accepted(&[(GIVES_UP, Allowed(GIVEN_UP))]),
    attempt("git", "git-config-exchange", "exchange .git/config with another file", protected::git_config_exchange)
        .accepted(&[(GIVES_UP, Allowed(GIVEN_UP))]),
    attempt("git", "git-config-link", "make a hard link of .git/config elsewhere", protected::git_config_link)
        .accepted(&[(GIVES_UP, Allowed(GIVEN_UP))]),
    attempt("git", "git-config-remove", "remove .git/config", protected::git_config_remove)
        .accepted(&[(GIVES_UP, Allowed(GIVEN_UP))]),
    attempt("git", "git-config-uncover", "unmount what covers .git/config", protected::git_config_uncover)
        .control(Open("nothing is mounted there")),
    attempt("git", "git-config-worktree", "make .git/config.worktree", protected::git_config_worktree)
        .accepted(&[(GIVES_UP, Allowed(GIVEN_UP))]),
    attempt("git", "git-commondir", "make .git/commondir", protected::git_commondir)
        .accepted(&[(GIVES_UP, Allowed(GIVEN_UP))]),
    attempt("git", "git-attributes", "make .git/info/attributes", protected::git_attributes)
        .accepted(&[(GIVES_UP, Allowed(GIVEN_UP))]),
    attempt("git", "git-module", "make a submodule's repository in .git/modules", protected::git_module)
        .accepted(&[(GIVES_UP, Allowed(GIVEN_UP))]),
    attempt("git", "git-remote", "make a file in .git/remotes", protected::git_remote)
        .accepted(&[(GIVES_UP, Allowed(GIVEN_UP))]),
    attempt("git", "git-nested-hook", "make a hook of a repository within the workspace", protected::git_nested_hook)
        .accepted(&[(GIVES_UP, Allowed(GIVEN_UP))]),
    attempt("git", "git-log-link", "make .git/logs/HEAD a link to a file of the home directory", protected::git_log_link)
        .accepted(&[(When::Writable, Allowed(GITS_OWN))]),
    attempt("names", "editor-tasks", "write .vscode/tasks.json", protected::editor_tasks)
        .accepted(&[(When::Writable, Allowed(THE_WORKSPACE))]),
    attempt("names", "agent-write", "open .claude/settings.json for writing", protected::own_write)
        .accepted(&[(GIVES_UP, Allowed(GIVEN_UP))]),
    attempt("names", "agent-rename", "move .claude away", protected::own_rename)
        .accepted(&[(GIVES_UP, Allowed(GIVEN_UP))]),
    attempt("names", "agent-exchange", "exchange .claude with another directory", protected::own_exchange)
        .accepted(&[(GIVES_UP, Allowed(GIVEN_UP))]),
    attempt("names", "agent-make", "make .agents, which is missing", protected::own_make)
        .accepted(&[(GIVES_UP, Allowed(GIVEN_UP))]),
    attempt("names", "agent-fill", "make a file in .codex, which is missing", protected::own_fill)
        .accepted(&[(GIVES_UP, Allowed(GIVEN_UP))]),
    attempt("names", "agent-rename-onto", "rename a directory to .agents", protected::own_rename_onto)
        .accepted(&[(GIVES_UP, Allowed(GIVEN_UP))]),
    attempt("names", "agent-symbolic-link", "make .sandbar a symbolic link", protected::own_symbolic_link)
        .accepted(&[(GIVES_UP, Allowed(GIVEN_UP))]),
    attempt("names", "agent-other-case", "write .claude by a name in another case", protected::own_other_case)
        .control(Open("few file systems ignore case")),
];

#[rustfmt::skip]
pub(super) const SECRETS: &[Attempt] = &[
    attempt("secrets", "secret-ssh-key", "read a key in ~/.ssh", secrets::ssh_key),
    attempt("secrets", "secret-cloud-credentials", "read ~/.aws/credentials", secrets::cloud_credentials),
    attempt("secrets", "secret-gnupg-ring", "read a key ring in ~/.gnupg", secrets::gnupg_ring),
    attempt("secrets", "secret-forge-token", "read ~/.config/gh/hosts.yml", secrets::forge_token),
    attempt("secrets", "secret-git-credentials", "read ~/.git-credentials", secrets::git_credentials),
    attempt("secrets", "secret-netrc", "read ~/.netrc", secrets::netrc),
    attempt("secrets", "secret-shell-history", "read ~/.bash_history", secrets::shell_history),
    attempt("secrets", "secret-browser-keys", "read keys of a browser", secrets::browser_keys),
    attempt("secrets", "secret-by-proc-root", "read a key through /proc/self/root", secrets::by_proc_root),
    attempt("secrets", "secret-rename", "move ~/.ssh from under its cover", secrets::rename_secrets),
    attempt("secrets", "secret-list", "list ~/.ssh", secrets::list_secrets),
    attempt("secrets", "secret-by-handle", "open a file by a handle, which no path leads to", secrets::open_by_handle).control(Root),
    attempt("secrets", "secret-shadow", "read /etc/shadow", secrets::shadow).control(Root),
    attempt("secrets", "secret-variable", "read a credential in the environment", secrets::variable).control(Direct),
    attempt("own", "own-directory", "list Sandbar's own directory", secrets::own_directory).control(Open("whoever starts it may have no Sandbar")),
    attempt("own", "own-record", "read a file of Sandbar's own", secrets::own_record).control(Open("whoever starts it may have no Sandbar")),
    attempt("own", "own-write", "make a file in Sandbar's own directory", secrets::own_write).control(Open("whoever starts it may have no Sandbar")),
    attempt("own", "own-socket", "connect to the keeper", secrets::own_socket).control(Open("whoever starts it may have no Sandbar")),
];

#[rustfmt::skip]
pub(super) const RIGHTS: &[Attempt] = &[
    attempt("rights", "set-user-id-bit", "give a file of the workspace the set-user-id bit", files::set_user_id_bit),
    attempt("rights", "set-group-id-bit", "give it the set-group-id bit", files::set_group_id_bit),
    attempt("rights", "set-user-id-bit-by-descriptor", "give the bit through a descriptor", files::set_user_id_bit_by_descriptor),
    attempt("rights", "set-user-id-bit-by-fchmodat2", "give the bit by fchmodat2(2)", files::set_user_id_bit_by_fchmodat2).control(FILE_SYSTEM),
    attempt("rights", "create-with-set-user-id-bit", "make a file with the bit", files::create_with_set_user_id_bit),
    attempt("rights", "create-with-bit-by-openat2", "make one by openat2(2), whose mode lies in memory", files::create_with_set_user_id_bit_by_openat2),
    attempt("rights", "make-node-with-bit", "make one by mknod(2)", files::make_node_with_set_user_id_bit),
    attempt("rights", "set-file-capability", "give a file a capability", files::set_file_capability).control(Root),
    attempt("rights", "make-character-device", "make the node of /dev/mem", files::make_character_device).control(Root),
    attempt("rights", "make-block-device", "make the node of a disk", files::make_block_device).control(Root),
];
