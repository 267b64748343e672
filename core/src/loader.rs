//! The loader turns the bytes of safetensors files into a model on a device. It reads no files: the caller pushes
//! bytes.
//!
//! [`Loader::wants`] names the next bytes to push: first the headers of all files, then the data of one file after the
//! other. The caller has the bytes (from a file or a download) and pushes them in pieces of any size.

use crate::checkpoint::{Header, TensorInfo, shown};
use crate::config::Config;
use crate::exec::Exec;
use crate::format::Quant;
use crate::loaded::{Loaded, resolve};
use crate::model::Model;
use crate::names::{HEAD, parts};
use crate::place::{Halves, Places, put};
use crate::tied::TiedHead;
use crate::{Error, Result};
use std::collections::{HashSet, VecDeque};

/// The most bytes that are converted at a time.
const PIECE: usize = 4 << 20;
/// Number of written bytes after which the loader waits for the device.
const FLUSH: u64 = 32 << 20;

/// The place of the bytes to push next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// Index of the file.
    pub file: usize,
    /// Byte offset in the file.
    pub offset: u64,
}

/// The progress of loading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the pushed piece that were taken. [`Loader::wants`] names the place to go on from.
    pub taken: usize,
    /// Bytes of tensors that are loaded.
    pub done: u64,
    /// Bytes of all tensors. 0 until all headers are complete.
    pub total: u64,
}

/// How a checkpoint is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Quantise the matrices of an unquantised checkpoint while they are loaded, embedding and head included. A matrix
    /// whose number of columns is not a multiple of the group size keeps its format.
    pub quantise: Option<Quant>,
    /// Do not divide each logit by the length of its row of the head (spec 3.7).
    pub keep_logits: bool,
}

/// A model that is being loaded.
#[derive(Debug)]
pub struct Loader {
    /// The device that gets the weights.
    exec: Exec,
    config_json: Vec<u8>,
    options: LoadOptions,
    /// Length of each file in bytes, where it is known.
    files: Vec<Option<u64>>,
    /// Headers that are complete.
    headers: Vec<Header>,
    /// The bytes that were taken and not used yet: the beginning of a header, or of a unit of data.
    partial: Vec<u8>,
    /// The model and the places of its tensors. Set when all headers are complete.
    target: Option<(Model, Places)>,
    /// The tensors that are not loaded yet, each as (index of its file, index in the file's header). The first of them
    /// is being loaded.
    rest: VecDeque<(usize, usize)>,
    /// Bytes of the first of these tensors that are on the device already.
    placed: u64,
    /// Set if the files have a head although it should be tied to the embedding, until it is known whether the two are
    /// equal.
    tied: Option<TiedHead>,
    notes: Vec<String>,
    /// Tensors that wait for their other half, such as scales for biases. See [`Halves`].
    halves: Halves,
    done: u64,
    total: u64,
    /// The value of `done` when the loader last waited for the device.
    flushed: u64,
}

impl Loader {
    /// Begins to load a checkpoint of one or more safetensors files onto a device. `files` has the length in bytes of
    /// each file, where it is known. A file of another length is refused as soon as its header is complete.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is no file.
    pub fn new(exec: Exec, config_json: &[u8], files: &[Option<u64>]) -> Result<Loader> {
        Self::with_options(exec, config_json, files, LoadOptions::default())
    }

    /// [`Loader::new`] with options.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is no file, [`Error::Parameter`] for a quantisation that does not exist.
    pub fn with_options(exec: Exec, config_json: &[u8], files: &[Option<u64>], options: LoadOptions) -> Result<Loader> {
        if files.is_empty() {
            return Err(Error::Checkpoint { why: "no safetensors file".into() });
        }
        if let Some(quant) = options.quantise {
            quant.validate()?;
        }
        Ok(Loader {
            exec,
            config_json: config_json.to_vec(),
            options,
            files: files.to_vec(),
            headers: vec![],
            partial: vec![],
            target: None,
            rest: VecDeque::new(),
            placed: 0,
            tied: None,
            notes: vec![],
            halves: Halves::new(),
            done: 0,
            total: 0,
            flushed: 0,
        })
    }

    /// The place of the bytes to push next. `None` when every tensor is loaded.
    pub fn wants(&self) -> Option<Want> {
        if self.target.is_none() {
            return Some(Want { file: self.headers.len(), offset: self.partial.len() as u64 });
        }
        let &(file, tensor) = self.rest.front()?;
        let header = self.headers.get(file)?;
        let begin = header.tensors.get(tensor)?.begin;
        let held = self.partial.len() as u64;
        Some(Want { file, offset: header.data_start + begin + self.placed + held })
    }

    /// Takes bytes from the place that [`Loader::wants`] names. The data of tensors goes to the device at once.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for a header that breaks the format, [`Error::Config`] if `config.json` cannot be used,
    /// [`Error::Tensors`] if the tensors do not fit it, [`Error::Limit`] and [`Error::OutOfMemory`] if the device
    /// cannot hold the model.
    pub async fn push(&mut self, bytes: &[u8]) -> Result<Progress> {
        let taken = match self.target {
            None => self.push_header(bytes).await?,
            Some(_) => self.push_data(bytes).await?,
        };
        // Written data stays in staging memory until it is submitted. Waiting for the device bounds that memory.
        if self.done - self.flushed > FLUSH {
            self.flushed = self.done;
            self.exec.wait().await?;
        }
        Ok(Progress { taken, done: self.done, total: self.total })
    }

    async fn push_header(&mut self, bytes: &[u8]) -> Result<usize> {
        let Some(&file_len) = self.files.get(self.headers.len()) else {
            return Err(Error::Checkpoint { why: "it was refused already".into() });
        };
        // A file begins with the length of its header in 8 bytes, then the header follows.
        let need = match self.partial.first_chunk() {
            None => 8,
            Some(&length) => 8 + Header::len(length)?,
        };
        let missing = usize::try_from(need - self.partial.len() as u64).unwrap_or(usize::MAX);
        let taken = missing.min(bytes.len());
        self.partial.extend_from_slice(&bytes[..taken]);
        if taken == missing && need > 8 {
            let header = Header::parse(&self.partial[8..], file_len)?;
            self.partial = vec![];
            self.headers.push(header);
            if self.headers.len() == self.files.len() {
                let (config, places) = resolve(&self.config_json, &self.headers, self.options)?;
                let unread = config.unread(&self.headers);
                self.notes.extend(left_out(&unread));
                self.tied = TiedHead::of(&config, &self.headers);
                self.target = Some(Model::alloc(&mut self.exec, config, places).await?);
                let unread: HashSet<String> = unread.into_iter().collect();
                self.queue(|name| !unread.contains(name));
            }
        }
        Ok(taken)
    }

    /// The configuration of the model. Until all headers are complete, it is what `config.json` alone says.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn config(&self) -> Result<Config> {
        match &self.target {
            Some((model, _)) => Ok(model.config.clone()),
            None => Config::parse(&self.config_json),
        }
    }

    /// The device that gets the weights.
    pub fn exec(&self) -> &Exec {
        &self.exec
    }

    /// Prepares a dry run of this model on this kind of device, see [`Loaded::dry_run`]. It is exact once all headers
    /// are complete.
    ///
    /// # Errors
    /// As [`Loaded::dry_run`].
    pub async fn dry_run(&self) -> Result<Loaded> {
        let headers = if self.target.is_some() { &self.headers[..] } else { &[] };
        Loaded::dry_run(self.exec.caps(), &self.config_json, headers, self.options).await
    }

    fn current(&self) -> Option<&TensorInfo> {
        let &(file, tensor) = self.rest.front()?;
        self.headers.get(file)?.tensors.get(tensor)
    }

    /// Queues the tensors whose names are `wanted`, file by file.
    fn queue(&mut self, wanted: impl Fn(&str) -> bool) {
        for (file, header) in self.headers.iter().enumerate() {
            for (i, tensor) in header.tensors.iter().enumerate() {
                if wanted(&tensor.name) && tensor.begin < tensor.end {
                    self.rest.push_back((file, i));
                    self.total += tensor.end - tensor.begin;
                }
            }
        }
    }

    /// Runs when all queued tensors are loaded. If the files have a head that differs from the embedding, this
    /// allocates the head and queues its tensors once more.
    async fn settle_head(&mut self) -> Result<()> {
        let Some(tied) = self.tied.take() else { return Ok(()) };
        let Some((model, places)) = &mut self.target else { return Ok(()) };
        if tied.is_the_embedding() {
            return Ok(());
        }
        model.untie(&mut self.exec, places).await?;
        let note =
            "config.json says that the head is tied to the embedding, but lm_head.weight is another matrix. It is used";
        self.notes.push(note.into());
        let names = parts(HEAD);
        self.queue(|name| names.iter().any(|part| part == name));
        Ok(())
    }

    async fn push_data(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut held = std::mem::take(&mut self.partial);
        let Some(tensor) = self.rest.front().and_then(|&(file, i)| self.headers.get(file)?.tensors.get(i)) else {
            return Ok(bytes.len());
        };
        let Some((_, places)) = &self.target else { return Ok(0) };
        let Some(place) = places.get(&tensor.name) else {
            return Err(Error::Checkpoint { why: format!("tensor {} has no place in this model", tensor.name) });
        };
        let left = usize::try_from(tensor.end - tensor.begin - self.placed).unwrap_or(usize::MAX);
        // If a piece ends inside a unit, `partial` keeps the beginning of that unit.
        let unit = place.unit(tensor.dtype);
        let (taken, whole);
        if held.is_empty() && bytes.len() >= unit {
            taken = left.min(bytes.len()).min(PIECE) / unit * unit;
            whole = &bytes[..taken];
        } else {
            taken = (unit - held.len()).min(bytes.len());
            held.extend_from_slice(&bytes[..taken]);
            if held.len() < unit {
                self.partial = held;
                return Ok(taken);
            }
            whole = &held;
        }
        let before = self.placed / tensor.dtype.bytes().max(1) as u64;
        put(&mut self.exec, place, tensor, before, whole, &mut self.halves)?;
        if let Some(tied) = &mut self.tied {
            tied.add(tensor, whole);
        }
        self.placed += whole.len() as u64;
        self.done += whole.len() as u64;
        if tensor.begin + self.placed == tensor.end {
            self.rest.pop_front();
            self.placed = 0;
            if self.rest.is_empty() {
                self.settle_head().await?;
            }
        }
        Ok(taken)
    }

    /// The model and its device, once every tensor is loaded.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if bytes are missing. It names the file and the place.
    pub async fn finish(mut self) -> Result<Loaded> {
        if let Some(Want { file, offset }) = self.wants() {
            let what = match self.current() {
                Some(tensor) => format!("in tensor {}", tensor.name),
                None => "in its header".into(),
            };
            let why = format!("file {} of {} ends at byte {offset}, {what}", file + 1, self.files.len());
            return Err(Error::Checkpoint { why });
        }
        let Some((mut model, _)) = self.target else { unreachable!("nothing is wanted only once a target exists") };
        model.finish(&mut self.exec).await?;
        Ok(Loaded { exec: self.exec, model, notes: self.notes })
    }
}

/// The note about tensors that are not read.
fn left_out(names: &[String]) -> Option<String> {
    const MOST: usize = 5;
    let mut list = names.iter().take(MOST).map(|name| shown(name)).collect::<Vec<_>>().join(", ");
    if names.len() > MOST {
        list += &format!(" and {} more", names.len() - MOST);
    }
    match names.len() {
        0 => None,
        1 => Some(format!("1 tensor of the checkpoint is not used: {list}")),
        n => Some(format!("{n} tensors of the checkpoint are not used: {list}")),
    }
}
