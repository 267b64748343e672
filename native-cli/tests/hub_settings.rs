//! What the environment says about the hub: the same to us as to the hub's own tools.
#![forbid(unsafe_code)]

use crate::common::{self, finish};
use crate::mock::{self, proxy::Proxy};
use crate::mock::{Answer, Hub, NOWHERE, command, home, repo};
use std::fs;
use std::path::Path;

/// What the binary says, with these variables instead of the usual home.
fn run(hub: &str, home: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> common::Run {
    let mut command = command(hub, home, arguments);
    command.env_remove("HF_HOME").env("HOME", home).env("USERPROFILE", home).current_dir(home);
    finish(command.envs(variables.iter().copied()).spawn().expect("the binary runs"))
}

#[test]
fn variables_name_the_cache() {
    let home = home();
    let shown = |variables: &[(&str, &str)]| {
        let run = run(NOWHERE, home.path(), &["verify"], variables);
        let (_, rest) = run.err.split_once("not in the cache ").unwrap_or_else(|| panic!("{run:?}"));
        rest.split(". Any command").next().unwrap().to_owned()
    };
    let own = |path: &str| home.path().join(path).display().to_string();
    assert_eq!(shown(&[]), own(".cache/huggingface/hub"));
    assert_eq!(shown(&[("HF_HOME", "~/hf")]), own("hf/hub"));
    assert_eq!(shown(&[("HF_HOME", "$HOME/hf")]), own("hf/hub"));
    assert_eq!(shown(&[("HF_HOME", "${PLACE}/hf"), ("PLACE", "/far")]), "/far/hf/hub");
    assert_eq!(shown(&[("HF_HUB_CACHE", "~/c"), ("HF_HOME", "/h")]), own("c"));
    assert_eq!(shown(&[("HUGGINGFACE_HUB_CACHE", "~/old"), ("HF_HOME", "/h")]), own("old"));
    assert_eq!(shown(&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/new")]), "/new");
    assert_eq!(shown(&[("XDG_CACHE_HOME", "~/x")]), own("x/huggingface/hub"));
    assert_eq!(shown(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h")]), "/h/hub");
    // Unknown variables stay as they are written; empty values count as unset.
    assert_eq!(shown(&[("HF_HOME", "/$UNKNOWN/hf")]), "/$UNKNOWN/hf/hub");
    let empty = [("HF_HOME", ""), ("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("XDG_CACHE_HOME", "")];
    assert_eq!(shown(&empty), own(".cache/huggingface/hub"));
    let other = run(NOWHERE, home.path(), &["verify"], &[("HF_HOME", "~somebody/hf")]);
    other.refused(1, &["HF_HOME", "~somebody/hf", "another user", "whole path"]);
}

#[test]
fn offline_means_no_request() {
    let (hub, home) = (Hub::good(), home());
    let asks = |variables: &[(&str, &str)]| {
        let before = hub.requests().len();
        let run = run(&hub.url, home.path(), &["explain"], variables);
        assert_eq!(run.err.contains("is set. Unset it"), hub.requests().len() == before, "{run:?}");
        hub.requests().len() > before
    };
    assert!(asks(&[]));
    for value in ["1", "ON", "yes", "True"] {
        assert!(!asks(&[("HF_HUB_OFFLINE", value)]) && !asks(&[("TRANSFORMERS_OFFLINE", value)]), "{value}");
    }
    // The first one that says anything decides.
    assert!(asks(&[("HF_HUB_OFFLINE", "0"), ("TRANSFORMERS_OFFLINE", "1")]));
    assert!(!asks(&[("HF_HUB_OFFLINE", ""), ("TRANSFORMERS_OFFLINE", "1")]));
    assert!(asks(&[("HF_HUB_OFFLINE", "0")]) && asks(&[("TRANSFORMERS_OFFLINE", "no")]));
}

#[test]
fn tokens_have_their_order() {
    let (hub, home) = (Hub::good(), home());
    let sent = |variables: &[(&str, &str)]| {
        run(&hub.url, home.path(), &["explain"], variables).refused(2, &["--accept-license"]);
        hub.requests().last().unwrap().token.clone()
    };
    let bearer = |token: &str| Some(format!("Bearer {token}"));
    assert_eq!(sent(&[]), None);
    assert_eq!(sent(&[("HUGGING_FACE_HUB_TOKEN", "hf_old\n")]), bearer("hf_old"));
    assert_eq!(sent(&[("HUGGING_FACE_HUB_TOKEN", "hf_old"), ("HF_TOKEN", "hf_new")]), bearer("hf_new"));
    fs::write(home.path().join("kept"), "hf_kept\r\n").unwrap();
    let kept = ("HF_TOKEN_PATH", "~/kept");
    assert_eq!(sent(&[kept]), bearer("hf_kept"));
    assert_eq!(sent(&[kept, ("HF_TOKEN", "hf_new")]), bearer("hf_new"));
    for variable in [kept, ("HF_TOKEN", "hf_new")] {
        assert_eq!(sent(&[variable, ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
    }
    // A file that cannot be read is not the same as none.
    let folder = [("HF_TOKEN_PATH", "~")];
    let failed = run(&hub.url, home.path(), &["explain"], &folder);
    failed.refused(1, &["cannot read the access token", "HF_TOKEN", "HF_HUB_DISABLE_IMPLICIT_TOKEN"]);
    // It is asked for only where a request is made.
    run(&hub.url, home.path(), &["verify"], &folder).refused(1, &["not in the cache"]);
}

#[test]
fn proxies_are_used() {
    let (hub, home, http, socks) = (Hub::good(), home(), Proxy::http(), Proxy::socks());
    let target = hub.url.trim_start_matches("http://");
    let [by_http, by_socks] = [format!("http://{}", http.place), format!("socks5://{}", socks.place)];
    let by_socks_name = format!("socks5h://{}", socks.place);
    let dead = "socks5://127.0.0.1:9";
    // Whether the request went to the hub, and by which proxies.
    let way = |variables: &[(&str, &str)]| {
        let before = [hub.requests().len(), http.targets().len(), socks.targets().len()];
        let run = run(&hub.url, home.path(), &["explain"], variables);
        let after = [hub.requests().len(), http.targets().len(), socks.targets().len()];
        (std::array::from_fn(|i| after[i] > before[i]), run)
    };
    assert_eq!(way(&[]).0, [true, false, false]);
    assert_eq!(way(&[("HTTP_PROXY", &by_http)]).0, [true, true, false]);
    assert_eq!(way(&[("all_proxy", &by_socks)]).0, [true, false, true]);
    assert_eq!(way(&[("ALL_PROXY", &by_socks_name)]).0, [true, false, true]);
    // A scheme's own proxy goes first; that of the other scheme is not asked.
    assert_eq!(way(&[("ALL_PROXY", dead), ("HTTP_PROXY", &by_http), ("HTTPS_PROXY", dead)]).0, [true, true, false]);
    assert_eq!(way(&[("ALL_PROXY", &by_socks), ("HTTPS_PROXY", dead)]).0, [true, false, true]);
    assert!(http.targets().iter().chain(&socks.targets()).all(|to| to == target));
    // Lists of hosts may have spaces behind their commas.
    let list = [("HTTP_PROXY", dead), ("NO_PROXY", "example.com, 127.0.0.1 ,localhost")];
    assert_eq!(way(&list).0, [true, false, false]);
    // A proxy that cannot be used is told. Nothing goes out directly.
    let (asked, run) = way(&[("ALL_PROXY", dead)]);
    assert_eq!(asked, [false; 3]);
    run.refused(1, &["cannot download", "through the proxy socks5://127.0.0.1:9 (ALL_PROXY)"]);
    let (asked, run) = way(&[("ALL_PROXY", "pac+http://me:secret@proxy")]);
    assert_eq!(asked, [false; 3]);
    run.refused(1, &["ALL_PROXY is `proxy`", "socks5", "NO_PROXY"]);
    let refuses = Hub::new(|request| (request.method == "CONNECT").then(|| Answer::new(407, "")));
    let (asked, run) = way(&[("HTTP_PROXY", &refuses.url)]);
    assert_eq!(asked, [false; 3]);
    run.refused(1, &["the proxy does not let the request through", "407", "password", "(HTTP_PROXY)"]);
}

#[test]
fn links_can_be_done_without() {
    let (hub, home) = (Hub::good(), home());
    let links = |home: &Path| {
        let snapshot = fs::read_dir(repo(home).join("snapshots").join(mock::COMMIT)).unwrap().flatten();
        snapshot.filter(|entry| entry.path().is_symlink()).count()
    };
    let download = |home: &Path, value: &str| {
        let mut command = command(&hub.url, home, &["explain", "--json", "--accept-license"]);
        finish(command.env("HF_HUB_DISABLE_SYMLINKS", value).spawn().unwrap()).json();
        assert_eq!(mock::faults(home), Vec::<String>::new());
        links(home)
    };
    assert_eq!(download(home.path(), "1"), 0);
    let other = mock::home();
    assert_eq!(download(other.path(), "0"), if cfg!(unix) { 5 } else { 0 });
    assert!(other.path().join("hub/CACHEDIR.TAG").exists());
}
