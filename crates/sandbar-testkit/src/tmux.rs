//! tmux as a person at a terminal: it shows what a real terminal would, and types what it is told.
//!
//! A server of the test's own, with its socket in the test's home, ended with the test.

use std::process::Command;
use std::time::Instant;

use crate::home::{Home, PATH};
use crate::need::{self, Need};
use crate::running::finish;
use crate::wait::DEADLINE;

/// A tmux server with one window of 80 columns and 24 rows, and a shell in it.
pub struct Tmux {
    server: Command,
}

/// What the shell in the window asks with.
const PROMPT: &str = "outer$";

impl Tmux {
    /// Starts a server for `home` with a bash that has job control.
    ///
    /// # Errors
    /// tmux or bash is not installed.
    ///
    /// # Panics
    /// The server does not start.
    pub fn start(home: &Home) -> Need<Self> {
        let tmux = need::program("tmux")?;
        let bash = need::program("bash")?;
        let mut server = home.command(tmux);
        server.env("TERM", "xterm").args(["-f", "/dev/null", "-S"]).arg(home.outside().join("tmux"));
        let this = Self { server };
        let shell = format!(
            "env -i PATH={PATH} HOME={} SANDBAR_HOME={} LANG=C.UTF-8 TERM=screen PS1='{PROMPT} ' {} --norc --noprofile",
            home.user_home().display(),
            home.sandbar_home().display(),
            bash.display()
        );
        let _ = this.tmux(&["new-session", "-d", "-x", "80", "-y", "24", &shell]);
        this.expect(PROMPT);
        // Found by name, so that a line typed is short enough not to wrap.
        this.line(&format!("sandbar() {{ command {} \"$@\"; }}; clear", home.program().display()));
        Ok(this)
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(self.server.get_program());
        command.args(self.server.get_args()).args(arguments).env_clear();
        command.envs(self.server.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(self.server.get_current_dir().unwrap_or("/".as_ref()));
        finish(&mut command).ok()
    }

    /// Types keys, by tmux's names: `Enter`, `C-c`, `Escape`.
    ///
    /// # Panics
    /// The server is gone.
    pub fn keys(&self, keys: &[&str]) {
        let _ = self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Types text.
    ///
    /// # Panics
    /// The server is gone.
    pub fn text(&self, text: &str) {
        let _ = self.tmux(&["send-keys", "-l", "--", text]);
    }

    /// Types a line.
    ///
    /// # Panics
    /// The server is gone.
    pub fn line(&self, text: &str) {
        self.text(text);
        self.keys(&["Enter"]);
    }

    /// Gives the window another size.
    ///
    /// # Panics
    /// The server is gone.
    pub fn resize(&self, rows: u16, columns: u16) {
        let _ = self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// What the window shows, without empty lines at its end.
    ///
    /// # Panics
    /// The server is gone.
    #[must_use]
    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"]).trim_end().to_owned()
    }

    /// Waits until the window shows what `is_there` looks for, and returns all that it shows.
    ///
    /// # Panics
    /// It does not.
    #[track_caller]
    pub fn wait_for(&self, what: &str, is_there: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            // Asking takes a process each time, so nothing else has to slow this down.
            let screen = self.screen();
            if is_there(&screen) {
                return screen;
            }
            assert!(Instant::now() < end, "{what} did not show within {} s:\n{screen}", DEADLINE.as_secs());
        }
    }

    /// Waits until the window shows `text`.
    ///
    /// # Panics
    /// It does not.
    #[track_caller]
    pub fn expect(&self, text: &str) -> String {
        self.wait_for(text, |screen| screen.contains(text))
    }

    /// Waits until the last line that shows is the outer shell's prompt, with nothing behind it.
    ///
    /// # Panics
    /// It does not.
    #[track_caller]
    pub fn expect_prompt(&self) -> String {
        self.wait_for("the outer prompt", |screen| screen.lines().last() == Some(PROMPT))
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let mut command = Command::new(self.server.get_program());
        command.args(self.server.get_args()).arg("kill-server").env_clear();
        let _ = command.status();
    }
}
