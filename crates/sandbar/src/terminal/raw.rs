//! Raw mode of our own terminal, and its end whatever happens.
//!
//! One terminal is raw at a time, that of standard input. What it was is kept where a panic's hook finds it too,
//! because a release panics without unwinding. A terminal that is not ours right now (we are in the background) is
//! never touched: whoever is in the foreground has set it as they need it.

use std::os::fd::AsFd as _;
use std::sync::{Mutex, Once, PoisonError};

use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// What the terminal was before it became raw; `None` while it is as it was.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

static HOOK: Once = Once::new();

/// Raw mode of standard input, until it is dropped.
#[derive(Debug)]
pub(crate) struct RawMode {
    /// The settings to come back to; `None` until the terminal was ours once, since those that another sees are its.
    settings: Option<Termios>,
}

/// Whether the terminal on standard input is ours: it is our session's, and our process group is in its foreground.
pub(crate) fn is_foreground() -> bool {
    rustix::termios::tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}

impl RawMode {
    /// Makes the terminal raw, as soon as it is ours.
    ///
    /// # Errors
    /// ENOTTY: standard input is none.
    pub(crate) fn enter() -> Result<Self, Errno> {
        HOOK.call_once(|| {
            let previous = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                leave();
                previous(panic);
            }));
        });
        // Asked for the error alone: in the background they are somebody else's.
        tcgetattr(std::io::stdin())?;
        let mut raw = Self { settings: None };
        raw.again()?;
        Ok(raw)
    }

    /// Makes it raw again after [`RawMode::pause`], if it is ours.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(crate) fn again(&mut self) -> Result<(), Errno> {
        if !is_foreground() {
            return Ok(());
        }
        let before = match &self.settings {
            Some(settings) => settings.clone(),
            None => self.settings.insert(tcgetattr(std::io::stdin())?).clone(),
        };
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        // Not drained: a terminal that is held by Ctrl-S would hold us, too.
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)
    }

    /// Gives the terminal back for a while.
    pub(crate) fn pause(&self) {
        leave();
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        leave();
    }
}

/// Puts the terminal back. Does nothing where there is nothing to put back. Where that is not ours to do, what it was
/// stays saved: whoever has the terminal now has set it, and [`RawMode::again`] may find it ours later.
fn leave() {
    if !is_foreground() {
        return;
    }
    // Whoever holds the lock is about to put it back, or to make it raw: in a panic of that very moment, nobody waits.
    let Ok(mut before) = BEFORE.try_lock() else { return };
    if let Some(settings) = before.take() {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(std::io::stdin().as_fd(), OptionalActions::Now, &settings);
    }
}
