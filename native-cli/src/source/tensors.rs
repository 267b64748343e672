//! Reads the weight files of a model on the host.

use super::{Source, Weights, Window};
use anyhow::{Result, bail};
use nemoflash::Error;
use nemoflash::checkpoint::Header;

/// The weight files of a model, which are read tensor by tensor.
#[derive(Debug)]
pub struct Tensors {
    /// `config.json`.
    pub config: Vec<u8>,
    /// The header of each file.
    pub headers: Vec<Header>,
    weights: Vec<Weights>,
    window: Window,
}

impl Tensors {
    /// Reads the headers of all files.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for a header that breaks the format, and if reading fails.
    pub fn open(source: Source) -> Result<Tensors> {
        let Source { config, mut weights, .. } = source;
        if let [Weights::Random] = weights[..] {
            bail!("--arch has no files. Write them with `nemoflash synthesize` and give their folder with --model");
        }
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

    /// Reads the bytes `begin .. end` of a file's data section, and passes them to `take` in pieces of whole `unit`s (in
    /// bytes).
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
