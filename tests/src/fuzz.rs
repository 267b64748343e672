//! What the fuzz targets (`fuzz/`) do with their input. The suites do the same with the corpus. A fault is a panic.

use nemoflash::checkpoint::{Header, MAX_FILES, MAX_RANK, MAX_TENSORS};
use nemoflash::config::BlockKind;
use nemoflash::{ChatFiles, ChatTemplate, Config, Error, Message, Role, TemplateOptions, Tokenizer};
use nemoflash::{checkpoint, instruct, tokenizer_json};
use safetensors::SafeTensors;
use safetensors::tensor::Metadata;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::collections::HashSet;
use std::fmt;
use std::sync::OnceLock;

/// Most data that is put behind a header, in bytes.
const MOST_DATA: u64 = 1 << 16;
/// Placeholder for the 256 tokens of single bytes in the vocabulary of a `tokenizer.json`.
const BYTES: &str = r#""@bytes@":0"#;

/// The tensors of a header, sorted by name: name, dtype, shape, begin and end.
pub type Table = Vec<(String, String, Vec<u64>, u64, u64)>;

/// Checks that an error message is short. Messages go to terminals and logs, so texts of a file are cut in them.
fn short(error: &Error) {
    let text = error.to_string();
    let most = if matches!(error, Error::Tensors(_)) { 60_000 } else { 4000 };
    assert!(text.len() < most, "a message of {} bytes: {text:.200}", text.len());
}

fn accepted<T>(result: nemoflash::Result<T>) -> Option<T> {
    result.inspect_err(short).ok()
}

fn table(header: Header) -> Table {
    let row = |t: checkpoint::TensorInfo| (t.name, t.dtype.to_string(), t.shape, t.begin, t.end);
    let mut table: Table = header.tensors.into_iter().map(row).collect();
    table.sort();
    table
}

fn their_table(metadata: &Metadata) -> Table {
    let row = |(name, t): (String, &safetensors::tensor::TensorInfo)| {
        let shape = t.shape.iter().map(|&d| d as u64).collect();
        (name, t.dtype.to_string(), shape, t.data_offsets.0 as u64, t.data_offsets.1 as u64)
    };
    let mut table: Table = metadata.tensors().into_iter().map(row).collect();
    table.sort();
    table
}

/// Reads the text of a header: alone, as a whole file, in front of as much data as it states, and with a byte more and less. It
/// must be accepted or refused as by the `safetensors` crate, except for what is refused on purpose.
pub fn header(data: &[u8]) {
    header_by(data, |json, file_len| accepted(Header::parse(json, file_len)).map(table));
}

/// As [`header`], with another function that reads (text, length of the file).
pub fn header_by(data: &[u8], parse: impl Fn(&[u8], Option<u64>) -> Option<Table>) {
    let metadata = std::str::from_utf8(data).ok().and_then(|text| serde_json::from_str::<Metadata>(text).ok());
    let promised = metadata.as_ref().map_or(0, |m| m.data_len() as u64);
    agree(data, parse(data, None), metadata.map(|m| their_table(&m)));
    let whole = |file: &[u8]| {
        let json = file.first_chunk().and_then(|first| accepted(Header::len(*first)));
        let json = json.and_then(|len| file[8..].get(..usize::try_from(len).ok()?)).unwrap_or_default();
        let theirs = SafeTensors::read_metadata(file).ok().map(|(_, m)| their_table(&m));
        agree(json, parse(json, Some(file.len() as u64)), theirs);
    };
    whole(data);
    if promised <= MOST_DATA {
        for len in promised.saturating_sub(1)..=promised + 1 {
            let mut file = [&(data.len() as u64).to_le_bytes(), data].concat();
            file.resize(file.len() + len as usize, 0);
            whole(&file);
        }
    }
}

fn agree(json: &[u8], ours: Option<Table>, theirs: Option<Table>) {
    let fine = match (&ours, &theirs) {
        (None, Some(_)) => refused_on_purpose(json),
        (ours, theirs) => ours == theirs,
    };
    assert!(fine, "disagreement:\n  ours {ours:?}\n  theirs {theirs:?}");
}

/// Whether a header has one of the five faults that the `safetensors` crate accepts and [`Header::parse`] refuses. They are
/// found here without the latter.
fn refused_on_purpose(json: &[u8]) -> bool {
    let Ok(Fields(fields)) = serde_json::from_slice(json) else { return false };
    let mut names = HashSet::new();
    let twice = fields.iter().any(|(name, _)| !names.insert(name));
    let mut tensors = fields.iter().filter(|(name, _)| name != "__metadata__");
    // serde reads a tensor's entry from an object or from a list.
    let field = |tensor: &Value, name: &str, place: usize| tensor.get(name).or(tensor.get(place)).cloned();
    json.first() != Some(&b'{')
        || twice
        || names.len() > MAX_TENSORS
        || tensors.any(|(_, tensor)| {
            field(tensor, "dtype", 0).is_some_and(|dtype| !dtype.is_string())
                || field(tensor, "shape", 1).is_some_and(|shape| shape.as_array().is_some_and(|s| s.len() > MAX_RANK))
        })
}

/// A JSON object that keeps keys that come twice.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = vec![];
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        d.deserialize_map(Entries)
    }
}

/// Reads a `model.safetensors.index.json`. Whatever it says, its files must lie in its own folder.
pub fn index(data: &[u8]) {
    index_by(data, |json| accepted(checkpoint::index(json)));
}

/// As [`index`], with another function that reads it.
pub fn index_by(data: &[u8], read: impl Fn(&[u8]) -> Option<Vec<String>>) {
    let Some(files) = read(data) else { return };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    for file in &files {
        let fine = file.bytes().all(plain) && !file.starts_with(['.', '-']) && file.ends_with(".safetensors");
        assert!(fine && file.len() <= 255, "{file:?} is not a plain name");
    }
    let distinct: HashSet<&str> = files.iter().map(String::as_str).collect();
    assert!((1..=MAX_FILES).contains(&files.len()) && distinct.len() == files.len(), "{files:?}");
    let json: Value = serde_json::from_slice(data).expect("an index is JSON");
    let mut named = json["weight_map"].as_object().into_iter().flatten();
    assert!(named.all(|(_, file)| distinct.contains(file.as_str().expect("a name"))), "a file is missing");
}

/// Reads a `config.json` and the texts of any number of headers, separated by zero bytes. A configuration that is accepted must
/// be consistent. If it passes the check against the headers, its tensors must be those of the headers.
pub fn config(data: &[u8]) {
    let mut parts = data.split(|&b| b == 0);
    let json = parts.next().unwrap_or_default();
    let tables: Vec<Header> = parts.filter_map(|text| accepted(Header::parse(text, None))).collect();
    for config in [Config::parse(json), Config::resolve(json, &tables)].into_iter().filter_map(accepted) {
        consistent(&config);
        if accepted(config.check(&tables)).is_some() {
            checked(&config, &tables);
        }
    }
}

/// Panics unless the dimensions belong together and the tensors can be counted.
pub fn consistent(config: &Config) {
    let Config { vocab_size, hidden_size, meta_tokens, max_position_embeddings, .. } = *config;
    assert!(vocab_size > 0 && hidden_size > 0 && meta_tokens < max_position_embeddings);
    assert!(config.rms_norm_eps > 0.0 && config.rms_norm_eps <= 0.1, "{}", config.rms_norm_eps);
    assert!(config.eos.iter().chain(&config.bos).all(|&token| token < vocab_size), "{config:?}");
    assert!((1..=2048).contains(&config.layers.len()), "{} layers", config.layers.len());
    for layer in &config.layers {
        let fine = match &layer.kind {
            BlockKind::Attention(a) => {
                let theta = a.rope.map_or(1.0, |rope| rope.theta);
                let heads = a.kv_heads > 0 && a.heads.is_multiple_of(a.kv_heads);
                heads && a.head_dim > 0 && a.head_dim <= 256 && theta.is_finite() && theta >= 1.0
            }
            BlockKind::Mamba2(m) => m.d_inner == m.heads * m.head_dim && m.d_inner > 0 && m.d_state > 0,
            BlockKind::DeltaNet(d) => d.heads * d.head_dim == hidden_size,
            BlockKind::Ffn(f) => f.width > 0,
        };
        assert!(fine, "{layer:?}");
    }
    let tensors = config.tensors();
    let names: HashSet<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
    assert!(names.len() == tensors.len() && tensors.len() <= 4 + 10 * config.layers.len(), "{}", tensors.len());
    let bytes = tensors.iter().try_fold(0u64, |sum, tensor| {
        let numbers = tensor.shape.iter().try_fold(4u64, |n, &dim| n.checked_mul(dim))?;
        sum.checked_add(numbers).filter(|_| numbers > 0)
    });
    assert!(bytes.is_some(), "{tensors:?}");
}

/// Panics unless the headers have every tensor of the model once, with the right shape and type, and no others.
pub fn checked(config: &Config, tables: &[Header]) {
    let found: Vec<_> = tables.iter().flat_map(|table| &table.tensors).collect();
    let mut known = 0;
    for tensor in config.tensors() {
        let named = |name: &str| found.iter().filter(|t| t.name == name).count();
        let module = tensor.name.trim_end_matches(".weight");
        let (scales, biases) = (named(&format!("{module}.scales")), named(&format!("{module}.biases")));
        let same = |t: &checkpoint::TensorInfo| t.name == tensor.name && (scales == 1 || t.shape == tensor.shape);
        assert!(found.iter().filter(|t| same(t)).count() == 1 && biases <= scales, "{} passed", tensor.name);
        known += 1 + scales + biases;
    }
    // The files may have a tied head, too. If it is quantised, it is three tensors.
    let head = found.iter().filter(|t| config.tie_word_embeddings && t.name.starts_with("lm_head.")).count();
    assert_eq!(known + head, found.len(), "a tensor is not part of the model");
}

/// Reads a `tokenizer.json`, in which `"@bytes@":0` stands for the tokens of all bytes. Texts must be encoded without a fault,
/// and decoding token by token must give the same text as decoding all at once.
pub fn tokenizer(data: &[u8]) {
    static ENTRIES: OnceLock<String> = OnceLock::new();
    let entries = ENTRIES.get_or_init(|| {
        let file: Value = serde_json::from_slice(&tokenizer_json(259)).expect("JSON");
        file["model"]["vocab"].to_string().trim_matches(['{', '}']).to_owned()
    });
    let file = match std::str::from_utf8(data) {
        Ok(text) => text.replacen(BYTES, entries, 1).into_bytes(),
        Err(_) => data.to_vec(),
    };
    let Some(tokenizer) = accepted(Tokenizer::from_bytes(&file)) else { return };
    let own = String::from_utf8_lossy(&data[..data.len().min(300)]);
    for text in ["", "Once upon a time, 1234 o\u{300}\u{FDFA} 昔\r\n\n  </s><s><think>aaaaaaaaaa\u{0}", &own] {
        for add_special in [false, true] {
            let Some(ids) = accepted(tokenizer.encode(text, add_special)) else { continue };
            assert!(ids.iter().all(|&id| tokenizer.token(id).is_some()), "an id without a token");
            streams(&tokenizer, &ids, |ids, skip| tokenizer.decode(ids, skip));
        }
    }
    let ids: Vec<u32> = data.iter().map(|&b| u32::from(b)).collect();
    streams(&tokenizer, &ids, |ids, skip| tokenizer.decode(ids, skip));
}

/// Panics unless decoding `ids` token by token gives the same text as `decode`.
pub fn streams(tokenizer: &Tokenizer, ids: &[u32], decode: impl Fn(&[u32], bool) -> String) {
    for skip_special in [false, true] {
        let mut stream = tokenizer.stream(skip_special);
        let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
        text += &stream.finish();
        assert_eq!(text, decode(ids, skip_special));
    }
}

/// Reads a chat template, or a `tokenizer_config.json` with one, and messages, separated by zero bytes. The first letter of a
/// message is its role: `s` is the system, `a` the assistant, and any other letter the user. The ids must be those of the
/// rendered text, and must have no control token that the template did not write.
pub fn template(data: &[u8]) {
    template_by(data, |template, tokenizer, messages| {
        accepted(template.encode(tokenizer, messages, true, &TemplateOptions::default()))
    });
}

/// As [`template`], with another function that makes the ids.
pub fn template_by(data: &[u8], encode: impl Fn(&ChatTemplate, &Tokenizer, &[Message]) -> Option<Vec<u32>>) {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    let tokenizer = TOKENIZER.get_or_init(|| Tokenizer::from_bytes(&tokenizer_json(300)).expect("a tokenizer"));
    let mut parts = data.split(|&b| b == 0);
    let source = parts.next().unwrap_or_default();
    let messages: Vec<Message> = parts
        .map(|text| match (text.first(), String::from_utf8_lossy(text.get(1..).unwrap_or_default())) {
            (Some(b's'), text) => Message::new(Role::System, text),
            (Some(b'a'), text) => Message::new(Role::Assistant, text),
            (_, text) => Message::new(Role::User, text),
        })
        .collect();
    let all = messages.iter().map(|message| message.content.len() + 20).sum::<usize>();
    assert!(instruct(&messages).len() <= all);
    let alone = ChatFiles { chat_template_jinja: Some(source), ..ChatFiles::default() };
    let in_config = ChatFiles { tokenizer_config: Some(source), ..ChatFiles::default() };
    for template in [alone, in_config].iter().filter_map(|files| accepted(ChatTemplate::read(files)).flatten()) {
        let Some(text) = accepted(template.render(&messages, true, &TemplateOptions::default())) else { continue };
        assert!(text.len() <= 1 << 20, "{} bytes", text.len());
        let Some(ids) = encode(&template, tokenizer, &messages) else { continue };
        assert_eq!(tokenizer.decode(&ids, false), text);
        // All control tokens of this tokenizer begin with `<`. So only a template with a `<`, plain or escaped, can write one.
        let forged = !source.iter().any(|b| b"<\\".contains(b)) && ids.iter().any(|&id| tokenizer.is_special(id));
        assert!(!forged, "a message forged a control token: {ids:?}");
    }
}
