//! Where a model comes from: it is built in, in a folder, on the hub, or has random weights (`--arch`).

mod tensors;

pub use tensors::Tensors;

use crate::arch::Arch;
use crate::args::Common;
use crate::hub::{self, Id};
use crate::report::Usage;
use anyhow::{Context as _, Result, bail};
use nemoflash::checkpoint;
use nemoflash::{
    Caps, ChatFiles, ChatFormat, Config, Error, Exec, LoadOptions, Loaded, Loader, ModelText, Synthetic, TextFiles,
    Tokenizer, Want, tokenizer_json,
};
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::iter;
use std::path::{Path, PathBuf};

/// Longest JSON file that is read, in bytes. Each reader has a lower limit of its own.
pub const MAX_JSON: u64 = 64 << 20;
/// Bytes of weights that are read at a time.
///
/// Weights are read and not memory-mapped. The device gets a copy in any case. If a file shrinks or a disk fails, that is an
/// error and not a signal that kills the process. And the program needs no `unsafe`.
const PIECE: usize = 8 << 20;

/// The file with the model's shape.
pub const CONFIG: &str = "config.json";
/// The tokenizer. It is not needed for runs on token ids.
pub const TOKENIZER: &str = "tokenizer.json";
/// All weights, if they are in one file.
pub const WEIGHTS: &str = "model.safetensors";
/// The list of weight files, if there are several.
pub const INDEX: &str = "model.safetensors.index.json";
/// The tokens that end a text, and defaults of sampling.
pub const GENERATION: &str = "generation_config.json";

/// The small files of a model, beside config.json.
pub const SMALL: [&str; 6] = [
    TOKENIZER,
    GENERATION,
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "special_tokens_map.json",
];
/// Files that are copied with a model, such as its licence.
const PAPERS: [&str; 2] = ["LICENSE", "README.md"];

/// Which of the small files a run reads. The others need not exist, and are not downloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// All small files of the model.
    All,
    /// Only those for text without a chat template. `greedy` says that the most probable token is always taken, so the model's
    /// own defaults of sampling are not needed.
    Plain { greedy: bool },
}

impl Reads {
    /// Whether the run reads this file.
    pub fn file(self, name: &str) -> bool {
        self == Reads::All || [TOKENIZER, GENERATION].contains(&name)
    }

    /// Whether the run asks the hub if the model has this file. Greedy text does without generation_config.json, because
    /// config.json also names the token that ends a text.
    pub fn asks_for(self, name: &str) -> bool {
        self.file(name) && !(self == Reads::Plain { greedy: true } && name == GENERATION)
    }
}

/// A model's files.
#[derive(Debug)]
pub struct Source {
    /// The model's name: that of its folder or of its repository.
    pub name: String,
    /// Its folder, unless it is built in.
    folder: Option<PathBuf>,
    /// `config.json`.
    config: Vec<u8>,
    weights: Vec<Weights>,
    reads: Reads,
}

#[derive(Debug)]
enum Weights {
    /// Random weights, which are made on the device.
    Random,
    BuiltIn(&'static [u8]),
    File {
        name: String,
        file: File,
        len: u64,
    },
}

/// What `--model` names.
#[derive(Debug)]
pub enum Place<'a> {
    Folder(&'a Path),
    Hub { id: Id, revision: &'a str },
}

impl Place<'_> {
    /// Reads `--model`. A folder that exists has precedence over a model of the hub. Without `--model` the result is `None`:
    /// the built-in model.
    ///
    /// # Errors
    /// If it is neither a folder nor an id.
    pub fn named(common: &Common) -> Result<Option<Place<'_>>> {
        let revision = common.revision.as_deref();
        let only =
            |what: &str| Usage(format!("--revision chooses among the versions of a model on the hub, and {what}"));
        let Some(model) = common.model.as_deref() else {
            return revision.map_or(Ok(None), |_| Err(only("there is no --model").into()));
        };
        let shown = model.display();
        match fs::metadata(model) {
            Ok(data) if data.is_dir() && revision.is_some() => Err(only(&format!("{shown} is a folder")).into()),
            Ok(data) if data.is_dir() => Ok(Some(Place::Folder(model))),
            Ok(_) => bail!("--model {shown} is a file. Give the folder that holds config.json and the weights"),
            Err(error) if error.kind() == ErrorKind::NotFound => match model.to_str().and_then(Id::new) {
                Some(id) => Ok(Some(Place::Hub { id, revision: revision.unwrap_or(hub::MAIN) })),
                None => bail!(
                    "--model {shown}: no such folder, and not the id of a model on the Hugging Face hub (owner/name). Check \
                     the path"
                ),
            },
            Err(error) => bail!("--model {shown}: {error}. Check the path and its permissions"),
        }
    }
}

impl Source {
    /// Opens the model that `--model` names, or the built-in one. A model of the hub is downloaded if it is not in the cache.
    ///
    /// # Errors
    /// If a file is missing, is not an ordinary file, or cannot be read or downloaded.
    pub fn open(common: &Common) -> Result<Source> {
        Source::open_for(common, Reads::All)
    }

    /// As [`Source::open`], for a run that reads only these of the small files.
    ///
    /// # Errors
    /// The same.
    pub fn open_for(common: &Common, reads: Reads) -> Result<Source> {
        if let Some(Arch { name, config, .. }) = common.arch.clone() {
            return Ok(Source { name, folder: None, config, weights: vec![Weights::Random], reads });
        }
        match Place::named(common)? {
            None => Ok(Source::fables()),
            Some(Place::Folder(folder)) => Source::folder(folder, called(folder), reads),
            Some(Place::Hub { id, revision }) => {
                let folder = hub::folder(&id, revision, common.accept_license, reads)?;
                Source::folder(&folder, id.name, reads)
            }
        }
    }

    /// The folder of its files. None if the model is built in or has random weights.
    pub fn place(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// The built-in model.
    pub fn fables() -> Source {
        Source {
            name: "fables".into(),
            folder: None,
            config: nemoflash_fables::CONFIG.to_vec(),
            weights: vec![Weights::BuiltIn(nemoflash_fables::WEIGHTS)],
            reads: Reads::All,
        }
    }

    fn folder(folder: &Path, name: String, reads: Reads) -> Result<Source> {
        let config = read(&folder.join(CONFIG))?;
        let weights =
            weight_names(folder)?.into_iter().map(|name| Weights::open(folder, name)).collect::<Result<_>>()?;
        Ok(Source { name, folder: Some(folder.to_owned()), config, weights, reads })
    }

    /// Names and bytes of the small files that exist beside config.json and the weights.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn beside(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let Some(folder) = &self.folder else {
            return Ok(vec![(TOKENIZER.to_owned(), nemoflash_fables::TOKENIZER.to_vec())]);
        };
        let there = SMALL.iter().chain(&PAPERS).filter(|name| is_there(&folder.join(name)));
        there.map(|name| Ok(((*name).to_owned(), read(&folder.join(name))?))).collect()
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// If its file cannot be read or used.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        Ok(Tokenizer::from_bytes(&self.tokenizer_json()?)?)
    }

    fn tokenizer_json(&self) -> Result<Vec<u8>> {
        match (&self.folder, &self.weights[..]) {
            (Some(folder), _) => read(&folder.join(TOKENIZER)),
            (None, [Weights::Random]) => Ok(tokenizer_json(Config::parse(&self.config)?.vocab_size)),
            (None, _) => Ok(nemoflash_fables::TOKENIZER.to_vec()),
        }
    }

    /// The text side of the model: its tokenizer, its chat template, what ends an answer.
    ///
    /// # Errors
    /// As [`ModelText::new`], and if a file that is there cannot be read.
    pub fn text(&self) -> Result<ModelText> {
        let optional = |name: &str| match &self.folder {
            Some(folder) if self.reads.file(name) && is_there(&folder.join(name)) => read(&folder.join(name)).map(Some),
            _ => Ok(None),
        };
        let generation_config = optional(GENERATION)?;
        let chat_template_jinja = optional("chat_template.jinja")?;
        let tokenizer_config = optional("tokenizer_config.json")?;
        let chat_template_json = optional("chat_template.json")?;
        let special_tokens_map = optional("special_tokens_map.json")?;
        Ok(ModelText::new(&TextFiles {
            name: &self.name,
            tokenizer_json: &self.tokenizer_json()?,
            generation_config: generation_config.as_deref(),
            chat: ChatFiles {
                chat_template_jinja: chat_template_jinja.as_deref(),
                tokenizer_config: tokenizer_config.as_deref(),
                chat_template_json: chat_template_json.as_deref(),
                special_tokens_map: special_tokens_map.as_deref(),
            },
        })?)
    }

    /// Prepares a dry run of the model on a device with these limits and features, see [`Loaded::dry_run`].
    ///
    /// # Errors
    /// As [`Loaded::dry_run`], and if a header cannot be read.
    pub async fn dry_run(self, caps: &Caps, options: LoadOptions) -> Result<Loaded> {
        let (config, headers) = match self.weights[..] {
            [Weights::Random] => (self.config, vec![]),
            _ => {
                let tensors = Tensors::open(self)?;
                (tensors.config, tensors.headers)
            }
        };
        Ok(Loaded::dry_run(caps, &config, &headers, options).await?)
    }

    /// Loads the weights onto a device. `on_progress` gets the bytes that are loaded and the total number of bytes.
    ///
    /// # Errors
    /// As the loader's, and if reading fails.
    pub async fn load(
        mut self,
        exec: Exec,
        options: LoadOptions,
        on_progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Loaded> {
        if let [Weights::Random] = self.weights[..] {
            return Ok(Synthetic { seed: 0 }.model(exec, &self.config, options).await?);
        }
        let lengths: Vec<Option<u64>> = self.weights.iter().map(|weights| Some(weights.len())).collect();
        let mut loader = Loader::with_options(exec, &self.config, &lengths, options)?;
        let mut window = Window::default();
        while let Some(Want { file, offset }) = loader.wants() {
            let weights = &mut self.weights[file];
            let bytes = weights.at(file, offset, &mut window)?;
            if bytes.is_empty() {
                // The file ends too early. `finish` says what is missing.
                break;
            }
            let progress = loader.push(bytes).await.map_err(|error| weights.name_in(error))?;
            on_progress(progress.done, progress.total);
        }
        Ok(loader.finish().await?)
    }
}

impl Weights {
    /// Bytes from `offset` on: some, or none at the end.
    fn at<'a>(&'a mut self, file: usize, offset: u64, window: &'a mut Window) -> Result<&'a [u8]> {
        match self {
            Weights::Random => Ok(&[]),
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
            Weights::Random => 0,
            Weights::BuiltIn(bytes) => bytes.len() as u64,
            Weights::File { len, .. } => *len,
        }
    }

    /// Adds the file's name to an error about a damaged checkpoint.
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

/// The name of the model in a folder: the name of the folder, or of the repository if the folder is a snapshot in the hub's
/// cache. The chat format may depend on the name, so a link must not hide it. If the real folder's name does not tell the
/// format, but the name of a link to it does, the link's name is taken.
fn called(folder: &Path) -> String {
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let name = |path: &Path| match hub::repository(path) {
        Some(name) => Some(name.to_owned()),
        None => Some(path.file_name()?.to_string_lossy().into_owned()),
    };
    let real = name(&whole).unwrap_or_else(|| whole.display().to_string());
    // `components` removes a slash at the end, with which a link would not be read as a link. No system follows more than 40
    // links.
    let given = folder.components().as_path().to_owned();
    let links = iter::successors(Some(given), |link| Some(link.parent()?.join(fs::read_link(link).ok()?))).take(40);
    let mut names = iter::once(real.clone()).chain(links.filter_map(|link| name(&link)));
    names.find(|name| ChatFormat::by_name(name) != ChatFormat::Text).unwrap_or(real)
}

/// Whether there is anything at this path. A broken link counts, too: the file that it should lead to is missing.
fn is_there(path: &Path) -> bool {
    !path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// The names of the files that hold a folder's weights. The files themselves may be missing.
///
/// # Errors
/// If the list of them cannot be read.
pub fn weight_names(folder: &Path) -> Result<Vec<String>> {
    let index = folder.join(INDEX);
    match folder.join(WEIGHTS).exists() || !is_there(&index) {
        true => Ok(vec![WEIGHTS.to_owned()]),
        false => Ok(checkpoint::index(&read(&index)?)?),
    }
}

/// Opens an ordinary file, and returns it with its length. A folder, or a pipe that may never end, is refused before it is
/// opened.
pub fn open(path: &Path) -> Result<(File, u64)> {
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
        Err(error) if error.kind() == ErrorKind::NotFound && path.is_symlink() => bail!(
            "{shown} is a link that leads to nothing. Get its file again, or mount the disk that holds it. If the model \
             does without that file, delete the link"
        ),
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
