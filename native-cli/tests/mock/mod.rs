//! A hub on 127.0.0.1 that serves one tiny model and can be told to misbehave.

pub mod proxy;

use crate::common::{Run, finish, nemoflash, on_cpu, root};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

pub const ID: &str = "nvidia/Tiny-Flash";
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The first of the two weight files.
pub const WEIGHTS: &str = "model-00001-of-00002.safetensors";

/// The files of a repository.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A tiny model in two weight files, with some files that must not be downloaded.
pub fn model() -> Files {
    let golden = root().join("tests/golden/attention-only");
    let read = |path: PathBuf| fs::read(path).expect("a golden file");
    let weights = read(golden.join("model.safetensors"));
    let mut tensors = SafeTensors::deserialize(&weights).expect("safetensors").tensors();
    // It comes in another order each time.
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let (first, second) = tensors.split_at(tensors.len() / 2);
    let part = |tensors: &[(String, safetensors::tensor::TensorView)]| {
        safetensors::serialize(tensors.iter().map(|(name, view)| (name.clone(), view.clone())), None).expect("fits")
    };
    let other = WEIGHTS.replace("00001-", "00002-");
    let map: BTreeMap<&str, &str> = first
        .iter()
        .map(|(name, _)| (name.as_str(), WEIGHTS))
        .chain(second.iter().map(|(name, _)| (name.as_str(), other.as_str())))
        .collect();
    Files::from([
        ("config.json".into(), read(golden.join("config.json"))),
        ("tokenizer.json".into(), read(root().join("models/fables/tokenizer.json"))),
        ("model.safetensors.index.json".into(), json!({ "weight_map": map }).to_string().into_bytes()),
        (WEIGHTS.into(), part(first)),
        (other.clone(), part(second)),
        ("modeling_code.py".into(), b"import os".to_vec()),
        ("README.md".into(), b"# Tiny".to_vec()),
    ])
}

/// The name of a file's blob: weights are large files, the others small ones.
pub fn etag(name: &str, bytes: &[u8]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match name.ends_with(".safetensors") {
        true => hex(&Sha256::digest(bytes)),
        false => hex(&Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize()),
    }
}

/// What a client asked.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub host: String,
    /// First byte of the wanted range.
    pub from: Option<usize>,
    pub token: Option<String>,
}

impl Request {
    /// Whether it asks for this file.
    pub fn is(&self, name: &str) -> bool {
        self.path == format!("/{ID}/resolve/{COMMIT}/{name}")
    }

    pub fn is_api(&self) -> bool {
        self.path.starts_with("/api/")
    }
}

/// What the hub sends.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The length it claims, where it lies about it; `None` in it: no length at all.
    pub claims: Option<Option<usize>>,
    pub end: End,
}

/// What comes after the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Close,
    /// Nothing, for this long.
    Stall(Duration),
    /// More, until the client leaves.
    Endless,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer { status, headers: vec![], body: body.into(), claims: None, end: End::Close }
    }

    pub fn header(mut self, name: &str, value: impl ToString) -> Answer {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    /// Only the first bytes, though it claims all.
    pub fn cut(mut self, len: usize, end: End) -> Answer {
        self.claims = Some(Some(self.body.len()));
        self.body.truncate(len);
        self.end = end;
        self
    }

    fn send(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", self.status);
        if let Some(len) = self.claims.unwrap_or(Some(self.body.len())).filter(|_| self.end != End::Endless) {
            head += &format!("Content-Length: {len}\r\n");
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        stream.write_all(&self.body)?;
        match self.end {
            End::Close => {}
            End::Stall(time) => thread::sleep(time),
            End::Endless => loop {
                stream.write_all(&[b' '; 1 << 16])?;
            },
        }
        Ok(())
    }
}

/// The answer of a hub that behaves, `None` for no such thing.
pub fn honest(files: &Files, request: &Request) -> Option<Answer> {
    if request.path == format!("/api/models/{ID}/revision/main?blobs=true")
        || request.path == format!("/api/models/{ID}/revision/{COMMIT}?blobs=true")
    {
        return Some(Answer::new(200, listing(files).to_string()));
    }
    let name = request.path.strip_prefix(&format!("/{ID}/resolve/{COMMIT}/"))?;
    let bytes = files.get(name)?;
    let etag = etag(name, bytes);
    let answer = match request.from {
        Some(from) if from >= bytes.len() => Answer::new(416, ""),
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            Answer::new(206, &bytes[from..]).header("Content-Range", range)
        }
        None => Answer::new(200, &bytes[..]),
    };
    Some(answer.header("X-Repo-Commit", COMMIT).header("ETag", format!("\"{etag}\"")))
}

/// The description of the repository.
pub fn listing(files: &Files) -> Value {
    let siblings: Vec<Value> = files
        .iter()
        .map(|(name, bytes)| match name.ends_with(".safetensors") {
            true => json!({"rfilename": name, "size": bytes.len(), "blobId": "0".repeat(40),
                "lfs": {"sha256": etag(name, bytes), "size": bytes.len(), "pointerSize": 134}}),
            false => json!({"rfilename": name, "size": bytes.len(), "blobId": etag(name, bytes)}),
        })
        .collect();
    json!({"id": ID, "sha": COMMIT, "siblings": siblings, "tags": ["license:other"],
        "cardData": {"license": "other", "license_name": "cc-by-nc-4.0"}})
}

/// A running hub.
#[derive(Debug)]
pub struct Hub {
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Hub {
    /// A hub that behaves.
    pub fn good() -> Hub {
        Hub::new(|_| None)
    }

    /// A hub that answers as `behave` says, and behaves where that says nothing.
    pub fn new(behave: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static) -> Hub {
        let files = model();
        Hub::raw(move |request| {
            behave(request).or_else(|| honest(&files, request)).unwrap_or_else(|| Answer::new(404, "not found"))
        })
    }

    /// A hub with other files.
    pub fn of(files: Files) -> Hub {
        Hub::raw(move |request| honest(&files, request).unwrap_or_else(|| Answer::new(404, "not found")))
    }

    fn raw(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let requests = Arc::new(Mutex::new(vec![]));
        let (seen, answer) = (Arc::clone(&requests), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                thread::spawn(move || serve(stream, &seen, &*answer));
            }
        });
        Hub { url, requests }
    }

    /// What was asked until now.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic").clone()
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request) -> Answer) {
    let mut lines = BufReader::new(stream.try_clone().expect("a handle")).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut request = Request { method, path, host: String::new(), from: None, token: None };
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "range" => request.from = value.trim_start_matches("bytes=").trim_end_matches('-').parse().ok(),
            "authorization" => request.token = Some(value.into()),
            "host" => request.host = value.into(),
            _ => {}
        }
    }
    seen.lock().expect("no panic").push(request.clone());
    let mut answer = answer(&request);
    if request.method == "HEAD" {
        answer.claims = answer.claims.or(Some(Some(answer.body.len())));
        answer.body.clear();
    }
    // The client may leave in the middle of an answer.
    let _ = answer.send(&mut stream);
}

/// The honest answer about the weights, changed.
pub fn weights(change: impl Fn(Answer, &Request) -> Answer) -> impl Fn(&Request) -> Option<Answer> {
    let files = model();
    move |request| request.is(WEIGHTS).then(|| change(honest(&files, request).expect("it is there"), request))
}

/// A run of the binary that knows only this hub and this home.
pub fn command(hub: &str, home: &Path, arguments: &[&str]) -> Command {
    let mut command = nemoflash(&[arguments, on_cpu(arguments), &["--model", ID]].concat());
    for (name, _) in std::env::vars_os() {
        let upper = name.to_string_lossy().to_ascii_uppercase();
        let hub = ["HF_", "HUGGING", "TRANSFORMERS_", "XDG_CACHE_HOME"].iter().any(|begin| upper.starts_with(begin));
        if hub || upper.ends_with("_PROXY") {
            command.env_remove(name);
        }
    }
    command.env("HF_HOME", home).env("HF_ENDPOINT", hub).env("HF_HUB_DOWNLOAD_TIMEOUT", "1");
    command
}

pub fn run(hub: &str, home: &Path, arguments: &[&str]) -> Run {
    finish(command(hub, home, arguments).spawn().expect("the binary runs"))
}

pub fn explain(hub: &Hub, home: &Path) -> Run {
    run(&hub.url, home, &["explain", "--json", "--accept-license"])
}

/// No server at all.
pub const NOWHERE: &str = "http://127.0.0.1:9";

pub fn home() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

pub fn repo(home: &Path) -> PathBuf {
    home.join("hub").join(format!("models--{}", ID.replace('/', "--")))
}

pub fn partial(home: &Path, name: &str) -> PathBuf {
    repo(home).join("blobs").join(format!("{}.incomplete", etag(name, &model()[name])))
}

/// Files in snapshots that are not those of the model, and files outside the cache.
pub fn faults(home: &Path) -> Vec<String> {
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
pub fn repaired(home: &Path) -> Hub {
    let good = Hub::good();
    explain(&good, home).json();
    assert_eq!(faults(home), Vec::<String>::new());
    run(NOWHERE, home, &["verify"]).ok();
    run(NOWHERE, home, &["explain", "--json"]).json();
    good
}
