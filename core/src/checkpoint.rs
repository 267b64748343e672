//! The header of a safetensors file, and the index of a checkpoint in several files. This module only parses; it reads
//! no files.
//!
//! The rules are those of the [safetensors format](https://github.com/huggingface/safetensors). They are computed in
//! checked `u64`, so that tensors and files beyond 4 GiB also work on a 32-bit machine (a web page). The differential
//! test in `core/tests/checkpoint.rs` compares this module with the `safetensors` crate. Five things are refused here
//! on purpose although that crate accepts them. The format forbids two of them: a header that does not begin with `{`,
//! and a tensor that is listed twice. The others are a dtype that is not a plain string, and more dimensions or more
//! tensors than any checkpoint has ([`MAX_RANK`], [`MAX_TENSORS`]): these limits bound the memory that a hostile header
//! can take.

use std::collections::HashSet;
use std::fmt;

use half::f16;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::json::without_mark;
use crate::{Error, Result};

/// The longest header that is read, in bytes; the same as in the `safetensors` crate.
pub const MAX_HEADER: u64 = 100_000_000;
/// The most tensors that one file may list.
pub const MAX_TENSORS: usize = 100_000;
/// The most dimensions that a tensor may have.
pub const MAX_RANK: usize = 32;
/// The most files that a checkpoint may consist of.
pub const MAX_FILES: usize = 1000;

macro_rules! dtypes {
    ($($name:ident $bits:literal),* $(,)?) => {
        /// The type of the elements of a stored tensor, under the format's own names.
        #[allow(missing_docs, non_camel_case_types)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Dtype {
            $($name),*
        }

        impl Dtype {
            /// Every dtype of the format.
            pub const ALL: &[Dtype] = &[$(Dtype::$name),*];

            /// Its name in a header.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Dtype::$name => stringify!($name)),*
                }
            }

            /// Bits of one element. Some elements are smaller than a byte.
            pub const fn bits(self) -> u64 {
                match self {
                    $(Dtype::$name => $bits),*
                }
            }

            /// Bytes of one element, for dtypes with a whole number of bytes.
            pub(crate) const fn bytes(self) -> usize {
                (self.bits() / 8) as usize
            }
        }
    };
}

dtypes! {
    F4 4, F6_E2M3 6, F6_E3M2 6,
    BOOL 8, U8 8, I8 8, F8_E5M2 8, F8_E4M3 8, F8_E8M0 8, F8_E4M3FNUZ 8, F8_E5M2FNUZ 8,
    I16 16, U16 16, F16 16, BF16 16,
    I32 32, U32 32, F32 32,
    C64 64, F64 64, I64 64, U64 64,
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name in the checkpoint.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its dimensions, slowest first.
    pub shape: Vec<u64>,
    /// Offset of its first byte from the start of the data section.
    pub begin: u64,
    /// Offset of the byte after its last one, from the start of the data section.
    pub end: u64,
}

/// The header of a safetensors file: the table of its tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// All tensors, in the order of their data. Each begins where the previous one ends.
    pub tensors: Vec<TensorInfo>,
    /// Offset of the data section from the start of the file, in bytes.
    pub data_start: u64,
    /// The length of the data section in bytes. The file is `data_start + data_len` bytes long.
    pub data_len: u64,
}

impl Header {
    /// The length in bytes of the JSON text that follows the file's first 8 bytes.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if no header can have this length.
    pub fn len(first8: [u8; 8]) -> Result<u64> {
        let len = u64::from_le_bytes(first8);
        if &first8 == b"version " {
            return Err(bad("this is a Git LFS pointer, not the file that it points to"));
        }
        if !(2..=MAX_HEADER).contains(&len) {
            return Err(bad(format!(
                "this is not a safetensors file: a header of {len} bytes (2 to {MAX_HEADER} are possible)"
            )));
        }
        Ok(len)
    }

    /// Reads the JSON text of a header.
    ///
    /// `file_len` is the length in bytes of the whole file, if it is known. A caller that streams a file of unknown
    /// length must compare its end with `data_start + data_len` later.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the text is not a header, if a tensor is not as long as its shape and dtype say, or if
    /// the tensors do not follow each other without gap or overlap.
    pub fn parse(json: &[u8], file_len: Option<u64>) -> Result<Header> {
        let Table(mut tensors) = read(json).map_err(|why| bad(format!("the safetensors header is broken: {why}")))?;
        distinct(&tensors)?;
        tensors.sort_by_key(|t| (t.begin, t.end));
        let mut data_len = 0;
        for t in &tensors {
            let (name, begin, end) = (shown(&t.name), t.begin, t.end);
            if begin != data_len || end < begin {
                return Err(bad(format!("tensor {name} lies at {begin}..{end}, but should begin at {data_len}")));
            }
            let bits =
                t.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d)).and_then(|n| n.checked_mul(t.dtype.bits()));
            if bits.is_none_or(|bits| !bits.is_multiple_of(8) || bits / 8 != end - begin) {
                let (dtype, shape, bytes) = (t.dtype, &t.shape, end - begin);
                return Err(bad(format!("tensor {name} of {bytes} bytes cannot be {dtype} of shape {shape:?}")));
            }
            data_len = end;
        }
        let data_start = 8 + json.len() as u64;
        let total = data_start.checked_add(data_len).ok_or_else(|| bad("the header promises more than 2^64 bytes"))?;
        match file_len {
            Some(len) if len != total => Err(bad(format!("the file has {len} bytes, but its header promises {total}"))),
            _ => Ok(Header { tensors, data_start, data_len }),
        }
    }
}

/// Reads `model.safetensors.index.json`: the names of the files of the checkpoint, each once, in the order in which
/// they first appear.
///
/// # Errors
/// [`Error::Checkpoint`] if the text is not such an index, or if a file's name is not plain: letters, digits, `.`, `_`
/// and `-`, with `.safetensors` at the end. So an index cannot make anyone read outside its folder.
pub fn index(json: &[u8]) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: Files,
    }
    let broken = |why: String| bad(format!("model.safetensors.index.json: {why}"));
    if json.len() as u64 > MAX_HEADER {
        return Err(broken(format!("{} bytes ({MAX_HEADER} are possible)", json.len())));
    }
    let Index { weight_map: Files(files) } = read(without_mark(json)).map_err(broken)?;
    if files.is_empty() {
        return Err(broken("the weight_map is empty".into()));
    }
    Ok(files)
}

/// Some numbers of a BF16, F16 or F32 tensor as f32. `before` is how many numbers of the tensor came before them.
///
/// # Errors
/// [`Error::Checkpoint`] for another dtype, and for a number that is NaN or infinite. It names the tensor and the
/// place.
pub fn numbers(name: &str, dtype: Dtype, before: u64, bytes: &[u8]) -> Result<Vec<f32>> {
    let list: Vec<f32> = match dtype {
        Dtype::BF16 => {
            bytes.as_chunks().0.iter().map(|b| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16)).collect()
        }
        Dtype::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        other => return Err(bad(format!("tensor {name} is {other}, not BF16, F16 or F32"))),
    };
    // The first loop has no early exit, which makes it faster.
    if list.iter().fold(true, |all, v| all & v.is_finite()) {
        return Ok(list);
    }
    let i = list.iter().position(|v| !v.is_finite()).unwrap_or_default();
    Err(not_finite(name, before + i as u64, list[i]))
}

pub(crate) fn not_finite(name: &str, at: u64, value: f32) -> Error {
    bad(format!("tensor {name}: number {at} is {value}"))
}

fn plain_file_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.len() <= 255
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(allowed)
        && name.ends_with(".safetensors")
}

/// A name or a message from a file, made safe to print: one line, escaped, and short.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 200;
    let mut line: String = text
        .chars()
        .take(MOST)
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect();
    if text.chars().nth(MOST).is_some() {
        line.push('…');
    }
    line
}

fn bad(why: impl Into<String>) -> Error {
    Error::Checkpoint { why: why.into() }
}

fn distinct(tensors: &[TensorInfo]) -> Result<()> {
    let mut names: Vec<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|w| w[0] == w[1]) {
        Some(w) => Err(bad(format!("tensor {} is listed twice", shown(w[0])))),
        None => Ok(()),
    }
}

/// Reads an object in two passes. The first pass proves that all of it is JSON, even in places that the second one
/// skips. It finds lone surrogates, numbers beyond f64, and nesting that is too deep for the stack.
fn read<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, String> {
    let text = std::str::from_utf8(json).map_err(|e| e.to_string())?;
    if !text.starts_with('{') {
        return Err("it does not begin with {".into());
    }
    serde_json::from_str::<Anything>(text).and_then(|_| serde_json::from_str(text)).map_err(|e| shown(&e.to_string()))
}

/// Any JSON value, which is read and dropped.
struct Anything;

impl<'de> Deserialize<'de> for Anything {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Anything)
    }
}

impl<'de> Visitor<'de> for Anything {
    type Value = Anything;
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, _: bool) -> Result<Anything, E> {
        Ok(Anything)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Anything, E> {
        Ok(Anything)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Anything, E> {
        Ok(Anything)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Anything, E> {
        Ok(Anything)
    }
    fn visit_str<E>(self, _: &str) -> Result<Anything, E> {
        Ok(Anything)
    }
    fn visit_unit<E>(self) -> Result<Anything, E> {
        Ok(Anything)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Anything, A::Error> {
        while seq.next_element::<Anything>()?.is_some() {}
        Ok(Anything)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Anything, A::Error> {
        while map.next_entry::<Anything, Anything>()?.is_some() {}
        Ok(Anything)
    }
}

/// Implements `Deserialize` for a type that the visitor expression makes, through one deserializer method.
macro_rules! deserialize {
    ($type:ty, $method:ident, $expecting:literal, $($visit:tt)*) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct V;
                impl<'de> Visitor<'de> for V {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    $($visit)*
                }
                d.$method(V)
            }
        }
    };
}

/// The object of a header.
struct Table(Vec<TensorInfo>);

#[derive(Deserialize)]
struct Entry {
    dtype: Dtype,
    shape: Shape,
    data_offsets: (u64, u64),
}

struct Shape(Vec<u64>);

/// A string that is read and dropped, and a map of strings to strings that is read and dropped.
struct Text;
struct Metadata;

/// The distinct values of a weight map.
struct Files(Vec<String>);

deserialize!(
    Table,
    deserialize_map,
    "an object of tensors",
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table, A::Error> {
        let (mut tensors, mut metadata) = (Vec::new(), false);
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                if std::mem::replace(&mut metadata, true) {
                    return Err(de::Error::custom("__metadata__ is listed twice"));
                }
                map.next_value::<Option<Metadata>>()?;
                continue;
            }
            if tensors.len() == MAX_TENSORS {
                return Err(de::Error::custom(format!("more than {MAX_TENSORS} tensors")));
            }
            let Entry { dtype, shape: Shape(shape), data_offsets: (begin, end) } =
                map.next_value().map_err(|e| de::Error::custom(format!("tensor {}: {e}", shown(&name))))?;
            tensors.push(TensorInfo { name, dtype, shape, begin, end });
        }
        Ok(Table(tensors))
    }
);

deserialize!(
    Dtype,
    deserialize_str,
    "a dtype's name as a string",
    fn visit_str<E: de::Error>(self, name: &str) -> Result<Dtype, E> {
        let known = Dtype::ALL.iter().find(|d| d.name() == name);
        known.copied().ok_or_else(|| E::custom(format!("unknown dtype {}", shown(name))))
    }
);

deserialize!(
    Shape,
    deserialize_seq,
    "a list of dimensions",
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
        let mut shape = Vec::new();
        while let Some(dim) = seq.next_element()? {
            if shape.len() == MAX_RANK {
                return Err(de::Error::custom(format!("more than {MAX_RANK} dimensions")));
            }
            shape.push(dim);
        }
        Ok(Shape(shape))
    }
);

deserialize!(
    Text,
    deserialize_str,
    "a string",
    fn visit_str<E>(self, _: &str) -> Result<Text, E> {
        Ok(Text)
    }
);

deserialize!(
    Metadata,
    deserialize_map,
    "a map of strings",
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
        while map.next_entry::<Text, Text>()?.is_some() {}
        Ok(Metadata)
    }
);

deserialize!(
    Files,
    deserialize_map,
    "a map of tensors to files",
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Files, A::Error> {
        let (mut files, mut seen) = (Vec::new(), HashSet::new());
        while let Some((_, file)) = map.next_entry::<Text, String>()? {
            if seen.contains(&file) {
                continue;
            }
            if !plain_file_name(&file) {
                return Err(de::Error::custom(format!("{} is not the plain name of a safetensors file", shown(&file))));
            }
            if files.len() == MAX_FILES {
                return Err(de::Error::custom(format!("more than {MAX_FILES} files")));
            }
            files.push(file.clone());
            seen.insert(file);
        }
        Ok(Files(files))
    }
);
