//! Hides what drivers write to stderr while they are opened. Vulkan's loader and its layers write warnings that nobody who runs
//! a model needs. Without a desktop session, Mesa even prints a line that begins with `error:`.

use std::future::Future;

/// Runs `task` while stderr leads to nowhere. With `verbose`, stderr stays as it is.
pub async fn during<T>(verbose: bool, task: impl Future<Output = T>) -> T {
    if !verbose {
        stderr::begin();
    }
    let result = task.await;
    end();
    result
}

/// Restores stderr, if it is redirected.
pub fn end() {
    stderr::end();
}

#[cfg(unix)]
mod stderr {
    use std::fs::File;
    use std::io;
    use std::os::fd::{AsFd as _, OwnedFd};
    use std::sync::{Mutex, PoisonError};

    /// The real stderr while it is redirected.
    static AWAY: Mutex<Option<OwnedFd>> = Mutex::new(None);

    // If one of these calls fails, the drivers' output is visible, which does no harm.

    pub fn begin() {
        let saved = io::stderr().as_fd().try_clone_to_owned();
        let nowhere = File::options().write(true).open("/dev/null");
        if let (Ok(saved), Ok(nowhere)) = (saved, nowhere) {
            *AWAY.lock().unwrap_or_else(PoisonError::into_inner) = Some(saved);
            let _ = rustix::stdio::dup2_stderr(nowhere);
        }
    }

    pub fn end() {
        if let Some(saved) = AWAY.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = rustix::stdio::dup2_stderr(saved);
        }
    }
}

#[cfg(not(unix))]
mod stderr {
    pub fn begin() {}
    pub fn end() {}
}
