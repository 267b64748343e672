//! Requests to the hub: proxies, redirects, the access token, and the meaning of answers.

use super::id::Id;
use super::proxy;
use super::refusal::Refusal;
use super::retry::{self, Fault, TRIES, retrying};
use super::settings::Settings;
use anyhow::{Result, anyhow};
use indicatif::ProgressBar;
use std::io::Read as _;
use std::time::Duration;
use ureq::http::{HeaderMap, Response, Uri, header};
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body};

const MAX_REDIRECTS: u32 = 8;
/// The header with the checksum of a large file, which is stored on another host.
pub const LINKED_ETAG: &str = "x-linked-etag";
/// Longest time for a small answer, from the request to the last byte.
const SMALL: Duration = Duration::from_secs(60);

/// A client of the hub, or of a mirror of it, for one repository.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    endpoint: String,
    id: Id,
    token: Option<String>,
    timeout: Duration,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// The headers of a file. Only the hub itself gives them, and not the host where large files are stored.
    Head,
    /// The bytes of a file from this one on.
    From(u64),
}

impl Client {
    /// Makes a client. It opens no connection yet.
    ///
    /// # Errors
    /// If there is an access token that cannot be read or used.
    pub fn new(settings: &Settings, id: &Id) -> Result<Client> {
        let timeout = Some(settings.timeout);
        // Windows and Apple systems have a TLS library of their own, which knows the certificates that the owner trusts.
        let provider =
            if cfg!(any(windows, target_vendor = "apple")) { TlsProvider::NativeTls } else { TlsProvider::Rustls };
        let tls = TlsConfig::builder().provider(provider).root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .https_only(settings.endpoint.starts_with("https:"))
            .http_status_as_error(false)
            // `request` follows redirects itself, because each address may need another proxy and may not see the token.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("nemoflash/", env!("CARGO_PKG_VERSION")))
            // A compressed answer would have another length and another checksum.
            .accept_encoding("identity")
            .timeout_resolve(timeout)
            .timeout_connect(timeout)
            .timeout_recv_response(timeout)
            .timeout_per_read(timeout)
            .timeout_per_write(timeout)
            .build();
        let Settings { endpoint, timeout, .. } = settings.clone();
        Ok(Client { agent: config.new_agent(), endpoint, id: id.clone(), token: settings.token()?, timeout })
    }

    /// The hub's address.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Asks for a file from byte `from` on. The answer is 200 (the whole file), 206 (the rest) or 416 (no such byte).
    ///
    /// # Errors
    /// For every other answer, and if no answer comes.
    pub fn get(&self, path: &str, from: u64) -> Result<Response<Body>, Fault> {
        self.request(path, Ask::From(from), None)
    }

    /// Asks for the headers of a file. Tries again after faults that may pass.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn head(&self, path: &str) -> Result<HeaderMap> {
        retrying(&self.endpoint, TRIES, &ProgressBar::hidden(), &mut || {
            Ok(self.request(path, Ask::Head, Some(SMALL.max(self.timeout)))?.into_parts().0.headers)
        })
    }

    /// One request, with all redirects that follow from it.
    fn request(&self, path: &str, ask: Ask, whole: Option<Duration>) -> Result<Response<Body>, Fault> {
        let first = format!("{}{path}", self.endpoint);
        let mut address: Uri = first.parse().map_err(|error| self.untrusted(&error))?;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.once(&address, ask, whole)?;
            let status = response.status();
            let next =
                response.headers().get(header::LOCATION).filter(|_| matches!(status.as_u16(), 301..=303 | 307 | 308));
            match (status.as_u16(), next) {
                (200 | 206 | 416, _) => return Ok(response),
                (_, Some(_)) if ask == Ask::Head && response.headers().contains_key(LINKED_ETAG) => {
                    return Ok(response);
                }
                (_, Some(next)) => {
                    let next = next.to_str().ok().and_then(|next| resolve(&address, next));
                    address = next
                        .ok_or_else(|| anyhow!("{address} redirects to no address. Check HF_ENDPOINT and the proxy"))?;
                }
                (status @ (408 | 429 | 500..), None) => {
                    let why = format!("the server answers {status}");
                    return Err(Fault::Passing { why, wait: retry::asked(response.headers()), gained: false });
                }
                _ => {
                    let token = self.token.is_some();
                    let refusal = Refusal::new(&self.endpoint, &self.id, token, status, response.headers());
                    return Err(Fault::Final(refusal.into()));
                }
            }
        }
        Err(Fault::Final(anyhow!(
            "{} redirects more than {MAX_REDIRECTS} times and never answers. Check HF_ENDPOINT and the proxy",
            self.endpoint
        )))
    }

    /// One request to one address, through its proxy.
    fn once(&self, address: &Uri, ask: Ask, whole: Option<Duration>) -> Result<Response<Body>, Fault> {
        let named = proxy::to(address)?;
        let request = if ask == Ask::Head { self.agent.head(address) } else { self.agent.get(address) };
        let through = named.as_ref().map(|named| named.proxy.clone());
        let mut request = request.config().timeout_global(whole).proxy(through).build();
        if let Some(token) = self.token.as_ref().filter(|_| self.trusts(address)) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Ask::From(from @ 1..) = ask {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        request.call().map_err(|error| match (self.fault(error), named) {
            (Fault::Passing { why, wait, gained }, Some(named)) => {
                Fault::Passing { why: format!("{why} (through {named})"), wait, gained }
            }
            (Fault::Final(error), Some(named)) => Fault::Final(anyhow!("{error} (it went through {named})")),
            (fault, None) => fault,
        })
    }

    /// Whether an address may see the access token. The hub's own address may, and the hosts that store large files may not.
    fn trusts(&self, address: &Uri) -> bool {
        let origin =
            |uri: &Uri| (uri.scheme_str().map(str::to_owned), uri.authority().map(|at| at.as_str().to_owned()));
        let hub = |uri: &Uri| matches!(uri.host(), Some("huggingface.co" | "hf.co")) && uri.port().is_none();
        let own = self.endpoint.parse::<Uri>().is_ok_and(|own| origin(&own) == origin(address));
        // A mirror may redirect to the hub that it mirrors.
        own || address.scheme_str() == Some("https") && hub(address)
    }

    fn fault(&self, error: ureq::Error) -> Fault {
        use ureq::Error::{ConnectProxyFailed, Io, Timeout};
        match error {
            Timeout(_) => Fault::passing(self.silent()),
            // A certificate that TLS refuses now would be refused again.
            Io(error) if error.kind() == std::io::ErrorKind::InvalidData => Fault::Final(self.untrusted(&error)),
            Io(error) => self.broken(&error),
            ureq::Error::HostNotFound => Fault::passing("its name is not found; is there a network?"),
            ureq::Error::ConnectionFailed => Fault::passing("no connection"),
            ConnectProxyFailed(why) => Fault::Final(anyhow!(
                "cannot talk to {}: the proxy does not let the request through ({why}). Check the proxy's address, user and \
                 password; NO_PROXY names the hosts that need no proxy",
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

    /// Turns an error while reading an answer into a fault.
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

    /// Asks for a small file and returns its bytes. Tries up to `tries` times after faults that may pass.
    ///
    /// # Errors
    /// If no answer comes, or if it is longer than `most` bytes.
    pub fn small(&self, path: &str, most: u64, tries: u32) -> Result<Vec<u8>> {
        retrying(&self.endpoint, tries, &ProgressBar::hidden(), &mut || {
            let response = self.request(path, Ask::From(0), Some(SMALL.max(self.timeout)))?;
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
}

/// The address to which a redirect from `address` leads.
fn resolve(address: &Uri, location: &str) -> Option<Uri> {
    let (scheme, host) = (address.scheme_str()?, address.authority()?);
    let whole = match location {
        _ if location.starts_with("http://") || location.starts_with("https://") => location.to_owned(),
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{scheme}://{host}{location}"),
        _ => {
            let folder = address.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{scheme}://{host}{folder}/{location}")
        }
    };
    whole.split('#').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_somewhere() {
        let from: Uri = "https://hub/a/b?c=d".parse().unwrap();
        for (location, to) in [
            ("https://cdn/x?y#z", "https://cdn/x?y"),
            ("//cdn/x", "https://cdn/x"),
            ("/x/y", "https://hub/x/y"),
            ("x", "https://hub/a/x"),
        ] {
            assert_eq!(resolve(&from, location).unwrap().to_string(), to);
        }
        assert!(resolve(&from, "http://a b").is_none());
    }
}
