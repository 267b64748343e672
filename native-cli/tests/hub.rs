//! Models from the hub: the cache, downloads that go well, and the ways of a server to misbehave. Whatever it sends,
//! nothing but whole and true files gets into a snapshot, and a later run against a good hub repairs what is there.
#![forbid(unsafe_code)]

mod common;
mod mock;

use common::{Run, finish, nemoflash};
use mock::{Answer, COMMIT, End, Files, Hub, ID, Request, WEIGHTS, etag, honest, model};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// A run of the binary that knows only this hub and this home.
fn command(hub: &str, home: &Path, arguments: &[&str]) -> Command {
    let mut command = nemoflash(&[arguments, &["--device", "cpu", "--model", ID]].concat());
    for (name, _) in std::env::vars_os() {
        let upper = name.to_string_lossy().to_ascii_uppercase();
        if upper.starts_with("HF_") || upper.ends_with("_PROXY") {
            command.env_remove(name);
        }
    }
    command.env("HF_HOME", home).env("HF_ENDPOINT", hub).env("HF_HUB_DOWNLOAD_TIMEOUT", "1");
    command
}

fn run(hub: &str, home: &Path, arguments: &[&str]) -> Run {
    finish(command(hub, home, arguments).spawn().expect("the binary runs"))
}

fn explain(hub: &Hub, home: &Path) -> Run {
    run(&hub.url, home, &["explain", "--json", "--accept-license"])
}

/// No server at all.
const NOWHERE: &str = "http://127.0.0.1:9";

fn home() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn repo(home: &Path) -> PathBuf {
    home.join("hub").join(format!("models--{}", ID.replace('/', "--")))
}

fn partial(home: &Path, name: &str) -> PathBuf {
    repo(home).join("blobs").join(format!("{}.incomplete", etag(name, &model()[name])))
}

/// Files in snapshots that are not those of the model, and files outside the cache.
fn faults(home: &Path) -> Vec<String> {
    let (files, mut faults) = (model(), vec![]);
    for entry in fs::read_dir(repo(home).join("snapshots").join(COMMIT)).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().expect("UTF-8");
        if fs::read(entry.path()).ok() != files.get(&name).cloned() {
            faults.push(format!("{name} is bad"));
        }
    }
    let others = fs::read_dir(home).into_iter().flatten().flatten().filter(|entry| entry.file_name() != "hub");
    faults.extend(others.map(|entry| format!("{:?} is outside", entry.file_name())));
    faults
}

/// A good hub repairs what is in `home`; then the model runs without one.
#[track_caller]
fn repaired(home: &Path) -> Hub {
    let good = Hub::good();
    explain(&good, home).json();
    assert_eq!(faults(home), Vec::<String>::new());
    run(NOWHERE, home, &["verify"]).ok();
    run(NOWHERE, home, &["explain", "--json"]).json();
    good
}

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

/// The honest answer about the weights, changed.
fn weights(change: impl Fn(Answer, &Request) -> Answer) -> impl Fn(&Request) -> Option<Answer> {
    let files = model();
    move |request| request.is(WEIGHTS).then(|| change(honest(&files, request).expect("it is there"), request))
}

#[test]
fn a_model_is_downloaded_once_and_runs_from_the_cache() {
    let (hub, home) = (Hub::good(), home());
    let online = explain(&hub, home.path()).json();
    let asked = hub.requests();
    let count = |name: &str| asked.iter().filter(|request| request.is(name)).count();
    let files = model();
    for (name, bytes) in &files {
        let wanted = !["README.md", "modeling_code.py"].contains(&name.as_str());
        let link = repo(home.path()).join("snapshots").join(COMMIT).join(name);
        assert_eq!(link.exists(), wanted, "{name}");
        if wanted {
            let blob = Path::new("../../blobs").join(etag(name, bytes));
            #[cfg(unix)]
            assert_eq!(fs::read_link(&link).unwrap(), blob, "{name}");
            assert_eq!(fs::read(&link).unwrap(), *bytes, "{blob:?}");
        }
        // The list of the weights is read before anything is asked or kept.
        assert_eq!(count(name), usize::from(wanted) + usize::from(name.ends_with("index.json")), "{name}");
    }
    assert_eq!(fs::read_to_string(repo(home.path()).join("refs/main")).unwrap(), COMMIT);
    let leftovers = fs::read_dir(repo(home.path()).join("blobs")).unwrap().flatten();
    assert_eq!(leftovers.filter(|entry| entry.path().extension().is_some()).count(), 0);

    // No request at all, with a hub and without one, with a hub that may not be asked, by branch and by commit.
    assert_eq!(explain(&hub, home.path()).json(), online);
    assert_eq!(hub.requests().len(), asked.len());
    assert_eq!(run(NOWHERE, home.path(), &["explain", "--json"]).json(), online);
    assert_eq!(run(NOWHERE, home.path(), &["explain", "--json", "--revision", COMMIT]).json(), online);
    let offline = command(NOWHERE, home.path(), &["explain", "--json"]).env("HF_HUB_OFFLINE", "1").spawn().unwrap();
    assert_eq!(finish(offline).json(), online);
}

#[test]
fn offline_and_without_network() {
    let empty = home();
    let offline = command(NOWHERE, empty.path(), &["explain"]).env("HF_HUB_OFFLINE", "1").spawn().unwrap();
    finish(offline).refused(1, &[ID, "not complete in the cache", "HF_HUB_OFFLINE"]);
    run(NOWHERE, empty.path(), &["explain"])
        .refused(1, &["cannot download", "127.0.0.1", "refused", "Try again later"]);
    run(NOWHERE, empty.path(), &["verify"]).refused(1, &["is not in the cache", "explain --model"]);
    run("ftp://x", empty.path(), &["explain"]).refused(1, &["HF_ENDPOINT", "https://"]);
    run(NOWHERE, empty.path(), &["explain", "--revision", "../x"]).refused_usage("--revision");
    assert!(!empty.path().join("hub").exists());
}

impl Run {
    fn refused_usage(&self, word: &str) {
        assert!(self.code == Some(2) && self.err.contains(word), "{self:?}");
    }
}

#[test]
fn the_licence_comes_first() {
    let (hub, home) = (Hub::good(), home());
    let words = ["CC-BY-NC-4.0", "non-commercial use only", "--accept-license", "MiB", ID];
    run(&hub.url, home.path(), &["explain"]).refused(2, &words);
    assert!(!home.path().join("hub").exists());
    assert!(!hub.requests().iter().any(|request| request.is(WEIGHTS)));
    // Once is enough: a second download of the same repository does not ask.
    explain(&hub, home.path()).ok();
    fs::remove_file(repo(home.path()).join("blobs").join(etag(WEIGHTS, &model()[WEIGHTS]))).unwrap();
    run(&hub.url, home.path(), &["explain"]).ok();
    assert_eq!(faults(home.path()), Vec::<String>::new());
}

#[test]
#[cfg(unix)]
fn a_person_is_asked() {
    use rexpect::session::spawn_command;
    use std::process::Stdio;
    let (hub, home) = (Hub::good(), home());
    let ask = |answer: &str| {
        let mut command = command(&hub.url, home.path(), &["explain"]);
        command.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit()).env("TERM", "xterm");
        let mut session = spawn_command(command, Some(60_000)).unwrap();
        session.exp_string("non-commercial use only").unwrap();
        session.exp_string("[y/N]").unwrap();
        session.send_line(answer).unwrap();
        session.exp_eof().unwrap()
    };
    assert!(ask("").contains("was not accepted"));
    assert!(!home.path().join("hub").exists());
    let text = ask("y");
    assert!(text.contains("downloading") && text.contains("Memory on the device"), "{text}");
}

#[test]
fn the_layout_of_other_tools_is_used() {
    let home = home();
    let (cache, files) = (home.path().join("elsewhere"), model());
    let repo = cache.join(format!("models--{}", ID.replace('/', "--")));
    let snapshot = repo.join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(repo.join("blobs")).unwrap();
    fs::create_dir_all(repo.join("refs/refs/pr")).unwrap();
    fs::write(repo.join("refs/main"), format!("{COMMIT}\n")).unwrap();
    fs::write(repo.join("refs/refs/pr/1"), COMMIT).unwrap();
    for (name, bytes) in &files {
        let etag = etag(name, bytes);
        fs::write(repo.join("blobs").join(&etag), bytes).unwrap();
        // One of them as a system without links has it.
        #[cfg(unix)]
        if name != "config.json" {
            std::os::unix::fs::symlink(Path::new("../../blobs").join(&etag), snapshot.join(name)).unwrap();
            continue;
        }
        fs::write(snapshot.join(name), bytes).unwrap();
    }
    for revision in ["main", "refs/pr/1", COMMIT] {
        for action in ["explain", "verify"] {
            let mut command = command(NOWHERE, home.path(), &[action, "--json", "--revision", revision]);
            finish(command.env("HF_HUB_CACHE", &cache).spawn().unwrap()).json();
        }
    }
}

#[test]
fn a_killed_download_goes_on() {
    let (files, home) = (model(), home());
    let len = files[WEIGHTS].len();
    let stalls = Hub::new(weights(move |answer, _| answer.cut(len / 3, End::Stall(Duration::from_secs(60)))));
    let mut child = command(&stalls.url, home.path(), &["explain", "--accept-license"])
        .env("HF_HUB_DOWNLOAD_TIMEOUT", "60")
        .spawn()
        .unwrap();
    let partial = partial(home.path(), WEIGHTS);
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while fs::metadata(&partial).map_or(0, |data| data.len()) < len as u64 / 3 {
        assert!(std::time::Instant::now() < until, "nothing came");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let good = repaired(home.path());
    let asked: Vec<_> = good.requests().into_iter().filter(|request| request.is(WEIGHTS)).map(|r| r.from).collect();
    assert_eq!(asked, [Some(len / 3)]);
}

#[test]
fn a_damaged_partial_file_is_begun_again() {
    let (files, home) = (model(), home());
    for bytes in [vec![7; 1000], vec![7; files[WEIGHTS].len()], vec![7; files[WEIGHTS].len() + 1]] {
        let home = home.path().join(bytes.len().to_string());
        fs::create_dir_all(repo(&home).join("blobs")).unwrap();
        fs::write(partial(&home, WEIGHTS), bytes).unwrap();
        repaired(&home);
    }
}

#[test]
fn two_programs_download_once() {
    let files = model();
    let (hub, home) = (
        Hub::new(move |request| {
            std::thread::sleep(Duration::from_millis(20));
            honest(&files, request)
        }),
        home(),
    );
    let start = || command(&hub.url, home.path(), &["explain", "--json", "--accept-license"]).spawn().unwrap();
    let (one, two) = (start(), start());
    assert_eq!(finish(one).json(), finish(two).json());
    assert_eq!(faults(home.path()), Vec::<String>::new());
    assert_eq!(hub.requests().iter().filter(|request| request.is(WEIGHTS)).count(), 1);
}

#[test]
fn verify_finds_what_is_wrong() {
    let home = home();
    explain(&Hub::good(), home.path()).ok();
    let run = |home: &Path, name: &str| {
        let run = run(NOWHERE, home, &["verify", "--json"]);
        let report: serde_json::Value = serde_json::from_str(&run.out).expect("JSON");
        let file = report["files"].as_array().unwrap().iter().find(|file| file["file"] == name).unwrap().clone();
        (run.code, file["state"].as_str().unwrap().to_owned(), run.err)
    };
    assert_eq!(run(home.path(), WEIGHTS).0, Some(0));
    for name in [WEIGHTS, "config.json"] {
        let blob = repo(home.path()).join("blobs").join(etag(name, &model()[name]));
        let mut bytes = model()[name].clone();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&blob, &bytes).unwrap();
        let (code, state, err) = run(home.path(), name);
        assert_eq!((code, state.as_str()), (Some(1), "damaged"), "{err}");
        assert!(err.contains("1 of 5 files") && err.contains("Delete"), "{err}");
        fs::remove_file(&blob).unwrap();
        assert_eq!(run(home.path(), name).1, "missing");
        // As the message says: delete it and run again.
        repaired(home.path());
    }
}

#[test]
fn verify_checks_folders() {
    let folder = common::fables();
    let verify = |folder: &Path| common::cpu(&["verify", "--model", folder.to_str().unwrap()]);
    assert!(verify(folder.path()).ok().contains("ok"));
    common::cpu(&["verify"]).ok();
    let spoil = |name: &str, change: &dyn Fn(&mut Vec<u8>), word: &str| {
        let folder = common::fables();
        let path = folder.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
        let run = verify(folder.path());
        assert!(run.code == Some(1) && run.out.contains(word) && run.err.contains("1 of 3 files"), "{word}: {run:?}");
    };
    spoil("model.safetensors", &|bytes| bytes.truncate(1_000_000), "promises");
    spoil("model.safetensors", &|bytes| bytes.truncate(3), "no safetensors file");
    spoil("model.safetensors", &|bytes| bytes[10] = 0xff, "header");
    spoil("tokenizer.json", &|bytes| bytes.truncate(100), "tokenizer.json");
    spoil("config.json", &|bytes| bytes.truncate(10), "config.json");
    let smaller = |bytes: &mut Vec<u8>| *bytes = String::from_utf8_lossy(bytes).replace("4096", "4095").into_bytes();
    spoil("config.json", &smaller, "do not fit");
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    assert!(verify(folder.path()).out.contains("missing"));
}

// The twelve ways to misbehave.

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

/// Negative control: what the tests above look for is found.
#[test]
fn bad_files_are_found() {
    let home = home();
    explain(&Hub::good(), home.path()).ok();
    assert!(faults(home.path()).is_empty());
    fs::write(repo(home.path()).join("blobs").join(etag(WEIGHTS, &model()[WEIGHTS])), "bad").unwrap();
    fs::write(home.path().join("evil"), "").unwrap();
    assert_eq!(faults(home.path()).len(), 2);
}
