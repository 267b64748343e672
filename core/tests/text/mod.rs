//! Tokenizer, streaming decoder and stop strings. The oracle is the `tokenizers` crate's own
//! pipeline, on files that do not make it panic.

mod answer;
mod bombs;
mod chat;
mod hostile;
mod stream;

use nemoflash::{Error, Tokenizer};
use serde_json::{Value, json};

const FABLES: &[u8] = include_bytes!("../../../models/fables/tokenizer.json");
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Texts in many scripts, with the corners of each.
const TEXTS: &[&str] = &[
    "",
    " ",
    "Once upon a time there was a king. He'd 3 sons; they'll ask: \"WHERE is the 1234567 GOLD?\"\r\n\r\n  \tYes/\n//no",
    "Es war einmal \u{FC}ber Stra\u{DF}en, o\u{300} e\u{301}te\u{301} (two forms: \u{E9} \u{65}\u{301}), ﬁne ½ ①",
    "Жили-были старик со старухой. Ήταν μια φορά κι έναν καιρό",
    "昔々、あるところに。从前有一个国王。옛날 옛적에 각각 \u{1112}\u{1161}\u{11AB}",
    "كان يا ما كان في قديم الزمان היה הייתה एक समय की बात है กาลครั้งหนึ่ง ང་ཚོ མི",
    "👨‍👩‍👧‍👦 🏳️‍🌈 e\u{20D7}\u{0315}\u{0300}\u{05AE} \u{FDFA} \u{1D15E} \u{10FFFF} \u{0} \u{FEFF}\u{200B}\u{AD}\u{2028}",
    "a</s>b <s> <unk><|endoftext|> <think>x</think> <THINK> Ġthe Ċ ¡¢",
    "\u{301}\u{301}leading marks, trailing space   ",
];

/// xorshift64*: the same numbers on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    /// Characters of every plane, with many from the ranges that normalisation changes.
    fn text(&mut self, length: usize) -> String {
        const RANGES: &[(u32, u32)] = &[
            (0x20, 0x7E),
            (0x0, 0x17F),
            (0x300, 0x36F),
            (0x5D0, 0x6FF),
            (0x900, 0xDFF),
            (0x1100, 0x11FF),
            (0x1E00, 0x20DF),
            (0xAC00, 0xACFF),
            (0xF900, 0xFFFD),
            (0x1D150, 0x1D200),
            (0x2F800, 0x2FA1D),
            (0x0, 0x10FFFF),
        ];
        (0..length)
            .filter_map(|_| {
                let &(low, high) = self.pick(RANGES);
                char::from_u32(low + self.below((high - low + 1) as usize) as u32)
            })
            .collect()
    }
}

fn fables() -> Tokenizer {
    Tokenizer::from_bytes(FABLES).expect("the shipped tokenizer")
}

fn fables_json() -> Value {
    serde_json::from_slice(FABLES).expect("JSON")
}

fn ours(file: &Value) -> Result<Tokenizer, Error> {
    Tokenizer::from_bytes(file.to_string().as_bytes())
}

fn upstream(file: &Value) -> tokenizers::Tokenizer {
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(file.to_string()).expect("upstream reads it");
    tokenizer.set_encode_special_tokens(true);
    tokenizer
}

/// The first 200 merges of fables only: small enough to be read thousands of times.
fn small() -> Value {
    let mut file = fables_json();
    file["model"]["vocab"].as_object_mut().unwrap().retain(|_, id| id.as_u64() < Some(460));
    file["model"]["merges"].as_array_mut().unwrap().truncate(200);
    file["post_processor"] = template();
    file["pre_tokenizer"] = split(TEKKEN, "Isolated", false);
    file
}

fn split(pattern: &str, behavior: &str, invert: bool) -> Value {
    json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]})
}

fn template() -> Value {
    json!({"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
        {"type": "TemplateProcessing",
         "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
         "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
         "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}]})
}

/// The component sets of the families that share this design.
fn variants() -> Vec<(&'static str, Value)> {
    let with = |edit: &dyn Fn(&mut Value)| {
        let mut file = fables_json();
        edit(&mut file);
        file
    };
    let added = |id: u32, content: &str, normalized: bool| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": normalized, "special": false})
    };
    vec![
        ("fables", fables_json()),
        ("prefix space", with(&|f| f["pre_tokenizer"]["add_prefix_space"] = json!(true))),
        (
            "tekken",
            with(&|f| {
                f["pre_tokenizer"] = split(TEKKEN, "Isolated", false);
                f["model"]["ignore_merges"] = json!(true);
                f["post_processor"] = template();
            }),
        ),
        (
            "qwen",
            with(&|f| {
                f["pre_tokenizer"] = split(LLAMA3, "Isolated", false);
                f["normalizer"] = json!({"type": "NFC"});
                let tokens = f["added_tokens"].as_array_mut().unwrap();
                tokens.push(added(4096, "<think>", false));
                tokens.push(added(4097, "</think>", true));
                tokens.push(added(4098, "<thin", false));
            }),
        ),
        ("matches only", with(&|f| f["pre_tokenizer"] = split(LLAMA3, "Removed", true))),
        ("gaps only", with(&|f| f["pre_tokenizer"] = split(r"\s+(?!\S)|x*", "Removed", false))),
        ("empty matches", with(&|f| f["pre_tokenizer"] = split(r"(?=[a-m])|\s", "Isolated", false))),
        (
            "all forms",
            with(&|f| {
                f["normalizer"] =
                    json!({"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "NFKC"}, {"type": "NFKD"}]});
                f["model"]["merges"] = Value::Array(
                    f["model"]["merges"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|m| json!(format!("{} {}", m[0].as_str().unwrap(), m[1].as_str().unwrap())))
                        .collect(),
                );
            }),
        ),
    ]
}

#[test]
fn ids_equal_upstream() {
    let mut random = Random(1);
    for (name, file) in variants() {
        let (ours, upstream) = (ours(&file).expect(name), upstream(&file));
        assert_eq!(ours.vocab_size(), upstream.get_vocab_size(true), "{name}");
        let texts = TEXTS.iter().map(|t| t.to_string()).chain((0..300).map(|i| random.text(i % 60)));
        for text in texts.collect::<Vec<_>>() {
            for special in [false, true] {
                let ids = ours.encode(&text, special).expect(name);
                let want = upstream.encode(text.as_str(), special).expect(name);
                assert_eq!(ids, want.get_ids(), "{name}: {text:?}");
            }
        }
    }
}

#[test]
fn control_another_pattern_gives_other_ids() {
    let (a, b) = (fables(), upstream(&small()));
    assert!(TEXTS.iter().any(|t| a.encode(t, false).unwrap() != b.encode(*t, false).unwrap().get_ids()));
}

#[test]
fn text_survives_and_decoding_equals_upstream() {
    let (ours, upstream) = (fables(), upstream(&fables_json()));
    let mut random = Random(2);
    for i in 0..500 {
        let text = random.text(i % 80);
        assert_eq!(ours.decode(&ours.encode(&text, true).unwrap(), true), text);
        let ids: Vec<u32> = (0..i % 40).map(|_| random.below(ours.vocab_size()) as u32).collect();
        for skip in [false, true] {
            assert_eq!(ours.decode(&ids, skip), upstream.decode(&ids, skip).unwrap());
        }
    }
}

#[test]
fn tokens_by_id() {
    let t = fables();
    assert_eq!(t.vocab_size(), 4096);
    assert_eq!(t.token(2).as_deref(), Some("</s>"));
    assert_eq!(t.id("</s>"), Some(2));
    assert_eq!(t.token(4).as_deref(), Some("!"));
    assert!(t.is_special(1) && !t.is_special(4) && !t.is_special(4096) && !t.is_special(u32::MAX));
    for id in 0..4096 {
        assert_eq!(t.id(&t.token(id).unwrap()), Some(id));
    }
    assert_eq!((t.token(4096), t.id("no such token")), (None, None));
    // An id without a token has no text.
    assert_eq!(t.decode(&[5, 4096, u32::MAX, 5], false), t.decode(&[5, 5], false));
}

#[test]
fn special_tokens_in_text_are_plain_text() {
    for (name, file) in variants() {
        let t = ours(&file).expect(name);
        for id in (0..t.vocab_size() as u32).filter(|&id| t.is_special(id)) {
            let token = t.token(id).unwrap();
            for text in [token.clone(), format!("User: {token}\nAssistant:"), format!("{token}{token}")] {
                let ids = t.encode(&text, false).unwrap();
                assert!(ids.iter().all(|&id| !t.is_special(id)), "{name}: {text:?} gave {ids:?}");
            }
        }
    }
    // A whole word that equals a special token, where merges are not asked: upstream is fooled.
    let mut file = fables_json();
    file["model"]["ignore_merges"] = json!(true);
    file["pre_tokenizer"] = split(r"</?s>", "Isolated", false);
    assert!(upstream(&file).encode("a</s>b", false).unwrap().get_ids().contains(&2), "negative control");
    assert!(!ours(&file).unwrap().encode("a</s>b", false).unwrap().contains(&2));
}
