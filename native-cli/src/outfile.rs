//! Files that commands write. A file is written beside its place and renamed when it is complete. So an old file of that name
//! stays until then, whatever happens. `FILE.part` holds what a long run has measured so far.

use crate::args::Common;
use crate::report::Usage;
use crate::terminal;
use anyhow::{Context as _, Result, bail};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// Most `.part` files of unfinished runs beside one file.
const MOST_PARTS: u32 = 100;

/// The real path of a file, with links resolved. The file itself need not exist.
fn place(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let name = path.file_name().ok_or(error)?;
            Ok(fs::canonicalize(folder(path))?.join(name))
        }
        other => other,
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether a path is a terminal, a pipe or a device. Such a file cannot be replaced, so it is written directly.
fn special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| !data.is_file() && !data.is_dir())
}

fn cannot(path: &Path) -> String {
    format!("cannot write {}. Check the path, its permissions and the disk", path.display())
}

/// The files of `--model` and `--arch`, which no output may replace.
pub fn inputs(common: &Common) -> Vec<PathBuf> {
    let entries = common.model.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    // Other files in the folder may be replaced, such as logits that an earlier run wrote.
    let known = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let weights = name.starts_with("model") && name.ends_with(".safetensors");
        weights || [".json", ".jinja"].iter().any(|end| name.ends_with(end))
    };
    let arch = common.arch.iter().map(|shape| PathBuf::from(&shape.given));
    entries.map(|entry| entry.path()).filter(known).chain(arch).collect()
}

/// Checks, before anything is computed, whether a file can be written. The file is not changed.
///
/// # Errors
/// If it cannot be written, or if it is one of the `inputs`. Callers also put the run's other outputs among the `inputs`.
pub fn check(path: &Path, inputs: &[impl AsRef<Path>]) -> Result<()> {
    if special(path) {
        return Ok(());
    }
    let target = place(path).with_context(|| cannot(path))?;
    for input in inputs.iter().map(AsRef::as_ref) {
        if place(input).is_ok_and(|input| input == target) {
            let (shown, input) = (path.display(), input.display());
            let why = format!("{shown} cannot be written: this run also uses it as {input}. Choose another name");
            return Err(Usage(why).into());
        }
    }
    match OpenOptions::new().append(true).open(&target) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(|| cannot(path)),
        _ => {}
    }
    beside(&target).map(drop).with_context(|| cannot(path))
}

/// Makes an empty file beside `target`, with the permissions of the file that it will replace.
fn beside(target: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    let usual = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    #[cfg(unix)]
    builder.permissions(usual);
    let file = builder.prefix(".nemoflash-").suffix(".tmp").tempfile_in(folder(target))?;
    if let Ok(old) = fs::metadata(target) {
        fs::set_permissions(file.path(), old.permissions())?;
    }
    Ok(file)
}

fn replace(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = beside(target)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(target).map_err(|error| error.error)?;
    // This writes the new name to the disk, too, so that it survives a loss of power. Systems where folders cannot be opened do
    // that by themselves.
    let _ = File::open(folder(target)).and_then(|folder| folder.sync_all());
    Ok(())
}

/// Writes a file completely. If that fails, the old file stays.
///
/// # Errors
/// If it cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = match special(path) {
        true => OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(bytes)),
        false => place(path).and_then(|target| replace(&target, bytes)),
    };
    written.with_context(|| cannot(path))
}

/// A file that a long run will write at its end. Until then, its results so far are in `FILE.part`, line by line
/// ([`Growing::add`]) or as a whole text ([`Growing::keep`]). If a run that was killed has left a `FILE.part`, this one is
/// `FILE.part2`, and so on.
#[derive(Debug)]
pub struct Growing {
    path: PathBuf,
    /// None for a terminal, a pipe or a device.
    part: Option<Part>,
}

#[derive(Debug)]
struct Part {
    path: PathBuf,
    file: File,
    /// Length of the complete lines, in bytes.
    len: u64,
}

impl Growing {
    /// Makes the `.part` file. Call [`check`] first.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(path: &Path) -> Result<Growing> {
        let path = path.to_owned();
        if special(&path) {
            return Ok(Growing { path, part: None });
        }
        let target = place(&path).with_context(|| cannot(&path))?;
        for number in 1..=MOST_PARTS {
            let mut name = target.clone().into_os_string();
            name.push(if number == 1 { ".part".to_owned() } else { format!(".part{number}") });
            match OpenOptions::new().append(true).create_new(true).open(&name) {
                Ok(file) => return Ok(Growing { path, part: Some(Part { path: name.into(), file, len: 0 }) }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| cannot(&path)),
            }
        }
        bail!("{MOST_PARTS} unfinished runs lie beside {} (.part). Remove those that you do not need", path.display())
    }

    /// Adds a line to the `.part` file, completely or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, line: &str) -> Result<()> {
        let Some(Part { path, file, len }) = &mut self.part else { return Ok(()) };
        if let Err(error) = file.write_all(line.as_bytes()) {
            // Half a line would make the file look damaged, so it is cut off. If that fails, too, `compare` ignores the half
            // line.
            let _ = file.set_len(*len);
            return Err(error).with_context(|| cannot(path));
        }
        *len += line.len() as u64;
        Ok(())
    }

    /// Replaces the contents of the `.part` file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep(&mut self, text: &str) -> Result<()> {
        let Some(Part { path, len, .. }) = &mut self.part else { return Ok(()) };
        replace(path, text.as_bytes()).with_context(|| cannot(path))?;
        *len = text.len() as u64;
        Ok(())
    }

    /// Writes the file and removes the `.part` file. If writing fails, the `.part` file stays.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(mut self, text: &str) -> Result<()> {
        write(&self.path, text.as_bytes())?;
        if let Some(Part { path, .. }) = self.part.take() {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }
}

impl Drop for Growing {
    /// After a run that failed: keeps the `.part` file if it holds results, and removes it if it is empty.
    fn drop(&mut self) {
        match &self.part {
            Some(Part { path, len: 0, .. }) => drop(fs::remove_file(path)),
            Some(Part { path, .. }) => terminal::note(&format!("[what was measured is in {}]", path.display())),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.collect();
        names.sort();
        names
    }

    #[test]
    fn an_old_file_stays_until_the_new_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        fs::write(&path, "old").unwrap();
        let none: [&Path; 0] = [];
        check(&path, &none).unwrap();
        assert_eq!((names(folder.path()), fs::read_to_string(&path).unwrap().as_str()), (vec!["rows".into()], "old"));
        let mut first = Growing::new(&path).unwrap();
        first.add("1\n").unwrap();
        // A second run at the same time, or after the first was killed.
        let mut second = Growing::new(&path).unwrap();
        second.keep("a whole\n").unwrap();
        second.keep("text\n").unwrap();
        let part = folder.path().join("rows.part");
        assert_eq!(names(folder.path()), ["rows", "rows.part", "rows.part2"]);
        assert_eq!(
            ["rows", "rows.part", "rows.part2"].map(|name| fs::read_to_string(folder.path().join(name)).unwrap()),
            ["old", "1\n", "text\n"]
        );
        second.finish("new").unwrap();
        drop(first);
        assert_eq!(
            (names(folder.path()), fs::read_to_string(&path).unwrap().as_str()),
            (vec!["rows".into(), "rows.part".into()], "new")
        );
        fs::remove_file(part).unwrap();
        // An empty `.part` file is removed.
        drop(Growing::new(&path).unwrap());
        assert_eq!(names(folder.path()), ["rows"]);
    }

    #[test]
    fn inputs_are_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (input, other) = (folder.path().join("in"), folder.path().join("sub/../out"));
        fs::create_dir(folder.path().join("sub")).unwrap();
        fs::write(&input, "").unwrap();
        assert!(check(&folder.path().join("sub/../in"), &[&input]).unwrap_err().is::<Usage>());
        // Two outputs of the same name, neither of which exists.
        assert!(check(&folder.path().join("out"), &[&other]).unwrap_err().is::<Usage>());
        check(&folder.path().join("out"), &[&input]).unwrap();
        assert!(check(folder.path(), &[&input]).is_err(), "a folder");
        assert!(check(&folder.path().join("no/such"), &[&input]).is_err());
    }

    #[test]
    #[cfg(unix)]
    fn links_and_permissions_stay() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&file, &link).unwrap();
        write(&link, b"new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        // A new file gets the usual permissions, less those that the user's umask removes.
        let [new, usual] = ["new", "usual"].map(|name| folder.path().join(name));
        fs::write(&usual, "").unwrap();
        write(&new, b"").unwrap();
        let mode = |path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(new), mode(usual));
    }
}
