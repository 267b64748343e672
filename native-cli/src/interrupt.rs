//! Ctrl-C: stops an answer or a measurement first, and the program only when there is none to stop.

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
    /// Nothing here: a line editor reads it as a key, and one that comes just after an answer must not end the chat.
    Editor,
}

/// Takes Ctrl-C over from the system. Asked for the second time during one answer, it ends the program.
///
/// # Errors
/// If the system does not let it.
pub fn install(idle: Idle) -> anyhow::Result<()> {
    ctrlc::set_handler(move || match STATE.compare_exchange(ANSWERING, STOPPED, SeqCst, SeqCst) {
        Ok(_) => {}
        Err(IDLE) if idle == Idle::Editor => {}
        Err(_) => std::process::exit(130),
    })
    .map_err(|error| anyhow::anyhow!("cannot watch for Ctrl-C: {error}. Run nemoflash from an ordinary terminal"))
}

/// Gives the terminal back as it is now if the program is told to end while a line editor holds it: by `kill` (SIGTERM), by a
/// terminal that closes (SIGHUP), by SIGQUIT. The program then ends as by that signal.
///
/// # Errors
/// If there is no terminal, or the system does not let it.
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
        // Where the terminal is gone, there is nothing to give back.
        let _ = tcsetattr(&terminal, OptionalActions::Now, &before);
        // The editor had asked for pasted text to be marked.
        let _ = terminal.write_all(b"\x1b[?2004l\r\n");
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    });
    Ok(())
}

/// While it lives, Ctrl-C stops the answer; afterwards it ends the program again.
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
