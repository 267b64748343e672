//! Where a model comes from: built in, or a folder.

use anyhow::{Context as _, Result, bail};
use nemoflash::checkpoint::{self, Header};
use nemoflash::{Error, Exec, Loader, Model, Want};
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// Longest JSON file that is read; each reader has a bound of its own below it.
const MAX_JSON: u64 = 64 << 20;
/// Bytes of weights that are read at a time.
///
/// Weights are read, not memory-mapped: the device gets a copy in any case, a file that shrinks or a disk that fails
/// is then an error and not a signal, and the program needs no `unsafe`.
const PIECE: usize = 8 << 20;

const INDEX: &str = "model.safetensors.index.json";
const WEIGHTS: &str = "model.safetensors";

/// A model's files.
#[derive(Debug)]
pub struct Source {
    /// For people: the folder's name.
    pub name: String,
    /// `config.json`.
    config: Vec<u8>,
    /// `tokenizer.json`, and what is wrong with it if it cannot be read.
    tokenizer: Result<Vec<u8>>,
    weights: Vec<Weights>,
}

#[derive(Debug)]
enum Weights {
    BuiltIn(&'static [u8]),
    File { name: String, file: File, len: u64 },
}

impl Source {
    /// The model in a folder, or the built-in one.
    ///
    /// # Errors
    /// If a file is missing, is no file, or cannot be read.
    pub fn open(folder: Option<&Path>) -> Result<Source> {
        folder.map_or_else(|| Ok(Source::fables()), Source::folder)
    }

    /// The built-in model.
    pub fn fables() -> Source {
        Source {
            name: "fables".into(),
            config: include_bytes!("../../models/fables/config.json").to_vec(),
            tokenizer: Ok(include_bytes!("../../models/fables/tokenizer.json").to_vec()),
            weights: vec![Weights::BuiltIn(include_bytes!("../../models/fables/model.safetensors"))],
        }
    }

    fn folder(folder: &Path) -> Result<Source> {
        let shown = folder.display();
        match fs::metadata(folder) {
            Ok(data) if data.is_dir() => {}
            Ok(_) => bail!("--model {shown} is a file. Give the folder that holds config.json and the weights"),
            Err(error) if error.kind() == ErrorKind::NotFound => bail!(
                "--model {shown}: no such folder. This version downloads nothing: get the model's files (config.json, \
                 tokenizer.json, *.safetensors) into a folder and give its path"
            ),
            Err(error) => bail!("--model {shown}: {error}. Check the path and its permissions"),
        }
        let config = read(&folder.join("config.json"))?;
        let index = folder.join(INDEX);
        let names = match folder.join(WEIGHTS).exists() || !index.exists() {
            true => vec![WEIGHTS.to_owned()],
            false => checkpoint::index(&read(&index)?)?,
        };
        let weights = names.into_iter().map(|name| Weights::open(folder, name)).collect::<Result<_>>()?;
        let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let name = whole.file_name().unwrap_or(whole.as_os_str()).to_string_lossy().into_owned();
        Ok(Source { name, config, tokenizer: read(&folder.join("tokenizer.json")), weights })
    }

    /// `tokenizer.json`.
    ///
    /// # Errors
    /// If it could not be read.
    pub fn tokenizer(&mut self) -> Result<Vec<u8>> {
        std::mem::replace(&mut self.tokenizer, Ok(vec![]))
    }

    /// Loads the weights onto a device, and tells bytes done and bytes in all.
    ///
    /// # Errors
    /// As the loader's, and if reading fails.
    pub async fn load(mut self, exec: &mut Exec, on_progress: &mut dyn FnMut(u64, u64)) -> Result<Model> {
        let lengths: Vec<Option<u64>> = self.weights.iter().map(|weights| Some(weights.len())).collect();
        let mut loader = Loader::new(&self.config, &lengths)?;
        let mut window = Window::default();
        while let Some(Want { file, offset }) = loader.wants() {
            let weights = &mut self.weights[file];
            let bytes = weights.at(file, offset, &mut window)?;
            if bytes.is_empty() {
                // The file ends here; the loader says what is missing.
                break;
            }
            let progress = loader.push(exec, bytes).await.map_err(|error| weights.name_in(error))?;
            on_progress(progress.done, progress.total);
        }
        Ok(loader.finish(exec).await?)
    }
}

/// The files of a model that are read on the host, tensor by tensor.
#[derive(Debug)]
pub struct Tensors {
    /// `config.json`.
    pub config: Vec<u8>,
    /// The table of each file.
    pub headers: Vec<Header>,
    weights: Vec<Weights>,
    window: Window,
}

impl Tensors {
    /// Reads the tables.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for a table that breaks the format, and if reading fails.
    pub fn open(source: Source) -> Result<Tensors> {
        let Source { config, mut weights, .. } = source;
        let mut window = Window::default();
        let mut headers = vec![];
        for (i, weights) in weights.iter_mut().enumerate() {
            let len = weights.len();
            let mut read = |at: u64, len: u64| -> Result<Vec<u8>> {
                let mut bytes = vec![];
                while (bytes.len() as u64) < len {
                    let more = weights.at(i, at + bytes.len() as u64, &mut window)?;
                    if more.is_empty() {
                        return Err(Error::Checkpoint { why: "the file ends in its header".into() }.into());
                    }
                    bytes.extend_from_slice(&more[..more.len().min((len - bytes.len() as u64) as usize)]);
                }
                Ok(bytes)
            };
            let first8: [u8; 8] = read(0, 8)?.try_into().expect("eight bytes were asked for");
            let json = read(8, Header::len(first8)?)?;
            headers.push(Header::parse(&json, Some(len)).map_err(|error| weights.name_in(error))?);
        }
        Ok(Tensors { config, headers, weights, window })
    }

    /// Hands the bytes `begin .. end` of a file's data section over, in pieces of whole `unit`s.
    ///
    /// # Errors
    /// If reading fails, and those of `take`.
    pub fn read(
        &mut self,
        file: usize,
        begin: u64,
        end: u64,
        unit: usize,
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let start = self.headers[file].data_start;
        let (mut at, mut held) = (begin, vec![]);
        while at < end {
            let bytes = self.weights[file].at(file, start + at, &mut self.window)?;
            if bytes.is_empty() {
                return Err(Error::Checkpoint { why: "the file ends too early".into() }.into());
            }
            let here = usize::try_from(end - at).unwrap_or(usize::MAX).min(bytes.len());
            held.extend_from_slice(&bytes[..here]);
            at += here as u64;
            let whole = held.len() / unit * unit;
            take(&held[..whole])?;
            held.drain(..whole);
        }
        Ok(())
    }
}

impl Weights {
    /// Bytes from `offset` on: some, or none at the end.
    fn at<'a>(&'a mut self, file: usize, offset: u64, window: &'a mut Window) -> Result<&'a [u8]> {
        match self {
            Weights::BuiltIn(bytes) => Ok(usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or(&[])),
            Weights::File { name, file: handle, .. } => window.at(file, offset, name, handle),
        }
    }

    fn open(folder: &Path, name: String) -> Result<Weights> {
        let (file, len) = open(&folder.join(&name))?;
        Ok(Weights::File { name, file, len })
    }

    fn len(&self) -> u64 {
        match self {
            Weights::BuiltIn(bytes) => bytes.len() as u64,
            Weights::File { len, .. } => *len,
        }
    }

    /// Says which file a broken checkpoint's error is about.
    fn name_in(&self, error: Error) -> anyhow::Error {
        match (self, &error) {
            (Weights::File { name, .. }, Error::Checkpoint { .. }) => anyhow::Error::new(error).context(name.clone()),
            _ => error.into(),
        }
    }
}

/// The piece of a file that is in memory.
#[derive(Debug, Default)]
struct Window {
    file: usize,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// Bytes of a file from `offset` on: some, or none at its end.
    fn at(&mut self, file: usize, offset: u64, name: &str, handle: &mut File) -> Result<&[u8]> {
        let end = self.start + self.bytes.len() as u64;
        if self.file != file || !(self.start..end).contains(&offset) {
            self.bytes.clear();
            handle
                .seek(SeekFrom::Start(offset))
                .and_then(|_| handle.take(PIECE as u64).read_to_end(&mut self.bytes))
                .with_context(|| format!("cannot read {name}. Check the disk, or copy the file again"))?;
            (self.file, self.start) = (file, offset);
        }
        Ok(&self.bytes[(offset - self.start) as usize..])
    }
}

/// Opens an ordinary file. Anything else (a folder, a pipe that never ends) is refused unopened.
fn open(path: &Path) -> Result<(File, u64)> {
    let shown = path.display();
    let next = "A model folder holds config.json, tokenizer.json, and model.safetensors or \
                model.safetensors.index.json with its parts";
    let opened = fs::metadata(path).and_then(|data| match data.is_file() {
        true => Ok(Some((File::open(path)?, data.len()))),
        false => Ok(None),
    });
    match opened {
        Ok(Some(file)) => Ok(file),
        Ok(None) => bail!("{shown} is not a file. {next}"),
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("{shown} is missing. {next}"),
        Err(error) => bail!("cannot open {shown}: {error}. Check its permissions"),
    }
}

/// Reads a small file.
///
/// # Errors
/// If it is missing, is no file, is longer than 64 MiB, or cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let (file, len) = open(path)?;
    let shown = path.display();
    if len > MAX_JSON {
        bail!("{shown} has {len} bytes, more than any such file of a model. Get the original file again");
    }
    let mut bytes = Vec::new();
    file.take(MAX_JSON)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {shown}. Check the disk, or copy the file again"))?;
    Ok(bytes)
}
