//! `nemoflash verify`: checks whether a model's files are complete and undamaged.

use crate::args::Common;
use crate::devices::table;
use crate::hub::{self, Etag, Hasher};
use crate::report::Exit;
use crate::source::{self, CONFIG, INDEX, Place, TOKENIZER};
use crate::terminal;
use anyhow::{Context as _, Result, anyhow, bail};
use indicatif::ProgressBar;
use nemoflash::checkpoint::Header;
use nemoflash::{Config, Tokenizer};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};

/// The result for one file.
#[derive(Debug, Serialize)]
struct Check {
    file: String,
    state: State,
    /// The real path of its bytes, with links resolved.
    path: PathBuf,
    /// The checksum that it was compared with. Only downloads have one.
    checksum: Option<String>,
    why: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Damaged,
    Missing,
}

/// Runs the command.
///
/// # Errors
/// If a file is damaged or missing, or there is no such model.
pub fn run(common: &Common) -> Result<Exit> {
    let (folder, linked) = match Place::named(common)? {
        None => {
            let text = "fables is built in: it has no files\n";
            terminal::print(if common.json { "{\"files\":[],\"ok\":true}\n" } else { text })?;
            return Ok(Exit::Done);
        }
        Some(Place::Folder(folder)) => (folder.to_owned(), false),
        Some(Place::Hub { id, revision }) => (hub::cached(&id, revision)?, true),
    };
    let checks = check(&folder, linked)?;
    let bad = checks.iter().filter(|check| check.state != State::Ok).count();
    let text = match common.json {
        true => format!("{:#}\n", serde_json::json!({ "folder": folder, "files": checks, "ok": bad == 0 })),
        false => page(&checks),
    };
    terminal::print(&text)?;
    match bad {
        0 => Ok(Exit::Done),
        _ if linked => bail!(
            "{bad} of {} files are damaged or missing. Delete the damaged ones and run the model: what is missing is \
             downloaded again",
            checks.len()
        ),
        _ => bail!("{bad} of {} files are damaged or missing. Copy or download them again", checks.len()),
    }
}

/// Checks the files of a folder. In the hub's cache (`linked`), all files are checked, and compared with the checksums in their
/// links.
fn check(folder: &Path, linked: bool) -> Result<Vec<Check>> {
    let there = || fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>();
    let there = there().with_context(|| format!("cannot list {}. Check its permissions", folder.display()))?;
    let there = there.iter().filter(|entry| !entry.path().is_dir()).map(|entry| entry.file_name());
    let mut names: BTreeSet<String> = there.map(|name| name.to_string_lossy().into_owned()).collect();
    if !linked {
        names.retain(|name| [TOKENIZER, INDEX].contains(&name.as_str()));
    }
    let weights = source::weight_names(folder);
    names.insert(CONFIG.into());
    names.extend(weights.iter().flatten().cloned());

    let len = |name: &String| fs::metadata(folder.join(name)).map_or(0, |data| data.len());
    let bar = terminal::bar("checking", names.iter().map(len).sum(), true);
    let mut headers = vec![];
    let mut checks: Vec<Check> = vec![];
    for name in names {
        let place = folder.join(&name);
        let path = fs::canonicalize(&place).unwrap_or_else(|_| place.clone());
        let etag = linked.then(|| checksum(&place)).flatten();
        let found = one(&place, &name, etag.as_ref(), &bar).map(|header| headers.extend(header));
        let state = match &found {
            Ok(()) => State::Ok,
            Err(_) if !place.exists() => State::Missing,
            Err(_) => State::Damaged,
        };
        let checksum = etag.map(|etag| etag.as_str().to_owned());
        checks.push(Check { file: name, state, path, checksum, why: found.err().map(|error| format!("{error:#}")) });
    }
    bar.finish_and_clear();
    // Even if each file is good, the files may not belong together.
    let known = weights.is_ok() && checks.iter().all(|check| check.state == State::Ok);
    if let (true, Some(config)) = (known, checks.iter_mut().find(|check| check.file == CONFIG)) {
        let json = source::read(&folder.join(CONFIG))?;
        if let Err(error) = Config::resolve(&json, &headers).and_then(|config| config.check(&headers)) {
            (config.state, config.why) = (State::Damaged, Some(error.to_string()));
        }
    }
    Ok(checks)
}

/// The checksum that a link into `blobs/` names.
fn checksum(place: &Path) -> Option<Etag> {
    Etag::new(fs::read_link(place).ok()?.file_name()?.to_str()?)
}

/// Checks one file: its checksum, if there is one, and the contents that a file of its kind must have.
fn one(place: &Path, name: &str, etag: Option<&Etag>, bar: &ProgressBar) -> Result<Option<Header>> {
    let (mut file, len) = source::open(place)?;
    if let Some(etag) = etag {
        let mut hasher = Hasher::new(etag, len);
        hasher.read(&mut file, &mut |bytes| bar.inc(bytes)).context("cannot read it. Check the disk")?;
        if hasher.finish() != *etag {
            bail!("its {} is not {}", etag.kind(), etag.as_str());
        }
        file.rewind().context("cannot read it. Check the disk")?;
    } else {
        bar.inc(len);
    }
    match name {
        TOKENIZER => drop(Tokenizer::from_bytes(&source::read(place)?)?),
        INDEX => drop(nemoflash::checkpoint::index(&source::read(place)?)?),
        _ if name.ends_with(".safetensors") => return header(&mut file, len).map(Some),
        _ => {}
    }
    Ok(None)
}

fn header(file: &mut File, len: u64) -> Result<Header> {
    let mut first = [0; 8];
    file.read_exact(&mut first).map_err(|_| anyhow!("{len} bytes are no safetensors file"))?;
    let mut json = vec![];
    file.take(Header::len(first)?).read_to_end(&mut json).context("cannot read it. Check the disk")?;
    Ok(Header::parse(&json, Some(len))?)
}

fn page(checks: &[Check]) -> String {
    let row = |check: &Check| {
        let state = match check.state {
            State::Ok => "ok",
            State::Damaged => "damaged",
            State::Missing => "missing",
        };
        let why = match (&check.why, &check.checksum) {
            (Some(why), _) if check.state == State::Damaged => {
                format!("{why} ({})", check.path.display()).replace('\n', " ")
            }
            (Some(_), _) => String::new(),
            (None, Some(checksum)) => format!("checksum {checksum}"),
            (None, None) => String::new(),
        };
        [state.to_owned(), check.file.clone(), why]
    };
    table(&checks.iter().map(row).collect::<Vec<_>>())
}
