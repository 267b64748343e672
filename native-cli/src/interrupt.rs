//! Ctrl-C: stops a running answer or measurement, and ends the program if none is running.

use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

const IDLE: u8 = 0;
const ANSWERING: u8 = 1;
const STOPPED: u8 = 2;
static STATE: AtomicU8 = AtomicU8::new(IDLE);

/// What Ctrl-C does between answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// It ends the program.
    Exit,
    /// It does nothing: the line editor reads it as a key, and a Ctrl-C that comes just after an answer must not end the chat.
    Editor,
}

/// Handles Ctrl-C from now on. A second Ctrl-C during one answer ends the program.
///
/// # Errors
/// If the system does not permit it.
pub fn install(idle: Idle) -> anyhow::Result<()> {
    ctrlc::set_handler(move || match STATE.compare_exchange(ANSWERING, STOPPED, SeqCst, SeqCst) {
        Ok(_) => {}
        Err(IDLE) if idle == Idle::Editor => {}
        Err(_) => std::process::exit(130),
    })
    .map_err(|error| anyhow::anyhow!("cannot watch for Ctrl-C: {error}. Run nemoflash from an ordinary terminal"))
}

/// Restores the terminal's present mode if a signal ends the program while the line editor has changed it. The signals are
/// SIGTERM (`kill`), SIGHUP (the terminal closes) and SIGQUIT. The program then ends as that signal ends any program.
///
/// # Errors
/// If there is no terminal, or the system does not permit it.
#[cfg(unix)]
pub fn give_terminal_back() -> std::io::Result<()> {
    use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
    use signal_hook::consts::{SIGHUP, SIGQUIT, SIGTERM};
    use std::io::Write as _;

    let mut terminal = std::fs::File::options().read(true).write(true).open("/dev/tty")?;
    let before = tcgetattr(&terminal)?;
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGQUIT, SIGTERM])?;
    std::thread::spawn(move || {
        let Some(signal) = signals.forever().next() else { return };
        // An error means that the terminal is gone. Then there is nothing to restore.
        let _ = tcsetattr(&terminal, OptionalActions::Now, &before);
        // The line editor had switched on the marking of pasted text. This switches it off.
        let _ = terminal.write_all(b"\x1b[?2004l\r\n");
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    });
    Ok(())
}

/// While this exists, Ctrl-C stops the answer. Afterwards Ctrl-C does what [`Idle`] says.
#[derive(Debug)]
pub struct Answering(());

impl Answering {
    /// Begins an answer that nobody has stopped yet.
    pub fn begin() -> Answering {
        STATE.store(ANSWERING, SeqCst);
        Answering(())
    }

    /// Whether Ctrl-C was pressed.
    pub fn stopped(&self) -> bool {
        STATE.load(SeqCst) == STOPPED
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        STATE.store(IDLE, SeqCst);
    }
}
