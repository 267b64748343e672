//! Reads `tokenizer.json`. The file is not trusted: whatever passes the checks here cannot make the `tokenizers` crate
//! panic, hang or use memory without bound.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use tokenizers::models::bpe::{BPE, Vocab as Ids};

use super::wrong::tokenizer as bad;
use super::{
    added::{Added, Strip},
    bytes::{BYTE_CHARS, Pieces, token_bytes},
    parts,
    tokenizer::Tokenizer,
};
use crate::Result;
use crate::json::without_mark;

/// Longest file in bytes. The largest published ones have about 20 MB.
const MAX_FILE: usize = 32 << 20;
/// The most ids. The largest published vocabularies have 262,144.
const MAX_IDS: usize = 1 << 20;
const MAX_MERGES: usize = 1 << 21;
/// Longest token in bytes.
const MAX_TOKEN: usize = 4096;
/// The most bytes of all added tokens that text may spell. It bounds the automaton that finds them.
const MAX_ADDED: usize = 1 << 20;

/// A token for an error message.
fn quoted(token: &str) -> String {
    let short: String = token.chars().take(60).collect();
    format!("{short:?}")
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(default)]
    added_tokens: List<AddedToken, MAX_IDS>,
    #[serde(borrow, default)]
    normalizer: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pre_tokenizer: Option<&'a RawValue>,
    #[serde(borrow, default)]
    post_processor: Option<&'a RawValue>,
    #[serde(borrow, default)]
    decoder: Option<&'a RawValue>,
    #[serde(borrow)]
    model: &'a RawValue,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

/// A BPE model. `unk_token`, `fuse_unk` and `byte_fallback` are ignored: every byte has a token, so no text is unknown.
#[derive(Deserialize)]
struct Model {
    #[serde(default)]
    dropout: Option<f32>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    ignore_merges: Option<bool>,
    vocab: Vocab,
    merges: List<Merge, MAX_MERGES>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`](crate::Error::Tokenizer) if the file is longer than 32 MiB, has a component that is not
    /// supported (the message names it), or contradicts itself: a merge outside the vocabulary, an id used twice, a
    /// template token without an id.
    pub fn from_bytes(json: &[u8]) -> Result<Tokenizer> {
        if json.len() > MAX_FILE {
            return Err(bad(format!("the file has {} bytes, more than {MAX_FILE}", json.len())));
        }
        let file: File<'_> = serde_json::from_slice(without_mark(json)).map_err(|e| bad(e.to_string()))?;
        let model = model(file.model)?;
        let (added, pieces) = ids(&model.vocab.0, &file.added_tokens.0)?;
        for b in (0..=0xFFu8).filter(|b| !matches!(b, 0xC0 | 0xC1 | 0xF5..)) {
            let token = BYTE_CHARS[usize::from(b)].to_string();
            if !model.vocab.0.contains_key(&token) {
                return Err(bad(format!(
                    "model: byte {b:#04X} ({token:?}) is not in the vocabulary (not byte-level BPE)"
                )));
            }
        }

        let forms = parts::normalizer(file.normalizer)?;
        let splitter = parts::pre_tokenizer(file.pre_tokenizer)?;
        let (prefix, suffix) = parts::post_processor(file.post_processor, &pieces)?;
        parts::decoder(file.decoder)?;

        let (mut raw, mut normalized, mut special) = (Vec::new(), Vec::new(), Vec::new());
        for t in file.added_tokens.0.iter().filter(|t| !t.content.is_empty()) {
            if t.special {
                // `single_word` and `normalized` are ignored: where a chat template spells a special token, it means
                // that token.
                special.push((t.content.clone(), t.id, Strip { left: t.lstrip, right: t.rstrip }));
                continue;
            }
            if t.single_word || t.lstrip || t.rstrip {
                return Err(bad(format!(
                    "added token {}: single_word, lstrip and rstrip are not supported",
                    quoted(&t.content)
                )));
            }
            match t.normalized {
                false => raw.push((t.content.clone(), t.id, Strip::default())),
                true => {
                    normalized.push((parts::normalize(&forms, &t.content)?.get().to_owned(), t.id, Strip::default()))
                }
            }
        }
        if raw.iter().chain(&normalized).chain(&special).map(|(content, ..)| content.len()).sum::<usize>() > MAX_ADDED {
            return Err(bad(format!("the added tokens have more than {MAX_ADDED} bytes")));
        }

        Ok(Tokenizer {
            bpe: bpe(model, &file.added_tokens.0)?,
            forms,
            splitter,
            raw: Added::new(&raw)?,
            normalized: Added::new(&normalized)?,
            special: Added::new(&special)?,
            prefix,
            suffix,
            added_ids: added.iter().map(|(&id, content)| (content.clone(), id)).collect(),
            added,
            pieces: Arc::new(pieces),
        })
    }
}

fn model(raw: &RawValue) -> Result<Model> {
    #[derive(Deserialize)]
    struct Type {
        r#type: Option<String>,
    }
    let parse = |e: serde_json::Error| bad(format!("model: {e}"));
    match serde_json::from_str::<Type>(raw.get()).map_err(parse)?.r#type.as_deref() {
        // Files from before 2020 name no type.
        Some("BPE") | None => {}
        Some(other) => return Err(bad(format!("model: {} is not supported, only BPE is", quoted(other)))),
    }
    let model: Model = serde_json::from_str(raw.get()).map_err(parse)?;
    if model.dropout.is_some_and(|d| d != 0.0) {
        return Err(bad("model: `dropout` is not supported: it makes ids random"));
    }
    let set = |affix: &Option<String>| affix.as_ref().is_some_and(|a| !a.is_empty());
    if set(&model.continuing_subword_prefix) || set(&model.end_of_word_suffix) {
        return Err(bad("model: `continuing_subword_prefix` and `end_of_word_suffix` are not supported"));
    }
    Ok(model)
}

/// The added tokens by id, and the bytes of every id. An id that is given to two tokens is an error.
fn ids(vocab: &Ids, added_tokens: &[AddedToken]) -> Result<(HashMap<u32, String>, Pieces)> {
    let mut tokens: Vec<Option<(&str, bool)>> = Vec::new();
    let mut give = |id: u32, token, special| {
        let i = id as usize;
        if i >= MAX_IDS {
            return Err(bad(format!("id {id} of {} is over {}", quoted(token), MAX_IDS - 1)));
        }
        tokens.resize(tokens.len().max(i + 1), None);
        match tokens[i] {
            Some((other, _)) if other != token => {
                Err(bad(format!("id {id} is both {} and {}", quoted(other), quoted(token))))
            }
            _ => {
                tokens[i] = Some((token, special));
                Ok(())
            }
        }
    };
    for (token, &id) in vocab {
        give(id, token, false)?;
    }
    let mut added = HashMap::new();
    let mut seen = HashSet::new();
    for t in added_tokens.iter().filter(|t| !t.content.is_empty()) {
        let content = t.content.as_str();
        if let Some(known) = vocab.get(content).filter(|&&id| id != t.id) {
            return Err(bad(format!("added token {} has id {}, but {known} in the vocabulary", quoted(content), t.id)));
        }
        if !seen.insert(content) {
            return Err(bad(format!("added token {} stands twice", quoted(content))));
        }
        if content.len() > MAX_TOKEN {
            return Err(bad(format!("added token {} has {} bytes", quoted(content), content.len())));
        }
        give(t.id, content, t.special)?;
        added.insert(t.id, content.to_owned());
    }
    let pieces = Pieces::new(tokens.iter().enumerate().map(|(id, token)| {
        token.map(|(token, special)| match added.contains_key(&(id as u32)) {
            true => (token.as_bytes().to_vec(), special),
            false => (token_bytes(token), special),
        })
    }));
    Ok((added, pieces))
}

/// The BPE model, without merges that would make special tokens from text.
fn bpe(model: Model, added_tokens: &[AddedToken]) -> Result<BPE> {
    let mut vocab = model.vocab.0;
    let mut used: HashSet<u32> = BYTE_CHARS.iter().filter_map(|c| vocab.get(&c.to_string()).copied()).collect();
    let mut merges = Vec::with_capacity(model.merges.0.len());
    for Merge(a, b) in model.merges.0 {
        let joined = format!("{a}{b}");
        for token in [&a, &b, &joined] {
            let id = vocab.get(token);
            used.insert(*id.ok_or_else(|| {
                bad(format!("model: merge {} {}: {} is not in the vocabulary", quoted(&a), quoted(&b), quoted(token)))
            })?);
        }
        merges.push((a, b));
    }
    // With `ignore_merges`, a word that equals a token becomes that token. A special token must not be made in this
    // way.
    for t in added_tokens.iter().filter(|t| t.special && !used.contains(&t.id)) {
        vocab.remove(&t.content);
    }
    // There is no cache, because the crate would keep it for the thread's life, even after the tokenizer is dropped.
    let builder = BPE::builder().vocab_and_merges(vocab, merges).cache_capacity(0);
    builder.ignore_merges(model.ignore_merges.unwrap_or(false)).build().map_err(|e| bad(format!("model: {e}")))
}

/// A list of at most `N` elements.
struct List<T, const N: usize>(Vec<T>);

impl<T, const N: usize> Default for List<T, N> {
    fn default() -> Self {
        List(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for List<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T, const N: usize>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Elements<T, N> {
            type Value = List<T, N>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {N}")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(element) = seq.next_element()? {
                    if list.len() == N {
                        return Err(A::Error::invalid_length(N + 1, &self));
                    }
                    list.push(element);
                }
                Ok(List(list))
            }
        }
        deserializer.deserialize_seq(Elements(std::marker::PhantomData))
    }
}

/// A merge, which files write as `"a b"` or as `["a", "b"]`.
struct Merge(String, String);

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = Merge;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a merge: two tokens, with a space between or in a list")
            }
            fn visit_str<E: serde::de::Error>(self, s: &str) -> Result<Merge, E> {
                match s.split_once(' ') {
                    Some((a, b)) if !b.contains(' ') => Ok(Merge(a.to_owned(), b.to_owned())),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Other(&quoted(s)), &self)),
                }
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merge, A::Error> {
                let a = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
                let b = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(1, &self))?;
                Ok(Merge(a, b))
            }
        }
        deserializer.deserialize_any(Pair)
    }
}

/// The ids by token. A token that is listed twice is an error.
struct Vocab(Ids);

impl<'de> Deserialize<'de> for Vocab {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Vocab;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a vocabulary of at most {MAX_IDS} tokens")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab, A::Error> {
                let mut ids = Ids::default();
                while let Some((token, id)) = map.next_entry::<String, u32>()? {
                    if ids.len() == MAX_IDS {
                        return Err(A::Error::invalid_length(MAX_IDS + 1, &self));
                    }
                    if token.len() > MAX_TOKEN {
                        let (token, length) = (quoted(&token), token.len());
                        return Err(A::Error::custom(format!("token {token} has {length} bytes")));
                    }
                    if ids.contains_key(&token) {
                        return Err(A::Error::custom(format!("token {} stands twice", quoted(&token))));
                    }
                    ids.insert(token, id);
                }
                Ok(Vocab(ids))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
