//! Which failed requests are tried again, and after which time.

use crate::terminal;
use anyhow::{Result, anyhow};
use indicatif::ProgressBar;
use std::time::Duration;
use ureq::http::{HeaderMap, header};

/// Most failed tries in a row that bring no progress.
pub const TRIES: u32 = 5;
/// Wait before the second try; each further wait is twice as long.
const WAIT: Duration = Duration::from_millis(500);
/// Longest wait that a server may ask for. The hub limits requests per five minutes.
const MAX_WAIT: Duration = Duration::from_secs(301);
/// A wait of at least this length is told even if stderr is not a terminal, because the program would seem to hang.
const LONG_WAIT: Duration = Duration::from_secs(5);

/// How a request failed.
#[derive(Debug)]
pub enum Fault {
    /// The next try may succeed. `why` it failed, how long the server asks to `wait`, and whether the try `gained` enough bytes
    /// to count as progress.
    Passing { why: String, wait: Option<Duration>, gained: bool },
    /// The next try would fail, too.
    Final(anyhow::Error),
}

impl Fault {
    /// A fault that may pass.
    pub fn passing(why: impl Into<String>) -> Fault {
        Fault::Passing { why: why.into(), wait: None, gained: false }
    }
}

impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Fault {
        Fault::Final(error)
    }
}

/// Repeats `attempt` until it succeeds, fails for good, or fails `tries` times in a row without progress. Notes above the
/// progress bar tell the waits between tries.
///
/// # Errors
/// The error of the last try, or that the server asks for too long a wait.
pub fn retrying<T>(
    hub: &str,
    tries: u32,
    bar: &ProgressBar,
    attempt: &mut dyn FnMut() -> Result<T, Fault>,
) -> Result<T> {
    let mut failed = 0;
    loop {
        let (why, asked, gained) = match attempt() {
            Ok(value) => return Ok(value),
            Err(Fault::Final(error)) => return Err(error),
            Err(Fault::Passing { why, wait, gained }) => (why, wait, gained),
        };
        failed = if gained { 1 } else { failed + 1 };
        let next = "Try again later: what is downloaded is kept. A model in a folder or in the cache needs no network";
        if let Some(asked) = asked.filter(|asked| *asked > MAX_WAIT) {
            return Err(anyhow!("cannot download from {hub}: {why} and asks to wait {} s. {next}", asked.as_secs()));
        }
        if failed >= tries {
            let times = if failed > 1 { format!(", {failed} times") } else { String::new() };
            return Err(anyhow!("cannot download from {hub}: {why}{times}. {next}"));
        }
        let wait = asked.unwrap_or(WAIT * 2u32.pow(failed - 1));
        let tell = if wait >= LONG_WAIT { terminal::note } else { terminal::note_if_watched };
        bar.suspend(|| tell(&format!("note: {hub}: {why}; trying again in {} s", wait.as_secs_f32())));
        std::thread::sleep(wait);
    }
}

/// The wait that an answer asks for. `RateLimit: "api";r=0;t=10` (no request left for 10 s) has precedence over `Retry-After:
/// 10`. A date in `Retry-After` is ignored. A limit that is not used up asks for no wait.
pub fn asked(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let seconds = match text("ratelimit").and_then(used_up) {
        // The server rounds these seconds, so one more is added.
        Some(seconds) => seconds.saturating_add(1),
        None => text(header::RETRY_AFTER.as_str())?.trim().parse().ok()?,
    };
    Some(Duration::from_secs(seconds))
}

/// Seconds until a limit that is used up is reset. If there are several limits, only the first counts.
fn used_up(value: &str) -> Option<u64> {
    let first = value.split(',').next()?;
    let number = |name: &str| {
        let parts = first.split(';').skip(1).filter_map(|part| part.split_once('='));
        parts.map(|(key, value)| (key.trim(), value.trim())).find(|(key, _)| *key == name)?.1.parse::<u64>().ok()
    };
    (number("r") == Some(0)).then(|| number("t")).flatten()
}

#[cfg(test)]
mod tests {
    use ureq::http::HeaderValue;

    #[test]
    fn headers_tell_how_long() {
        let asked = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
            super::asked(&headers.collect()).map(|wait| wait.as_secs())
        };
        assert_eq!(asked(&[("ratelimit", "\"api\";r=0;t=10")]), Some(11));
        assert_eq!(asked(&[("ratelimit", "\"api\" ; r = 0 ; t = 55")]), Some(56));
        assert_eq!(asked(&[("ratelimit", "\"api\";r=0;t=10"), ("retry-after", "3")]), Some(11));
        assert_eq!(asked(&[("ratelimit", "\"api\";r=5;t=10"), ("retry-after", "3")]), Some(3));
        assert_eq!(asked(&[("ratelimit", "\"api\";r=5;t=10")]), None);
        assert_eq!(asked(&[("retry-after", " 3 ")]), Some(3));
        assert_eq!(asked(&[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")]), None);
        assert_eq!(asked(&[("ratelimit", "r=0"), ("retry-after", "-1")]), None);
        assert_eq!(asked(&[("ratelimit", "\"api\";r=0;t=x")]), None);
        assert_eq!(asked(&[("ratelimit", "\"api\";r=0;t=18446744073709551615")]), Some(u64::MAX));
        assert_eq!(asked(&[]), None);
    }
}
