//! Models from the hub: downloads that go well, the cache, the licence, and `verify`.
#![forbid(unsafe_code)]

use crate::common::{self, finish};
use crate::mock::{COMMIT, End, Files, Hub, ID, NOWHERE, WEIGHTS};
use crate::mock::{command, etag, explain, faults, home, honest, model, partial, repaired, repo, run, weights};
use std::fs;
use std::path::Path;
use std::time::Duration;

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
    let misnamed = run(NOWHERE, empty.path(), &["explain", "--revision", "../x"]);
    assert!(misnamed.code == Some(2) && misnamed.err.contains("--revision"), "{misnamed:?}");
    assert!(!empty.path().join("hub").exists());
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

/// Another tool has cached what it needed. A model that is there is not asked for again, wherever the cache is: only what
/// a run reads is, and once.
#[test]
fn a_run_asks_for_what_it_reads() {
    let mut files = Files::new();
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        files.insert(name.into(), fs::read(common::root().join("models/fables").join(name)).unwrap());
    }
    let (home, elsewhere) = (home(), home());
    let snapshot = repo(home.path()).join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(repo(home.path()).join("refs")).unwrap();
    fs::write(repo(home.path()).join("refs/main"), COMMIT).unwrap();
    for (name, bytes) in &files {
        fs::write(snapshot.join(name), bytes).unwrap();
    }
    let template = "chat_template.jinja";
    files.insert(template.into(), b"{{ messages[0].content }}".to_vec());
    files.insert("generation_config.json".into(), b"{}".to_vec());
    let blob = repo(home.path()).join("blobs").join(etag(template, &files[template]));
    let hub = Hub::of(files);
    let text = ["generate", "--temperature", "0", "--max-tokens", "2", "--format", "text", "Once"];
    let count = || hub.requests().len();

    // Text at temperature 0 reads no template, and says what it goes without.
    let mut command = command(&hub.url, elsewhere.path(), &text);
    let run_there = finish(command.env("HUGGINGFACE_HUB_CACHE", home.path().join("hub")).spawn().unwrap());
    assert!(
        run_there.err.contains("has no generation_config.json") && !run_there.err.contains(template),
        "{run_there:?}"
    );
    run_there.ok();
    assert_eq!(count(), 0);
    // A chat does, and then everything is known: the list, the two files, and that there are no others.
    let chat = run(&hub.url, home.path(), &["chat"]);
    assert!(!chat.err.contains("note: "), "{chat:?}");
    chat.ok();
    assert_eq!(count(), 3);
    assert!(snapshot.join(template).is_file());
    for arguments in [&text[..], &["chat"]] {
        let run = run(&hub.url, home.path(), arguments);
        assert!(!run.err.contains("note: "), "{run:?}");
        run.ok();
    }
    assert_eq!(count(), 3);

    // A link to nothing is mended, or it is told what is lost.
    if snapshot.join(template).is_symlink() {
        fs::remove_file(&blob).unwrap();
        run(NOWHERE, home.path(), &text).ok();
        let lost = run(NOWHERE, home.path(), &["chat"]);
        assert_eq!(lost.code, Some(1), "{lost:?}");
        assert!(lost.err.contains("the cache has lost chat_template.jinja"), "{lost:?}");
        assert!(lost.err.contains("leads to nothing. Get its file again"), "{lost:?}");
        run(&hub.url, home.path(), &["chat"]).ok();
        assert!(blob.is_file());
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
