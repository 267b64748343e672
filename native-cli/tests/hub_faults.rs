//! The twelve ways of a server to misbehave. Whatever it sends, nothing but whole and true files gets into a snapshot,
//! the error is one line, and a later run against a good hub repairs what is there.
#![forbid(unsafe_code)]

use crate::common::finish;
use crate::mock::{self, Answer, End, Files, Hub, NOWHERE, Request, WEIGHTS};
use crate::mock::{command, explain, faults, home, honest, model, repaired, run, weights};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// A hub that misbehaves makes one clear error with these words and leaves nothing bad.
#[track_caller]
fn misbehaves(words: &[&str], behave: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static) {
    let home = home();
    let failed = explain(&Hub::new(behave), home.path());
    failed.refused(1, words);
    assert_eq!(failed.err.trim_end().lines().count(), 1, "{}", failed.err);
    assert_eq!(faults(home.path()), Vec::<String>::new());
    let offline = command(NOWHERE, home.path(), &["explain"]).env("HF_HUB_OFFLINE", "1").spawn();
    finish(offline.expect("the binary runs")).refused(1, &["not complete in the cache"]);
    repaired(home.path());
}

#[test]
fn a_server_may_ignore_ranges() {
    let (tries, home) = (AtomicUsize::new(0), home());
    let whole = model()[WEIGHTS].clone();
    let hub = Hub::new(weights(move |answer, _| match tries.fetch_add(1, SeqCst) {
        0 => answer.cut(100_000, End::Close),
        _ => Answer::new(200, &whole[..]),
    }));
    explain(&hub, home.path()).json();
    let asked: Vec<_> = hub.requests().into_iter().filter(|request| request.is(WEIGHTS)).map(|r| r.from).collect();
    assert_eq!(asked, [None, Some(100_000)]);
    repaired(home.path());
    // One that sends another range than the wanted one is asked from the beginning again, but not for ever.
    let hub = Hub::new(weights(|answer, request| match request.from {
        None => answer.cut(100_000, End::Close),
        Some(_) => Answer::new(206, "xxxx").header("Content-Range", "bytes 0-3/4"),
    }));
    explain(&hub, self::home().path()).refused(1, &["cannot download", "5 times"]);
}

#[test]
fn a_web_page_is_no_file() {
    let page = || Answer::new(200, "<html>Log in to the hotel's network</html>").header("Content-Type", "text/html");
    misbehaves(&["a web page came", "Log in"], move |request| request.is(WEIGHTS).then(page));
    misbehaves(&["a web page came"], move |request| request.is("config.json").then(page));
    misbehaves(&["does not answer like the hub", "HF_ENDPOINT"], move |request| request.is_api().then(page));
}

#[test]
fn lengths_may_be_too_long() {
    misbehaves(
        &["where the hub lists"],
        weights(|mut answer, _| {
            answer.claims = Some(Some(answer.body.len() + 100));
            answer
        }),
    );
    // With no length claimed, bytes too many are noticed when they come.
    misbehaves(
        &["sends more bytes"],
        weights(|mut answer, _| {
            answer.claims = Some(None);
            answer.body.extend([0; 100]);
            answer
        }),
    );
}

#[test]
fn lengths_may_be_too_short() {
    misbehaves(
        &["where the hub lists"],
        weights(|mut answer, _| {
            answer.claims = Some(Some(answer.body.len() - 100));
            answer
        }),
    );
    // With no length claimed, the end comes too early: the rest is asked for.
    let (hub, home) = (
        Hub::new(weights(|mut answer, _| {
            answer.claims = Some(None);
            answer.body.truncate(answer.body.len().div_ceil(2).max(100_000));
            answer
        })),
        home(),
    );
    explain(&hub, home.path()).json();
    assert!(hub.requests().iter().filter(|request| request.is(WEIGHTS)).count() > 1);
    repaired(home.path());
}

#[test]
fn files_may_change_meanwhile() {
    let other = "f".repeat(64);
    let words = ["changed on the hub", "again"];
    let linked = other.clone();
    misbehaves(&words, weights(move |answer, _| answer.header("X-Linked-ETag", format!("\"{linked}\""))));
    misbehaves(
        &words,
        weights(move |mut answer, _| {
            answer.headers.retain(|(name, _)| name == "ETag");
            answer.header("X-Repo-Commit", "f".repeat(40))
        }),
    );
    misbehaves(
        &words,
        weights(move |mut answer, _| {
            answer.headers.retain(|(name, _)| name != "ETag");
            answer.header("ETag", format!("W/\"{other}\""))
        }),
    );
    // And unseen, in the middle.
    misbehaves(
        &["SHA-256", "not kept"],
        weights(|mut answer, request| match request.from {
            None => answer.cut(100_000, End::Close),
            Some(_) => {
                answer.body.fill(1);
                answer
            }
        }),
    );
}

#[test]
fn bits_may_flip() {
    misbehaves(
        &[WEIGHTS, "SHA-256", "not kept", "Try again"],
        weights(|mut answer, _| {
            answer.body[5000] ^= 4;
            answer
        }),
    );
    let files = model();
    misbehaves(&["config.json", "git SHA-1", "not kept"], move |request| {
        let mut answer = honest(&files, request).filter(|_| request.is("config.json"))?;
        answer.body[5] ^= 4;
        Some(answer)
    });
}

#[test]
fn gated_models_need_a_token() {
    let gate = |status: u16| {
        move |request: &Request| {
            (request.token.as_deref() != Some("Bearer hf_good")).then(|| Answer::new(status, "gated"))
        }
    };
    misbehaves(&["401", "gated", "HF_TOKEN", "accept its terms"], gate(401));
    misbehaves(&["403", "gated", "HF_TOKEN"], gate(403));
    let (hub, home) = (Hub::new(gate(401)), home());
    let with = |token: &str| {
        let mut command = command(&hub.url, home.path(), &["explain", "--json", "--accept-license"]);
        finish(command.env("HF_TOKEN", token).spawn().unwrap())
    };
    with("hf_bad").refused(1, &["401", "does not open it"]);
    with("hf bad\u{7f}").refused(1, &["access token", "characters"]);
    with("hf_good\n").json();
    // A login leaves the token in a file.
    let home = self::home();
    fs::write(home.path().join("token"), "hf_good\n").unwrap();
    explain(&hub, home.path()).json();
}

#[test]
fn things_may_not_be_there() {
    misbehaves(&["404", "no such repository", "spelling"], |request| request.is_api().then(|| Answer::new(404, "")));
    misbehaves(&["404", "file"], |request| request.is(WEIGHTS).then(|| Answer::new(404, "")));
    for (missing, word) in [
        ("config.json", "has no config.json"),
        (WEIGHTS, "incomplete"),
        ("model.safetensors.index.json", "has no model.safetensors"),
    ] {
        let (mut files, home) = (model(), home());
        files.remove(missing);
        explain(&Hub::of(files), home.path()).refused(1, &[word]);
        assert!(!home.path().join("hub").exists());
    }
    // Without a tokenizer a model still runs on ids, and is not asked for again.
    let (mut files, home) = (model(), home());
    files.remove("tokenizer.json");
    explain(&Hub::of(files), home.path()).json();
    run(NOWHERE, home.path(), &["explain", "--json"]).json();
    run(NOWHERE, home.path(), &["generate", "Once"]).refused(1, &["tokenizer.json is missing"]);
}

#[test]
fn busy_servers_are_asked_again() {
    let (tries, home) = (AtomicUsize::new(0), home());
    let hub = Hub::new(move |request| match (request.is_api() || request.is(WEIGHTS), tries.fetch_add(1, SeqCst)) {
        (true, 0) => Some(Answer::new(429, "").header("Retry-After", 1)),
        (true, 1) => Some(Answer::new(500, "")),
        (true, 6) => Some(Answer::new(503, "")),
        _ => None,
    });
    explain(&hub, home.path()).json();
    repaired(home.path());
    misbehaves(&["answers 500, 5 times", "Try again later"], |request| {
        request.is(WEIGHTS).then(|| Answer::new(500, ""))
    });
    misbehaves(&["429", "wait 3600 s"], |request| {
        request.is(WEIGHTS).then(|| Answer::new(429, "").header("Retry-After", 3600))
    });
}

#[test]
fn redirects_end_and_carry_no_token() {
    misbehaves(&["redirects more than 8 times"], |request| {
        request
            .path
            .contains(WEIGHTS)
            .then(|| Answer::new(302, "").header("Location", format!("{}?again", request.path)))
    });
    // Large files are kept on another host. `localhost` is another name than 127.0.0.1.
    let files: Files = model();
    let hub = Hub::new(move |request| {
        if let Some(name) = request.path.strip_prefix("/elsewhere/") {
            return Some(Answer::new(200, &files[name][..]));
        }
        let port = request.host.rsplit(':').next().unwrap_or_default();
        let place = format!("http://localhost:{port}/elsewhere/{WEIGHTS}");
        request.is(WEIGHTS).then(|| Answer::new(302, "").header("Location", place))
    });
    let home = home();
    let mut command = command(&hub.url, home.path(), &["explain", "--json", "--accept-license"]);
    finish(command.env("HF_TOKEN", "hf_secret").spawn().unwrap()).json();
    let (elsewhere, here): (Vec<_>, Vec<_>) =
        hub.requests().into_iter().partition(|request| request.host.starts_with("localhost"));
    assert!(elsewhere.len() == 1 && elsewhere[0].token.is_none(), "{elsewhere:?}");
    assert!(here.iter().all(|request| request.token.as_deref() == Some("Bearer hf_secret")), "{here:?}");
    repaired(home.path());
}

#[test]
fn silence_ends() {
    let stall = End::Stall(Duration::from_secs(20));
    misbehaves(
        &["silence for 1 s", "HF_HUB_DOWNLOAD_TIMEOUT", "kept"],
        weights(move |mut answer, request| {
            answer.claims = Some(Some(answer.body.len()));
            answer.body.truncate(if request.from.is_some() { 0 } else { 1000 });
            Answer { end: stall, ..answer }
        }),
    );
}

#[test]
fn names_and_sizes_may_be_hostile() {
    let index = |target: &str| {
        let (mut files, home) = (model(), home());
        let text = serde_json::json!({"weight_map": {"a": target}}).to_string();
        files.insert("model.safetensors.index.json".into(), text.into_bytes());
        // The repository offers such a file, too.
        files.insert(target.into(), vec![0; 10]);
        explain(&Hub::of(files), home.path()).refused(1, &["not the plain name", "index.json"]);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    };
    index("../evil.safetensors");
    index("/tmp/evil.safetensors");
    index("..\\evil.safetensors");
    index("C:evil.safetensors");
    let listed = |words: &[&str], change: fn(&mut serde_json::Value)| {
        let files = model();
        let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        misbehaves(&words, move |request| {
            let mut list = mock::listing(&files);
            change(&mut list);
            request.is_api().then(|| Answer::new(200, list.to_string()))
        });
    };
    listed(&["names no commit"], |list| list["sha"] = "../../../evil".into());
    listed(&["no length and checksum"], |list| list["siblings"][1]["blobId"] = "../../evil".into());
    listed(&["no length and checksum"], |list| list["siblings"][2]["lfs"]["sha256"] = "../../evil".into());
    listed(&["more than any such file"], |list| list["siblings"][1]["size"] = (1u64 << 40).into());
    listed(&["has room for", "HF_HOME"], |list| list["siblings"][2]["lfs"]["size"] = (1u64 << 60).into());
    misbehaves(&["longer than 16777216 bytes"], |request| {
        request.is_api().then(|| Answer { end: End::Endless, ..Answer::new(200, "{") })
    });
}
