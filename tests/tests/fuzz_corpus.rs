//! The corpus of the fuzz targets, replayed: what once was a fault stays mended, and the targets compile.
#![forbid(unsafe_code)]

use nemoflash::checkpoint::Header;
use nemoflash::config::BlockKind;
use nemoflash::{Config, TemplateOptions, Tokenizer, tokenizer_json};
use nemoflash_tests::fuzz;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

type Body = fn(&[u8]);

const TARGETS: &[(&str, Body)] = &[
    ("config", fuzz::config),
    ("header", fuzz::header),
    ("index", fuzz::index),
    ("template", fuzz::template),
    ("tokenizer", fuzz::tokenizer),
];

fn folder(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "fuzz", name].iter().collect()
}

fn names(place: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder(place)).expect("a folder");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let place = format!("corpus/{target}");
    let read = |name: String| (name.clone(), std::fs::read(folder(&place).join(name)).expect("a file"));
    names(&place).into_iter().map(read).collect()
}

/// The files of a corpus at which `body` panics.
fn faults(target: &str, body: impl Fn(&[u8])) -> Vec<String> {
    let failed =
        |(name, data): (String, Vec<u8>)| catch_unwind(AssertUnwindSafe(|| body(&data))).is_err().then_some(name);
    corpus(target).into_iter().filter_map(failed).collect()
}

#[test]
fn the_corpus_has_no_faults() {
    let none: Vec<String> = vec![];
    for (target, body) in TARGETS {
        assert!(corpus(target).len() >= 10, "{target}");
        assert_eq!(faults(target, body), none, "{target}");
    }
}

#[test]
fn every_target_is_replayed() {
    // What the command reads is replayed by native-cli/tests/fuzz_corpus.rs.
    let command = ["listing", "points", "report"].into_iter();
    let known: BTreeSet<String> = TARGETS.iter().map(|(name, _)| *name).chain(command).map(String::from).collect();
    assert_eq!(names("corpus"), known);
    assert_eq!(names("fuzz_targets"), known.iter().map(|name| format!("{name}.rs")).collect());
}

type Parse<'a> = &'a dyn Fn(&[u8], Option<u64>) -> Option<fuzz::Table>;

/// Negative control: headers read wrongly.
#[test]
fn header_finds_disagreements() {
    let table = |json: &[u8], len| {
        let rows = Header::parse(json, len).ok()?.tensors.into_iter();
        Some(rows.map(|t| (t.name, t.dtype.to_string(), t.shape, t.begin, t.end)).collect::<fuzz::Table>())
    };
    let sorted = |mut table: fuzz::Table| {
        table.sort();
        table
    };
    let found = |parse: Parse| faults("header", |data| fuzz::header_by(data, parse));
    assert!(found(&|json, len| table(json, len).map(sorted)).is_empty());
    let shapes = found(&|json, len| {
        let mut table = sorted(table(json, len)?);
        table.iter_mut().for_each(|row| row.2.reverse());
        Some(table)
    });
    assert!(shapes.len() > 1 && shapes.iter().any(|name| name == "golden-mixed"), "{shapes:?}");
    let lengths = found(&|json, _| table(json, None).map(sorted));
    assert!(lengths.iter().any(|name| name == "file-short") && lengths.len() > 10, "{lengths:?}");
    let nothing = found(&|_, _| None);
    assert!(
        nothing.len() > 10 && !nothing.iter().any(|name| name == "rank-33" || name == "dtype-object"),
        "{nothing:?}"
    );
}

/// Negative control: an index that is believed.
#[test]
fn index_finds_names_that_point_elsewhere() {
    let found = faults("index", |data| {
        fuzz::index_by(data, |json| {
            let json: serde_json::Value = serde_json::from_slice(json).ok()?;
            json["weight_map"].as_object()?.values().map(|file| Some(file.as_str()?.to_owned())).collect()
        });
    });
    assert!(found.len() > 10 && !found.contains(&"name-00".into()), "{found:?}");
}

/// Negative control: dimensions that do not belong together, a table that lacks a tensor.
#[test]
fn config_finds_inconsistencies() {
    let (_, data) = corpus("config").into_iter().find(|(name, _)| name == "mixed-checked").expect("the file");
    let at = data.iter().position(|&b| b == 0).expect("a header follows");
    let (config, table) = (Config::parse(&data[..at]).unwrap(), Header::parse(&data[at + 1..], None).unwrap());
    let panics = |f: &dyn Fn()| catch_unwind(AssertUnwindSafe(f)).is_err();
    assert!(
        !panics(&|| fuzz::consistent(&config)) && !panics(&|| fuzz::checked(&config, std::slice::from_ref(&table)))
    );

    let mut heads = config.clone();
    let mut kinds = heads.layers.iter_mut().map(|layer| &mut layer.kind);
    let Some(BlockKind::Attention(a)) = kinds.find(|kind| matches!(kind, BlockKind::Attention(_))) else { panic!() };
    a.kv_heads = a.heads + 1;
    assert!(panics(&|| fuzz::consistent(&heads)));
    let endless = Config { vocab_size: u32::MAX, hidden_size: u32::MAX, ..config.clone() };
    assert!(panics(&|| fuzz::consistent(&endless)));
    let mut fewer = table.clone();
    fewer.tensors.pop();
    assert!(panics(&|| fuzz::checked(&config, std::slice::from_ref(&fewer))));
    let mut turned = table;
    turned.tensors.iter_mut().for_each(|t| t.shape.reverse());
    assert!(panics(&|| fuzz::checked(&config, std::slice::from_ref(&turned))));
}

/// Negative control: a stream that loses a byte.
#[test]
fn tokenizer_finds_another_text() {
    let tokenizer = Tokenizer::from_bytes(&tokenizer_json(300)).unwrap();
    let ids = tokenizer.encode("a few words", false).unwrap();
    let less = |ids: &[u32], skip| tokenizer.decode(&ids[1..], skip);
    assert!(catch_unwind(AssertUnwindSafe(|| fuzz::streams(&tokenizer, &ids, less))).is_err());
    fuzz::streams(&tokenizer, &ids, |ids, skip| tokenizer.decode(ids, skip));
}

/// Negative control: control tokens that a message may write, and a text that is cut.
#[test]
fn template_finds_forged_tokens() {
    let forged = faults("template", |data| {
        fuzz::template_by(data, |template, tokenizer, messages| {
            tokenizer.encode_trusted(&template.render(messages, true, &TemplateOptions::default()).ok()?).ok()
        });
    });
    assert!(forged.iter().any(|name| name == "forged") && forged.len() < 10, "{forged:?}");
    let cut = faults("template", |data| {
        fuzz::template_by(data, |template, tokenizer, messages| {
            template
                .encode(tokenizer, messages, true, &TemplateOptions::default())
                .ok()
                .map(|ids| ids.into_iter().skip(1).collect())
        });
    });
    assert!(cut.len() > 10, "{cut:?}");
}
