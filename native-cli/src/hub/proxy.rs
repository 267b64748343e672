//! Which proxy a request to an address uses, according to the environment.
//!
//! The variable of a scheme (`HTTPS_PROXY`, `HTTP_PROXY`) has precedence over `ALL_PROXY`, and `NO_PROXY` over all of them. If
//! a variable is also set in lower case, that one counts. A proxy that cannot be used is an error: if somebody wants requests
//! to go through a proxy, they never go out directly.

use anyhow::{Result, anyhow};
use std::env;
use std::fmt;
use std::net::IpAddr;
use ureq::Proxy;
use ureq::http::Uri;

/// A proxy, and the variable that names it.
#[derive(Clone, Debug)]
pub struct Named {
    pub proxy: Proxy,
    variable: String,
}

/// The proxy as it is shown in messages, without user and password.
impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (proxy, variable) = (&self.proxy, &self.variable);
        let scheme = proxy.protocol().to_string().to_ascii_lowercase();
        write!(f, "the proxy {scheme}://{}:{} ({variable})", proxy.host(), proxy.port())
    }
}

/// The proxy for an address. None if the request goes there directly.
///
/// # Errors
/// If a variable names something that cannot be used as a proxy.
pub fn to(address: &Uri) -> Result<Option<Named>> {
    choose(address, &|name| env::var(name).ok())
}

fn choose(address: &Uri, variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Named>> {
    let value = |name: &str| {
        let (lower, upper) = (name.to_ascii_lowercase(), name.to_owned());
        let (name, value) = match variable(&lower) {
            Some(value) => (lower, value),
            None => (upper.clone(), variable(&upper)?),
        };
        let value = value.trim().to_owned();
        (!value.is_empty()).then_some((name, value))
    };
    let own = if address.scheme_str() == Some("https") { "HTTPS_PROXY" } else { "HTTP_PROXY" };
    let Some((name, text)) = value(own).or_else(|| value("ALL_PROXY")) else { return Ok(None) };
    if value("NO_PROXY").is_some_and(|(_, list)| is_direct(&list, address)) {
        return Ok(None);
    }
    let bad = |why: &str| {
        // User and password are in front of the last @, and must not be shown.
        let shown = text.rsplit('@').next().unwrap_or_default();
        anyhow!(
            "{name} is `{shown}`, {why}. Write scheme://host:port with http, https, socks4, socks4a, socks5 or socks5h; \
            NO_PROXY names the hosts that need no proxy"
        )
    };
    let full = if text.contains("://") { text.clone() } else { format!("http://{text}") };
    let proxy = Proxy::new(&full).map_err(|_| bad("which is no address of a proxy"))?;
    if proxy.host().is_empty() {
        return Err(bad("which names no host"));
    }
    // `Proxy` would ignore a port that is not a number, and use the default port.
    let place = proxy.uri().authority().map_or("", |at| at.as_str());
    let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
    let behind = place.strip_prefix(proxy.host()).unwrap_or_default();
    if !behind.is_empty() && proxy.uri().port_u16().is_none() {
        return Err(bad("whose port is no number"));
    }
    Ok(Some(Named { proxy, variable: name }))
}

/// Whether an entry of a `NO_PROXY` list holds for an address.
fn is_direct(list: &str, address: &Uri) -> bool {
    let host = address.host().unwrap_or_default().to_ascii_lowercase();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let ip = bare.parse::<IpAddr>().ok();
    let port = address.port_u16().unwrap_or(if address.scheme_str() == Some("https") { 443 } else { 80 });
    list.split(',').map(|entry| entry.trim().to_ascii_lowercase()).filter(|entry| !entry.is_empty()).any(|entry| {
        if let Some((network, bits)) = network(&entry) {
            return ip.is_some_and(|ip| is_within(ip, network, bits));
        }
        let (name, only) = match entry.rsplit_once(':') {
            Some((name, digits)) if !name.contains(':') || name.ends_with(']') => match digits.parse::<u16>() {
                Ok(only) => (name, Some(only)),
                Err(_) => return false,
            },
            _ => (entry.as_str(), None),
        };
        let below =
            |domain: &str| bare.strip_suffix(domain).is_some_and(|front| front.ends_with('.') && front.len() > 1);
        let named = match name.strip_prefix("*.").or_else(|| name.strip_prefix('.')) {
            Some(domain) => below(domain),
            None if name == "*" => true,
            None => {
                let name = name.trim_start_matches('[').trim_end_matches(']');
                name == bare || (ip.is_none() && name != "localhost" && below(name))
            }
        };
        named && only.is_none_or(|only| only == port)
    })
}

/// Reads an IP address or an IP network: `10.0.0.0/8`, `::1`, `[::1]`. The second value is the length of the network's prefix
/// in bits.
fn network(entry: &str) -> Option<(IpAddr, u32)> {
    let (text, bits) = match entry.split_once('/') {
        Some((text, bits)) => (text, Some(bits.parse::<u32>().ok()?)),
        None => (entry, None),
    };
    let ip: IpAddr = text.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    let all = if ip.is_ipv4() { 32 } else { 128 };
    Some((ip, bits.unwrap_or(all))).filter(|(_, bits)| *bits <= all)
}

/// Whether the first `bits` bits of both are the same.
fn is_within(ip: IpAddr, network: IpAddr, bits: u32) -> bool {
    let differ = match (ip, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => u128::from(a.to_bits() ^ b.to_bits()) << 96,
        (IpAddr::V6(a), IpAddr::V6(b)) => a.to_bits() ^ b.to_bits(),
        _ => return false,
    };
    differ.leading_zeros() >= bits
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The proxy of a request to `address`, if these variables are set.
    fn way(address: &str, variables: &[(&str, &str)]) -> String {
        let known = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string());
        match choose(&address.parse().unwrap(), &known) {
            Ok(Some(named)) => named.to_string(),
            Ok(None) => "directly".into(),
            Err(error) => format!("error: {error}"),
        }
    }

    const HUB: &str = "https://huggingface.co/x";

    #[test]
    fn schemes_go_first() {
        let three = [("ALL_PROXY", "socks5://a:1"), ("HTTPS_PROXY", "http://b:2"), ("HTTP_PROXY", "http://c:3")];
        assert_eq!(way(HUB, &three), "the proxy http://b:2 (HTTPS_PROXY)");
        assert_eq!(way("http://mirror/x", &three), "the proxy http://c:3 (HTTP_PROXY)");
        assert_eq!(way(HUB, &three[..1]), "the proxy socks5://a:1 (ALL_PROXY)");
        assert_eq!(way(HUB, &three[2..]), "directly");
        assert_eq!(way(HUB, &[("https_proxy", "d"), three[1]]), "the proxy http://d:80 (https_proxy)");
        // An empty variable in lower case unsets the one in upper case.
        assert_eq!(way(HUB, &[("https_proxy", ""), three[1]]), "directly");
        assert_eq!(
            way(HUB, &[("all_proxy", "socks5h://e"), ("HTTPS_PROXY", " ")]),
            "the proxy socks5h://e:1080 (all_proxy)"
        );
        assert_eq!(way(HUB, &[("HTTPS_PROXY", "http://me:secret@f:4/")]), "the proxy http://f:4 (HTTPS_PROXY)");
        assert_eq!(way(HUB, &[("HTTPS_PROXY", "f:secret@f")]), "the proxy http://f:80 (HTTPS_PROXY)");
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        for bad in ["pac+http://x", "ftp://x:1", "http://", "socks9://x", "me:secret@", "http://me:secret@h:port"] {
            let way = way(HUB, &[("HTTPS_PROXY", bad)]);
            assert!(way.starts_with("error: HTTPS_PROXY is") && !way.contains("secret"), "{bad}: {way}");
        }
    }

    /// Expected values are those of httpx2, which the hub's Python tools use; it takes no `:443` with https.
    #[test]
    fn some_hosts_need_no_proxy() {
        let direct =
            |list: &str, address: &str| way(address, &[("ALL_PROXY", "http://p:1"), ("no_proxy", list)]) == "directly";
        for list in ["*", "a, *", "huggingface.co", "x,  HuggingFace.CO ,y", "co", "*.co", ".co", "huggingface.co:443"]
        {
            assert!(direct(list, HUB), "{list}");
        }
        for list in ["", "face.co", "ggingface.co", ".huggingface.co", "*.huggingface.co", "huggingface.co:80", "x"] {
            assert!(!direct(list, HUB), "{list}");
        }
        assert!(direct(".huggingface.co", "https://cdn.huggingface.co/x"));
        assert!(direct("huggingface.co", "https://cdn.huggingface.co/x"));
        assert!(direct("10.0.0.0/8, 192.168.1.1", "http://10.200.3.4:8080/x"));
        assert!(direct("10.0.0.0/8, 192.168.1.1", "http://192.168.1.1/x"));
        assert!(!direct("10.0.0.0/8, 192.168.1.1", "http://11.0.0.1/x"));
        assert!(!direct("10.0.0.0/33, 1.1", "http://10.0.0.1/x"));
        assert!(
            direct("::1", "http://[::1]:9/x")
                && direct("[::1]", "http://[::1]:9/x")
                && direct("fe80::/10", "http://[fe80::5]/x")
        );
        assert!(!direct("::1", "http://[::2]/x"));
        assert!(direct("localhost", "http://localhost:9/x") && !direct("localhost", "http://a.localhost:9/x"));
        assert!(direct("127.0.0.1:9", "http://127.0.0.1:9/x") && !direct("127.0.0.1:8", "http://127.0.0.1:9/x"));
    }
}
