//! Writing a model's folder as such folders are published: safetensors files of at most 5 GB, an index where there are
//! several, and the small files beside them.

use anyhow::{Context as _, Result, bail};
use nemoflash::checkpoint::Dtype;
use serde_json::{Map, json};
use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Most bytes of tensors in one file.
const SHARD: u64 = 5_000_000_000;

/// A tensor that will be written.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// What its elements are.
    pub dtype: Dtype,
    /// Its dimensions, slowest first.
    pub shape: Vec<u64>,
}

impl Tensor {
    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.shape.iter().product::<u64>() * self.dtype.bits() / 8
    }
}

/// A folder that is being written. Every file gets its name when it is complete.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the folder.
    ///
    /// # Errors
    /// If there is something in it, or it cannot be made.
    pub fn create(path: &Path) -> Result<Folder> {
        let shown = path.display();
        match fs::read_dir(path).map(|mut entries| entries.next()) {
            Ok(None) => {}
            Ok(Some(_)) => bail!("{shown} is not empty. Choose another folder, or empty it first"),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(path).with_context(|| format!("cannot make {shown}. Choose another folder"))?;
            }
            Err(error) => bail!("cannot write into {shown}: {error}. Choose another folder"),
        }
        Ok(Folder { path: path.to_owned() })
    }

    /// Writes a small file.
    ///
    /// # Errors
    /// If writing fails.
    pub fn file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.whole(name, &mut |file| Ok(file.write_all(bytes)?))
    }

    /// Writes all tensors. `put` writes the bytes of one, by its place in the list; it is asked in order.
    ///
    /// # Errors
    /// If writing fails, and those of `put`.
    pub fn tensors(&self, tensors: &[Tensor], put: &mut dyn FnMut(usize, &mut dyn Write) -> Result<()>) -> Result<()> {
        let shards = shards(tensors);
        let name = |i: usize| match shards.len() {
            1 => "model.safetensors".to_owned(),
            n => format!("model-{:05}-of-{n:05}.safetensors", i + 1),
        };
        let mut first = 0;
        let mut places = Map::new();
        for (i, &len) in shards.iter().enumerate() {
            let range = first..first + len;
            first += len;
            for tensor in &tensors[range.clone()] {
                places.insert(tensor.name.clone(), name(i).into());
            }
            self.whole(&name(i), &mut |file| {
                file.write_all(&header(&tensors[range.clone()])?)?;
                range.clone().try_for_each(|at| put(at, file))
            })?;
        }
        if shards.len() > 1 {
            let total: u64 = tensors.iter().map(Tensor::bytes).sum();
            let index = json!({ "metadata": { "total_size": total }, "weight_map": places });
            self.file("model.safetensors.index.json", format!("{index:#}\n").as_bytes())?;
        }
        Ok(())
    }

    /// Writes a file under another name and renames it when it is complete and on the disk.
    fn whole(&self, name: &str, write: &mut dyn FnMut(&mut dyn Write) -> Result<()>) -> Result<()> {
        let (path, partial) = (self.path.join(name), self.path.join(format!("{name}.partial")));
        let done = File::create(&partial).map_err(anyhow::Error::from).and_then(|file| {
            let mut file = BufWriter::with_capacity(1 << 20, file);
            write(&mut file)?;
            file.flush()?;
            file.get_ref().sync_all()?;
            Ok(fs::rename(&partial, &path)?)
        });
        if done.is_err() {
            // Nothing of it is of use; that it cannot be removed either is no second error.
            let _ = fs::remove_file(&partial);
        }
        match done {
            // What is read is at fault, and not the disk.
            Err(error) if error.is::<nemoflash::Error>() => Err(error),
            done => done.with_context(|| format!("cannot write {}. Check that the disk has room", path.display())),
        }
    }
}

/// How many tensors go into each file: as many as fit.
fn shards(tensors: &[Tensor]) -> Vec<usize> {
    let mut shards = vec![0];
    let mut bytes = 0;
    for tensor in tensors {
        if bytes > 0 && bytes + tensor.bytes() > SHARD {
            shards.push(0);
            bytes = 0;
        }
        bytes += tensor.bytes();
        *shards.last_mut().expect("one at least") += 1;
    }
    shards
}

/// Length and table of a safetensors file; the data that follow begin at a multiple of 8 bytes.
fn header(tensors: &[Tensor]) -> Result<Vec<u8>> {
    let (mut table, mut end) = (Map::new(), 0);
    table.insert("__metadata__".into(), json!({ "format": "pt" }));
    for tensor in tensors {
        let begin = end;
        end += tensor.bytes();
        let entry = json!({ "dtype": tensor.dtype.name(), "shape": tensor.shape, "data_offsets": [begin, end] });
        table.insert(tensor.name.clone(), entry);
    }
    let mut json = serde_json::to_vec(&table)?;
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut json);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_below_their_size() {
        let tensor =
            |gigabytes: u64| Tensor { name: "t".into(), dtype: Dtype::U8, shape: vec![gigabytes * 1_000_000_000] };
        let sizes = |list: &[u64]| shards(&list.iter().map(|&n| tensor(n)).collect::<Vec<_>>());
        assert_eq!(sizes(&[]), [0]);
        assert_eq!(sizes(&[1, 4]), [2]);
        assert_eq!(sizes(&[1, 4, 1]), [2, 1]);
        assert_eq!(sizes(&[9, 1, 9]), [1, 1, 1]);
    }
}
