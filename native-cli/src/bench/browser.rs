//! Measures in a browser: serves the built web demo to an installed Chromium. The web demo measures and sends its rows back.

use super::measure::{context, slots};
use super::options::{Bench, Skip};
use super::row::{About, Told, unknown, unread};
use crate::args::{Common, Device, Feature};
use crate::source::Source;
use crate::terminal;
use anyhow::{Context as _, Result, anyhow, bail};
use nemoflash::Kv;
use nemoflash_bench::Lists;
use nemoflash_bench::report::Row;
#[cfg(unix)]
use rustix::process::{Pid, Signal};
use serde::Deserialize;
use std::fs::File;
use std::io::Read as _;
#[cfg(unix)]
use std::os::unix::process::CommandExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;
use tiny_http::{Header, Request, Response, Server};

/// Time between two checks of whether the browser still runs and whether Ctrl-C was pressed.
const LOOK: Duration = Duration::from_millis(50);
/// Most bytes of one message of the web demo.
const MOST: u64 = 64 << 20;
/// Names and paths that are tried if no browser is named.
const NAMES: [&str; 8] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "chrome",
    "msedge",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
];

const NO_BROWSER: &str = "no Chromium, Chrome or Edge was found. Give the path of one with --browser=PATH";

/// A message of the web demo.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum News {
    Row(Box<Row>),
    /// The end of the run, with an error if there was one.
    End(Option<Fault>),
}

#[derive(Deserialize)]
struct Fault {
    code: String,
    message: String,
}

/// A browser, or a script that starts one. When this is dropped, the browser ends, with all processes that it started.
struct Browser(Child);

impl Drop for Browser {
    fn drop(&mut self) {
        // An error means that it has ended already.
        #[cfg(unix)]
        let _ = rustix::process::kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Checks, before anything is measured, that there are a built web demo, a browser, and weights that the web demo can load.
///
/// # Errors
/// If one of them is missing.
pub fn check(common: &Common, bench: &Bench, path: Option<&Path>) -> Result<()> {
    if common.arch.is_some() {
        bail!("the web demo has no random weights. With --browser, use --model DIR, or neither --model nor --arch");
    }
    if !bench.page.join("index.html").is_file() {
        let shown = bench.page.display();
        bail!("{shown} holds no built web demo. Build it (docs/web.md says how), or name its folder with --page");
    }
    match path {
        Some(path) if !there(path) => bail!("cannot start {}: no such program. Name a Chromium", path.display()),
        None if !NAMES.iter().any(|name| there(Path::new(name))) => bail!(NO_BROWSER),
        _ => Ok(()),
    }
}

/// Whether a program exists at this path, or under this name in one of the folders of PATH.
fn there(program: &Path) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let file = |folder: PathBuf| {
        let path = folder.join(program);
        path.is_file() || path.with_extension(std::env::consts::EXE_EXTENSION).is_file()
    };
    // A path with a folder is not looked up in PATH.
    match program.components().count() {
        1 => std::env::split_paths(&folders).any(file),
        _ => file(PathBuf::new()),
    }
}

/// Measures in the browser at `path`, or in an installed one, until all tests are done or Ctrl-C is pressed. With all backends,
/// it measures on the browser's GPU and on the CPU. If the web demo or the browser fails, the rows say so. Returns notes about
/// what is missing.
///
/// # Errors
/// If the browser cannot be started (call [`check`] first), and those of `write`.
pub fn measure(
    common: &Common,
    bench: &Bench,
    path: Option<&Path>,
    stopped: &dyn Fn() -> bool,
    write: &mut dyn FnMut(Row) -> Result<()>,
) -> Result<Vec<String>> {
    let all = || vec![Some(Device::Gpu), Some(Device::Cpu)];
    let mut notes = vec![];
    for device in if bench.all_backends { all() } else { vec![common.device] } {
        let common = Common { device, ..common.clone() };
        notes.extend(page(&common, bench, path, stopped, write)?);
    }
    notes.iter().for_each(|note| terminal::note(&format!("note: {note}")));
    Ok(notes)
}

fn page(
    common: &Common,
    bench: &Bench,
    path: Option<&Path>,
    stopped: &dyn Fn() -> bool,
    write: &mut dyn FnMut(Row) -> Result<()>,
) -> Result<Option<String>> {
    if stopped() {
        return Ok(None);
    }
    let page = &bench.page;
    let source = Source::open(common)?;
    let server =
        Server::http("127.0.0.1:0").map_err(|error| anyhow!("cannot serve the web demo on this machine: {error}"))?;
    let port = server.server_addr().to_ip().map_or(0, |address| address.port());
    // The address has a secret, so that no other page or program on this machine can send results.
    let secret: String = std::iter::repeat_with(fastrand::alphanumeric).take(24).collect();
    let profile = tempfile::tempdir().context("cannot make a folder for the browser's profile")?;
    let query = query(common, bench, source.place().map(|_| source.name.as_str()));
    let url = format!("http://127.0.0.1:{port}/{secret}/?{query}");
    terminal::note_if_watched("the web demo in a browser ...");
    let mut browser = start(path, profile.path(), &url)?;
    let tests = bench.lists().tests();
    let mut told = Told::new(&tests, about(common, &source.name));
    loop {
        if stopped() {
            return Ok(None);
        }
        if let Some(status) = browser.0.try_wait().context("cannot tell whether the browser still runs")? {
            let why = format!(
                "the browser ended by {status} before it had measured this. Try `nemoflash bench --browser=PATH` with another \
                 one. If you are root, PATH must be a script that starts Chromium with --no-sandbox"
            );
            return told.failed(&why, write).map(|()| None);
        }
        let Some(mut request) = server.recv_timeout(LOOK).context("cannot serve the web demo")? else { continue };
        let path = request.url().split('?').next().unwrap_or_default().to_owned();
        let Some(path) = path.strip_prefix(&format!("/{secret}/")) else {
            respond(request, None);
            continue;
        };
        if path != "report" {
            respond(request, file(page, &source, path));
            continue;
        }
        let mut text = String::new();
        request.as_reader().take(MOST).read_to_string(&mut text).context("cannot read what the web demo sends")?;
        // The web demo does not read the answer.
        let _ = request.respond(Response::empty(204));
        match serde_json::from_str(&text).context("the web demo sent no row. Build the demo of this version")? {
            News::Row(row) => {
                told.hear(&row);
                write(*row)?;
            }
            News::End(None) => return Ok(None),
            News::End(Some(Fault { code, message })) if code == "no_adapter" && bench.all_backends => {
                return Ok(Some(format!("the browser offers no GPU, so its rows are missing: {message}")));
            }
            News::End(Some(Fault { message, .. })) => {
                return told.failed(&format!("the web demo could not measure: {message}"), write).map(|()| None);
            }
        }
    }
}

/// What is known about the browser's rows before its first one comes.
fn about(common: &Common, model: &str) -> About {
    let backend = if common.device == Some(Device::Cpu) { "cpu" } else { "webgpu" };
    let mut about = About::new(unknown("a browser's", backend), unread(model, common));
    (about.software.runtime, about.software.host) = ("browser".into(), "browser".into());
    about
}

/// The options of the web demo, as the query of its address.
fn query(common: &Common, bench: &Bench, model: Option<&str>) -> String {
    let Lists { prompts, tokens, pairs, depths, batches, skip } = bench.lists();
    let mut words = vec![format!("r{}", bench.repetitions), format!("w{}", bench.warm_up)];
    for (name, list) in [("pp", prompts), ("tg", tokens), ("d", depths), ("b", batches)] {
        words.extend(list.iter().map(|number| format!("{name}{number}")));
    }
    // A plain `+` in an address would be read as a space.
    words.extend(pairs.iter().map(|(prompt, tokens)| format!("pp{prompt}%2Btg{tokens}")));
    let kinds = skip.iter().filter_map(|kind| serde_json::to_value(kind).ok());
    words.extend(kinds.filter_map(|kind| Some(format!("no-{}", kind.as_str()?))));
    words.extend(bench.skip.contains(&Skip::Gate).then(|| "no-gate".to_owned()));
    let tests = bench.lists().tests();
    let mut query = format!("unattended&bench={}&slots={}", words.join(","), slots(&tests));
    query += &context(common, bench, &tests).map_or(String::new(), |context| format!("&context={context}"));
    if common.kv() == Kv::F32 {
        query += "&kv=f32";
    }
    if let Some(scan) = common.scan() {
        query += &format!("&scan={scan}");
    }
    if let Some(name) = model {
        // The name may have any character, so each byte is escaped.
        let name: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        query += &format!("&model={name}");
    }
    if let Some(quant) = common.load().quantise {
        query += &format!("&weights=q{}", quant.bits);
    }
    if let Some(device) = common.device {
        query += if device == Device::Gpu { "&device=gpu" } else { "&device=cpu" };
    }
    let names = [(Feature::F16, "f16"), (Feature::Subgroups, "subgroups")];
    let denied: Vec<&str> =
        names.iter().filter(|(feature, _)| common.deny.contains(feature)).map(|(_, name)| *name).collect();
    if !denied.is_empty() {
        query += &format!("&deny={}", denied.join(","));
    }
    query
}

fn start(path: Option<&Path>, profile: &Path, url: &str) -> Result<Browser> {
    let mut own = std::ffi::OsString::from("--user-data-dir=");
    own.push(profile);
    let run = |program: &Path| {
        let mut command = Command::new(program);
        command.args([
            "--headless=new",
            "--no-first-run",
            "--no-default-browser-check",
            "--disable-background-networking",
        ]);
        // On other systems, Chromium uses the GPU without options.
        let linux = ["--enable-unsafe-webgpu", "--enable-features=Vulkan"];
        command.args(linux.into_iter().filter(|_| cfg!(target_os = "linux"))).arg(&own).arg(url);
        #[cfg(unix)]
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(Browser)
    };
    match path {
        Some(path) => run(path).with_context(|| format!("cannot start {}. Name a Chromium", path.display())),
        None => {
            let found = NAMES.iter().find_map(|name| run(Path::new(name)).ok());
            found.context(NO_BROWSER)
        }
    }
}

/// Opens a file of the web demo, or a file of the model, whose address is `model/NAME/` and the file's name.
fn file(page: &Path, source: &Source, path: &str) -> Option<(PathBuf, File)> {
    let path = if path.is_empty() { "index.html" } else { path };
    let inside = Path::new(path);
    if !inside.components().all(|part| matches!(part, Component::Normal(_))) {
        return None;
    }
    let place = match (path.strip_prefix("model/"), source.place()) {
        // Only the web demo needs the NAME in the address. The model's files lie in its folder.
        (Some(_), Some(folder)) => folder.join(inside.file_name()?),
        _ => page.join(inside),
    };
    let file = File::open(&place).ok().filter(|file| file.metadata().is_ok_and(|data| data.is_file()))?;
    Some((place, file))
}

/// Answers a request in a thread of its own, because sending weights takes long and depends on how fast the browser reads.
fn respond(request: Request, file: Option<(PathBuf, File)>) {
    thread::spawn(move || {
        // An error means that the browser has closed the connection.
        let _ = match file {
            None => request.respond(Response::empty(404)),
            Some((path, file)) => {
                let kind = match path.extension().and_then(|end| end.to_str()) {
                    Some("html") => "text/html",
                    Some("js") => "text/javascript",
                    Some("css") => "text/css",
                    Some("json") => "application/json",
                    Some("wasm") => "application/wasm",
                    Some("svg") => "image/svg+xml",
                    _ => "application/octet-stream",
                };
                let header = Header::from_bytes("content-type", kind).ok();
                // The file is not sent in chunks, because the web demo needs its length.
                let response = Response::from_file(file).with_chunked_threshold(usize::MAX);
                let response = header.into_iter().fold(response, Response::with_header);
                request.respond(response)
            }
        };
    });
}
