//! Writes a model's folder in the usual layout: safetensors files of at most 5 GB, an index if there are several, and the small
//! files beside them.

use crate::terminal;
use anyhow::{Context as _, Result, bail};
use nemoflash::checkpoint::Dtype;
use serde_json::{Map, json};
use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Most bytes of tensors in one file.
const SHARD: u64 = 5_000_000_000;

/// A tensor that will be written.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What its elements are.
    pub dtype: Dtype,
    /// Its dimensions, slowest first.
    pub shape: Vec<u64>,
}

impl Entry {
    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.shape.iter().product::<u64>() * self.dtype.bits() / 8
    }
}

/// A model's folder that is being written. Until it is complete, it lies beside its place under another name. So a run that was
/// killed leaves nothing behind that looks like a model.
#[derive(Debug)]
pub struct Folder {
    /// Where it will be.
    path: PathBuf,
    /// Where it is until it is complete.
    partial: PathBuf,
    /// Keeps other runs from writing the same folder.
    _lock: Lock,
}

impl Folder {
    /// Begins a folder at `path`. What an earlier run left of the same folder is removed.
    ///
    /// # Errors
    /// If `path` is the `input` that is read, is not empty, cannot be written, or is being written by another run.
    pub fn create(path: &Path, input: Option<&Path>) -> Result<Folder> {
        let shown = path.display();
        let whole = |path: &Path| path.canonicalize().ok();
        if whole(path).is_some() && whole(path) == input.and_then(whole) {
            bail!("{shown} is the model that is read. Choose another folder");
        }
        free(path)?;
        // `..` and links in the path are resolved first, so that the temporary folder is on the same disk.
        let path = whole(path).map_or_else(|| std::path::absolute(path), Ok)?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            bail!("{shown} is not a folder that can be written. Choose another one");
        };
        let beside = |ending: &str| parent.join(format!(".{}.{ending}", name.to_string_lossy()));
        let made = fs::create_dir_all(parent).map_err(anyhow::Error::from);
        let lock = made.and_then(|()| Lock::take(beside("lock")));
        let cannot = || format!("cannot make {shown}. Choose another folder");
        let Some(lock) = lock.with_context(cannot)? else {
            bail!("another run is writing {shown}. Wait for its end, or choose another folder");
        };
        let partial = beside("partial");
        if partial.exists() {
            remove(&partial)
                .with_context(|| format!("cannot remove {}, which an earlier run left", partial.display()))?;
            terminal::note(&format!("note: removed {}, which an earlier run left", partial.display()));
        }
        fs::create_dir(&partial).with_context(cannot)?;
        Ok(Folder { path, partial, _lock: lock })
    }

    /// Gives the complete folder its name.
    ///
    /// # Errors
    /// If something has appeared at its place in the meantime, or renaming fails.
    pub fn finish(self) -> Result<()> {
        free(&self.path)?;
        if self.path.exists() {
            fs::remove_dir(&self.path).with_context(|| cannot_write(&self.path))?;
        }
        fs::rename(&self.partial, &self.path).with_context(|| cannot_write(&self.path))
    }

    /// Writes a small file.
    ///
    /// # Errors
    /// If writing fails.
    pub fn file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.whole(name, &mut |file| Ok(file.write_all(bytes)?))
    }

    /// Writes all tensors. `put` gets the index of a tensor and writes the tensor's bytes. It is called for each tensor in
    /// order.
    ///
    /// # Errors
    /// If writing fails, and those of `put`.
    pub fn tensors(&self, tensors: &[Entry], put: &mut dyn FnMut(usize, &mut dyn Write) -> Result<()>) -> Result<()> {
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
            let total: u64 = tensors.iter().map(Entry::bytes).sum();
            let index = json!({ "metadata": { "total_size": total }, "weight_map": places });
            self.file("model.safetensors.index.json", format!("{index:#}\n").as_bytes())?;
        }
        Ok(())
    }

    /// Writes a file and waits until it is on the disk.
    fn whole(&self, name: &str, write: &mut dyn FnMut(&mut dyn Write) -> Result<()>) -> Result<()> {
        let done = File::create_new(self.partial.join(name)).map_err(anyhow::Error::from).and_then(|file| {
            let mut file = BufWriter::with_capacity(1 << 20, file);
            write(&mut file)?;
            file.flush()?;
            Ok(file.get_ref().sync_all()?)
        });
        match done {
            // Such an error is about the model that is read, and not about writing.
            Err(error) if error.is::<nemoflash::Error>() => Err(error),
            done => done.with_context(|| cannot_write(&self.path.join(name))),
        }
    }
}

impl Drop for Folder {
    /// Removes the folder, unless [`Folder::finish`] has given it its name.
    fn drop(&mut self) {
        // If removing fails now, the next run removes the folder.
        let _ = remove(&self.partial);
    }
}

/// A lock file, which one run holds at a time.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A lock file that stays does no harm: only a running program holds its lock.
        let _ = fs::remove_file(&self.path);
    }
}

impl Lock {
    /// Takes the lock. None if another run holds it.
    fn take(path: PathBuf) -> Result<Option<Lock>> {
        let file = File::create(&path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            // A file system without locks cannot tell whether another run holds it.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // The run that held it may just have removed the file. A lock on a removed file keeps no other run out.
        Ok(path.exists().then_some(Lock { path, _file: file }))
    }
}

/// Refuses a place that is not an empty folder.
fn free(path: &Path) -> Result<()> {
    let shown = path.display();
    match fs::read_dir(path).map(|mut entries| entries.next()) {
        Ok(None) => Ok(()),
        Ok(Some(_)) => bail!("{shown} is not empty. Choose another folder"),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => bail!("cannot write into {shown}: {error}. Choose another folder"),
    }
}

/// Removes a folder of files. A folder with folders in it was not written by this program, and stays.
fn remove(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        fs::remove_file(entry?.path())?;
    }
    fs::remove_dir(folder)
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}. Check that the disk has room", path.display())
}

/// How many tensors go into each file. Each file takes as many as fit.
fn shards(tensors: &[Entry]) -> Vec<usize> {
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

/// The header of a safetensors file: its length and its table. It is padded, so that the data begin at a multiple of 8 bytes.
fn header(tensors: &[Entry]) -> Result<Vec<u8>> {
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
            |gigabytes: u64| Entry { name: "t".into(), dtype: Dtype::U8, shape: vec![gigabytes * 1_000_000_000] };
        let sizes = |list: &[u64]| shards(&list.iter().map(|&n| tensor(n)).collect::<Vec<_>>());
        assert_eq!(sizes(&[]), [0]);
        assert_eq!(sizes(&[1, 4]), [2]);
        assert_eq!(sizes(&[1, 4, 1]), [2, 1]);
        assert_eq!(sizes(&[9, 1, 9]), [1, 1, 1]);
    }
}
