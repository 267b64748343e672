//! Requests to the hub: what is tried again, for how long, and what a refusal means.

use super::settings::Settings;
use crate::terminal;
use anyhow::{Result, anyhow};
use std::io::Read as _;
use std::time::Duration;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, header};
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body};

/// Tries of one request that bring nothing new.
const TRIES: u32 = 5;
/// Wait before the second try; each further wait is twice as long.
const WAIT: Duration = Duration::from_millis(500);
/// The longest wait that a server may ask for.
const MAX_WAIT: Duration = Duration::from_secs(60);
const MAX_REDIRECTS: u32 = 8;
/// The whole time that a small answer may take.
const SMALL: Duration = Duration::from_secs(60);

/// How a request failed.
#[derive(Debug)]
pub enum Fault {
    /// It may go well the next time: why, how long the server asks to wait, and whether bytes came in all the same.
    Passing { why: String, wait: Option<Duration>, gained: bool },
    /// It will not.
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

/// The hub, or a mirror of it.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    timeout: Duration,
}

impl Client {
    /// Opens no connection yet.
    pub fn new(settings: &Settings) -> Client {
        let timeout = Some(settings.timeout);
        // Windows and Apple systems bring their own TLS, which knows the roots that their owner trusts.
        let provider =
            if cfg!(any(windows, target_vendor = "apple")) { TlsProvider::NativeTls } else { TlsProvider::Rustls };
        let tls = TlsConfig::builder().provider(provider).root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .https_only(settings.endpoint.starts_with("https:"))
            .http_status_as_error(false)
            .max_redirects(MAX_REDIRECTS)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent(concat!("nemoflash/", env!("CARGO_PKG_VERSION")))
            // Another encoding would have another length and another checksum.
            .accept_encoding("identity")
            .timeout_resolve(timeout)
            .timeout_connect(timeout)
            .timeout_recv_response(timeout)
            .timeout_per_read(timeout)
            .timeout_per_write(timeout)
            .build();
        let Settings { endpoint, token, timeout, .. } = settings.clone();
        Client { agent: config.new_agent(), endpoint, token, timeout }
    }

    /// The hub's address.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Asks for a file from byte `from` on. The answer is 200 (all of it), 206 (the rest) or 416 (no such byte).
    ///
    /// # Errors
    /// Every other answer, and none.
    pub fn get(&self, path: &str, from: u64) -> Result<Response<Body>, Fault> {
        self.request(path, from, None)
    }

    fn request(&self, path: &str, from: u64, whole: Option<Duration>) -> Result<Response<Body>, Fault> {
        let mut request = self.agent.get(format!("{}{path}", self.endpoint)).config().timeout_global(whole).build();
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let response = request.call().map_err(|error| self.fault(error))?;
        match response.status().as_u16() {
            200 | 206 | 416 => Ok(response),
            status @ (408 | 429 | 500..) => {
                let wait =
                    response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
                let why = format!("the server answers {status}");
                Err(Fault::Passing { why, wait: wait.map(Duration::from_secs), gained: false })
            }
            status => Err(Fault::Final(self.refusal(status))),
        }
    }

    fn fault(&self, error: ureq::Error) -> Fault {
        use ureq::Error::{Io, Timeout};
        match error {
            Timeout(_) => Fault::passing(self.silent()),
            // What TLS refuses, it will refuse again.
            Io(error) if error.kind() == std::io::ErrorKind::InvalidData => Fault::Final(self.untrusted(&error)),
            Io(error) => self.broken(&error),
            ureq::Error::HostNotFound => Fault::passing("its name is not found; is there a network?"),
            ureq::Error::ConnectionFailed => Fault::passing("no connection"),
            ureq::Error::TooManyRedirects => Fault::Final(anyhow!(
                "{} redirects more than {MAX_REDIRECTS} times and never answers. Check HF_ENDPOINT and the proxy",
                self.endpoint
            )),
            error => Fault::Final(self.untrusted(&error)),
        }
    }

    fn untrusted(&self, error: &dyn std::error::Error) -> anyhow::Error {
        anyhow!(
            "cannot talk to {}: {error}. Check HF_ENDPOINT, the proxy, and the system's certificates",
            self.endpoint
        )
    }

    /// What a failed read means.
    pub fn broken(&self, error: &std::io::Error) -> Fault {
        let timeout = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
        match timeout {
            Some(ureq::Error::Timeout(_)) => Fault::passing(self.silent()),
            _ if error.kind() == std::io::ErrorKind::TimedOut => Fault::passing(self.silent()),
            _ => Fault::passing(format!("the connection failed: {error}")),
        }
    }

    fn silent(&self) -> String {
        format!("silence for {} s (HF_HUB_DOWNLOAD_TIMEOUT)", self.timeout.as_secs_f32())
    }

    fn refusal(&self, status: u16) -> anyhow::Error {
        let hub = &self.endpoint;
        match (status, &self.token) {
            (401, None) => anyhow!(
                "{hub} answers 401: no such repository, or it is private or gated and there is no access token. Check the \
                 spelling; for a gated model, accept its terms on its page, then set HF_TOKEN to a token from {hub}/settings/tokens"
            ),
            (401 | 403, _) => anyhow!(
                "{hub} answers {status}: this repository is private or gated, and the access token (HF_TOKEN) does not open \
                 it or is no longer valid. Accept the model's terms on its page, or set a token that may read it"
            ),
            (404, _) => anyhow!(
                "{hub} answers 404: no such repository, revision or file. Check the spelling of --model and --revision"
            ),
            _ => anyhow!("{hub} answers {status}, which is no answer to a download. Check HF_ENDPOINT and the proxy"),
        }
    }

    /// A small answer as a whole, tried again where that may help.
    ///
    /// # Errors
    /// If it does not come, or is longer than `most` bytes.
    pub fn small(&self, path: &str, most: u64) -> Result<Vec<u8>> {
        self.retrying(&mut terminal::note_if_watched, &mut || {
            let response = self.request(path, 0, Some(SMALL.max(self.timeout)))?;
            let mut bytes = vec![];
            let read = response.into_body().into_reader().take(most + 1).read_to_end(&mut bytes);
            read.map_err(|error| self.broken(&error))?;
            if bytes.len() as u64 > most {
                return Err(Fault::Final(anyhow!(
                    "{}{path} is longer than {most} bytes, which no such answer is. Check HF_ENDPOINT and the proxy",
                    self.endpoint
                )));
            }
            Ok(bytes)
        })
    }

    /// Tries until it goes well, fails for good, or fails [`TRIES`] times in a row with no byte gained.
    ///
    /// # Errors
    /// As the last try's.
    pub fn retrying<T>(
        &self,
        on_wait: &mut dyn FnMut(&str),
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
            let hub = &self.endpoint;
            let next =
                "Try again later: what is downloaded is kept. A model in a folder or in the cache needs no network";
            if let Some(asked) = asked.filter(|asked| *asked > MAX_WAIT) {
                return Err(anyhow!(
                    "cannot download from {hub}: {why} and asks to wait {} s. {next}",
                    asked.as_secs()
                ));
            }
            if failed >= TRIES {
                return Err(anyhow!("cannot download from {hub}: {why}, {failed} times. {next}"));
            }
            let wait = asked.unwrap_or(WAIT * 2u32.pow(failed - 1));
            on_wait(&format!("note: {hub}: {why}; trying again in {} s", wait.as_secs_f32()));
            std::thread::sleep(wait);
        }
    }
}
