//! The header parser against the `safetensors` crate, on hundreds of thousands of headers that
//! were made and then broken; and the index of a checkpoint in several files.

use nemoflash::Error;
use nemoflash::checkpoint::{Dtype, Header, MAX_RANK, MAX_TENSORS, index};
use safetensors::SafeTensors;
use safetensors::tensor::Metadata;
use serde::de::{IgnoredAny, MapAccess, Visitor};

/// Small fixed generator (xorshift64*), so that a failure can be seen again.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 33) % n as u64) as usize
    }
    fn pick<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }
}

/// Name, dtype, shape, begin, end; by name.
type Table = Vec<(String, String, Vec<u64>, u64, u64)>;

fn ours(header: Header) -> Table {
    let mut table: Table =
        header.tensors.into_iter().map(|t| (t.name, t.dtype.to_string(), t.shape, t.begin, t.end)).collect();
    table.sort();
    table
}

fn theirs(metadata: &Metadata) -> Table {
    let row = |(name, t): (String, &safetensors::tensor::TensorInfo)| {
        let shape = t.shape.iter().map(|&d| d as u64).collect();
        (name, t.dtype.to_string(), shape, t.data_offsets.0 as u64, t.data_offsets.1 as u64)
    };
    let mut table: Table = metadata.tensors().into_iter().map(row).collect();
    table.sort();
    table
}

/// A whole file by our parser, every rule in force.
fn read_file(file: &[u8]) -> Option<Table> {
    let len = Header::len(file.get(..8)?.try_into().unwrap()).ok()?;
    let json = file[8..].get(..usize::try_from(len).ok()?)?;
    Header::parse(json, Some(file.len() as u64)).ok().map(ours)
}

/// A header that is right but for a gap or an overlap now and then: text, and the length of its data.
fn valid(rng: &mut Rng) -> (String, u64) {
    let (mut entries, mut at) = (Vec::new(), 0u64);
    for i in 0..rng.below(5) {
        match rng.below(30) {
            0 => at += 1 + rng.below(8) as u64,
            1 => at = at.saturating_sub(1 + rng.below(8) as u64),
            _ => {}
        }
        let dtype = rng.pick(&Dtype::ALL.iter().collect::<Vec<_>>());
        let mut shape: Vec<u64> = (0..rng.below(4)).map(|_| rng.pick(&[&0, &1, &2, &3, &8, &16]).to_owned()).collect();
        if rng.below(40) == 0 {
            shape.push(1 << (20 + rng.below(40)));
        }
        let bits = |shape: &[u64]| shape.iter().map(|&d| u128::from(d)).product::<u128>() * u128::from(dtype.bits());
        if !bits(&shape).is_multiple_of(8) && rng.below(8) > 0 {
            shape.push(4);
        }
        let end = at.wrapping_add((bits(&shape) / 8) as u64);
        let name = rng.pick(&["w", "model.norm.weight", "b\\n", "ä", "", "\\u0061"]);
        entries.push(format!(r#""{name}{i}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{at},{end}]}}"#));
        at = end;
    }
    if rng.below(3) == 0 {
        let metadata = rng.pick(&[r#"{"format":"pt"}"#, "{}", "null", r#"{"a":"b","a":"c","d":"\n"}"#]);
        entries.push(format!(r#""__metadata__":{metadata}"#));
    }
    if entries.len() > 1 && rng.below(2) == 0 {
        let (a, b) = (rng.below(entries.len()), rng.below(entries.len()));
        entries.swap(a, b); // offsets need not follow the order in the text
    }
    (format!("{{{}}}", entries.join(",")), at)
}

const ODD_NUMBERS: &[&str] = &[
    "0",
    "1",
    "7",
    "-1",
    "-0",
    "1.0",
    "8e0",
    "00",
    "1e999",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775808",
    "4294967296",
    "2305843009213693952",
    "null",
    "true",
    "\"4\"",
    "[1]",
    "{}",
    "",
];
const ODD_WORDS: &[&str] = &[
    "dtype",
    "shape",
    "data_offsets",
    "__metadata__",
    "F32",
    "BF16",
    "f32",
    "Q4_0",
    "F4",
    "F8_E4M3FNUZ",
    "U8",
    "",
    "\\ud800",
    "\\q",
    "w0",
    "w1",
];
const ODD_FIELDS: &[&str] = &[
    r#""x":1"#,
    r#""x":{"y":[null,1.5,"z"]}"#,
    r#""x":1e999"#,
    r#""x":"\ud800""#,
    r#""dtype":"F32""#,
    r#""shape":[]"#,
    r#""__metadata__":{"a":"b"}"#,
    r#""__metadata__":{"a":1}"#,
    r#""__metadata__":null"#,
    r#""__metadata__":[]"#,
    r#""z":["U8",[0],[0,0]]"#,
    r#""z":["U8",[0],[0,0],1]"#,
    r#""z":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#,
    r#""z":{"dtype":"U8","shape":[0],"data_offsets":[0,0,0]}"#,
    r#""z":{"dtype":"U8","shape":[0]}"#,
    r#""z":null"#,
];

/// Where the pieces of `text` lie that `is` likes.
fn runs(text: &str, is: impl Fn(char) -> bool) -> Vec<(usize, usize)> {
    let (mut list, mut from) = (Vec::new(), None);
    for (i, c) in text.char_indices().chain([(text.len(), '\0')]) {
        match (is(c) && i < text.len(), from) {
            (true, None) => from = Some(i),
            (false, Some(start)) => {
                list.push((start, i));
                from = None;
            }
            _ => {}
        }
    }
    list
}

fn mutate(rng: &mut Rng, mut text: String) -> Vec<u8> {
    let replace_run = |rng: &mut Rng, text: &mut String, list: Vec<(usize, usize)>, with: &str| {
        if !list.is_empty() {
            let (a, b) = list[rng.below(list.len())];
            text.replace_range(a..b, with);
        }
    };
    match rng.below(11) {
        0 | 1 => {
            let with = rng.pick(ODD_NUMBERS);
            let list = runs(&text, |c| c.is_ascii_digit());
            replace_run(rng, &mut text, list, with);
        }
        2 => {
            let with = rng.pick(ODD_WORDS);
            let list = runs(&text, |c| c.is_ascii_alphanumeric() || c == '_');
            replace_run(rng, &mut text, list, with);
        }
        3 => {
            let places: Vec<usize> = text.match_indices('{').map(|(i, _)| i + 1).collect();
            let at = places[rng.below(places.len())];
            let comma = if text[at..].starts_with('}') { "" } else { "," };
            text.insert_str(at, &format!("{}{comma}", rng.pick(ODD_FIELDS)));
        }
        4 => {
            // Nesting to either side of what the stack allows.
            let deep = 100 + rng.below(60);
            text.insert_str(1, &format!(r#""z":{{"x":{}{}}},"#, "[".repeat(deep), "]".repeat(deep)));
        }
        5 => text.insert_str(rng.pick(&[&0, &text.len()]).to_owned(), rng.pick(&[" ", "   ", "\n", "\0", "{}", "x"])),
        _ => {}
    }
    let mut bytes = text.into_bytes();
    for _ in 0..[0, 0, 0, 1, 2][rng.below(5)] {
        let (a, b) = (rng.below(bytes.len() + 1), rng.below(bytes.len() + 1));
        match rng.below(4) {
            0 if a < bytes.len() => bytes[a] ^= 1 << rng.below(8),
            1 => drop(bytes.drain(a.min(b)..a.max(b).min(a.min(b) + 12))),
            2 => bytes.insert(a, rng.next() as u8),
            _ => {
                let piece = bytes[a.min(b)..a.max(b)].to_vec(); // whole entries double now and then
                bytes.splice(a..a, piece);
            }
        }
    }
    bytes
}

/// What we refuse and the crate does not, found without our parser.
fn refused_on_purpose(json: &[u8]) -> bool {
    struct Twice(bool);
    impl<'de> serde::Deserialize<'de> for Twice {
        fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            d.deserialize_map(Twice(false))
        }
    }
    impl<'de> Visitor<'de> for Twice {
        type Value = Twice;
        fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Twice, A::Error> {
            let (mut names, mut twice) = (std::collections::HashSet::new(), false);
            while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
                twice |= !names.insert(name);
            }
            Ok(Twice(twice))
        }
    }
    json.first() != Some(&b'{') || serde_json::from_slice::<Twice>(json).is_ok_and(|t| t.0)
}

#[derive(Default, Debug)]
struct Count {
    accepted: u32,
    refused: u32,
    on_purpose: u32,
    disagreements: Vec<String>,
}

/// Compares `parse`, a reader of whole files, with the crate's; and the tables of headers whose
/// data would not fit in memory.
fn compare(cases: u32, seed: u64, parse: impl Fn(&[u8]) -> Option<Table>) -> Count {
    let (mut rng, mut count) = (Rng(seed), Count::default());
    for _ in 0..cases {
        let (text, data) = valid(&mut rng);
        let json = if rng.below(4) == 0 { text.into_bytes() } else { mutate(&mut rng, text) };
        let mut len = json.len() as u64;
        if rng.below(30) == 0 {
            len = [len + 1, len.saturating_sub(1), 0, 1, u64::MAX, 100_000_001, len << 32][rng.below(7)];
        }
        let mut file = [&len.to_le_bytes(), &json[..]].concat();
        file.resize(file.len() + data.min(1 << 16) as usize, 0);
        match rng.below(40) {
            0 => drop(file.pop()),
            1 => file.push(0),
            2 => file.truncate(rng.below(file.len())),
            _ => {}
        }
        let whole = SafeTensors::read_metadata(&file).ok().map(|(_, m)| theirs(&m));
        let table = std::str::from_utf8(&json).ok().and_then(|t| serde_json::from_str::<Metadata>(t).ok());
        let pairs = [(parse(&file), whole), (Header::parse(&json, None).ok().map(ours), table.map(|m| theirs(&m)))];
        for (ours, theirs) in pairs {
            match (&ours, &theirs) {
                (Some(a), Some(b)) if a == b => count.accepted += 1,
                (None, None) => count.refused += 1,
                (None, Some(_)) if refused_on_purpose(&json) => count.on_purpose += 1,
                _ => count.disagreements.push(format!("{}\n  {ours:?}\n  {theirs:?}", json.escape_ascii())),
            }
        }
    }
    count
}

#[test]
fn agrees_with_the_safetensors_crate() {
    let count = compare(300_000, 0x6e65_6d6f, read_file);
    println!("{} accepted, {} refused, {} on purpose", count.accepted, count.refused, count.on_purpose);
    assert!(count.disagreements.is_empty(), "{}: {}", count.disagreements.len(), count.disagreements[0]);
    assert!(count.accepted > 100_000 && count.refused > 100_000 && count.on_purpose > 500, "{count:?}");
}

#[test]
fn the_comparison_sees_a_broken_rule() {
    // The end of the file is not held against the header.
    let lax = compare(10_000, 1, |file| {
        let len = Header::len(file.get(..8)?.try_into().unwrap()).ok()?;
        Header::parse(file[8..].get(..usize::try_from(len).ok()?)?, None).ok().map(ours)
    });
    assert!(lax.disagreements.len() > 50, "{}", lax.disagreements.len());
    // Shapes are read backwards.
    let turned = compare(10_000, 1, |file| {
        let mut table = read_file(file)?;
        table.iter_mut().for_each(|row| row.2.reverse());
        Some(table)
    });
    assert!(turned.disagreements.len() > 50, "{}", turned.disagreements.len());
    // Bytes after the JSON text belong to it: an off-by-one in the header's length.
    let long = compare(10_000, 1, |file| {
        let len = u64::from_le_bytes(file.get(..8)?.try_into().unwrap()).wrapping_sub(1);
        read_file(&[&len.to_le_bytes(), &file[8..]].concat())
    });
    assert!(long.disagreements.len() > 50, "{}", long.disagreements.len());
}

fn why(json: &str) -> String {
    match Header::parse(json.as_bytes(), None) {
        Err(Error::Checkpoint { why }) => why,
        other => panic!("{other:?}"),
    }
}

fn tensor(name: &str, dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#""{name}":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}"#)
}

#[test]
fn what_is_refused_is_named() {
    let good = tensor("a", "\"F32\"", "[2]", "[0,8]");
    let cases = [
        (format!("{{{good},{}}}", tensor("b", "\"F32\"", "[1]", "[12,16]")), "tensor b lies at 12..16"),
        (format!("{{{good},{}}}", tensor("b", "\"F32\"", "[1]", "[4,8]")), "tensor b lies at 4..8"),
        (format!("{{{}}}", tensor("a", "\"F32\"", "[2]", "[8,0]")), "tensor a lies at 8..0"),
        (format!("{{{}}}", tensor("a", "\"BF16\"", "[2]", "[0,8]")), "tensor a of 8 bytes cannot be BF16 of shape [2]"),
        (format!("{{{}}}", tensor("a", "\"F4\"", "[1]", "[0,0]")), "cannot be F4"),
        (format!("{{{}}}", tensor("a", "\"F32\"", "[4294967296,4294967296]", "[0,0]")), "cannot be F32"),
        (format!("{{{}}}", tensor("a", "\"Q4_K\"", "[2]", "[0,8]")), "tensor a: unknown dtype Q4_K"),
        (format!("{{{}}}", tensor("a", "{\"F32\":null}", "[2]", "[0,8]")), "a dtype's name as a string"),
        (format!("{{{good},{good}}}"), "tensor a is listed twice"),
        (format!("{{{},{}}}", r#""__metadata__":{}"#, r#""__metadata__":{}"#), "__metadata__ is listed twice"),
        (format!(" {{{good}}}"), "does not begin with {"),
        (format!("{{{}}}", tensor("a", "\"U8\"", &format!("{:?}", vec![1; MAX_RANK + 1]), "[0,1]")), "more than 32"),
        ("{\"a\":".to_string() + &"[".repeat(100_000), "recursion limit"),
        (format!("{{{}", tensor("a", "\"F32\"", "[2]", "[0,8]")), "EOF"),
        ("[]".into(), "does not begin"),
    ];
    for (json, expected) in cases {
        let why = why(&json);
        assert!(why.contains(expected), "{json:.200}: {why}");
    }
    let tensors: Vec<String> = (0..=MAX_TENSORS).map(|i| tensor(&i.to_string(), "\"U8\"", "[0]", "[0,0]")).collect();
    assert!(why(&format!("{{{}}}", tensors.join(","))).contains("more than 100000 tensors"));
}

#[test]
fn hostile_names_make_short_single_lines() {
    let name = "\\u001b[31m\\n".repeat(100_000);
    for json in [format!("{{\"{name}\":1}}"), format!("{{{}}}", tensor(&name, "\"F32\"", "[2]", "[1,9]"))] {
        let why = why(&json);
        assert!(why.len() < 4000 && !why.contains(char::is_control), "{} bytes", why.len());
    }
}

#[test]
fn lengths_and_offsets_beyond_32_bits() {
    let json = format!("{{{}}}", tensor("a", "\"BF16\"", "[1048576,1048576]", "[0,2199023255552]"));
    let header = Header::parse(json.as_bytes(), None).unwrap();
    assert_eq!((header.data_start, header.data_len), (8 + json.len() as u64, 1 << 41));
    assert!(Header::parse(json.as_bytes(), Some(1 << 41)).is_err());
    assert!(Header::len((1u64 << 32).to_le_bytes()).is_err());
    assert!(Header::len(100_000_001u64.to_le_bytes()).is_err());
    assert_eq!(Header::len(100_000_000u64.to_le_bytes()).unwrap(), 100_000_000);
    let Err(Error::Checkpoint { why }) = Header::len(*b"version ") else { panic!() };
    assert!(why.contains("Git LFS"));
}

#[test]
fn an_index_lists_its_files_in_order() {
    let json = br#"{"metadata":{"total_size":1},"weight_map":{
        "a":"model-00002-of-00002.safetensors","b":"model-00001-of-00002.safetensors","c":"model-00002-of-00002.safetensors"}}"#;
    assert_eq!(index(json).unwrap(), ["model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors"]);
}

#[test]
fn an_index_cannot_point_elsewhere() {
    let files = [
        "../model.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        "a\\\\b.safetensors",
        "C:model.safetensors",
        "model.bin",
        "",
        ".safetensors",
        "model.safetensors\\u0000",
        "mödel.safetensors",
        "a b.safetensors",
        "https://x/a.safetensors",
    ];
    for file in files {
        let json = format!(r#"{{"weight_map":{{"a":"{file}"}}}}"#);
        let Err(Error::Checkpoint { why }) = index(json.as_bytes()) else { panic!("{file} was accepted") };
        assert!(why.contains("not the plain name"), "{why}");
    }
    let long = format!(r#"{{"weight_map":{{"a":"{}.safetensors"}}}}"#, "a".repeat(1_000_000));
    let many: Vec<String> = (0..=1000).map(|i| format!(r#""{i}":"{i}.safetensors""#)).collect();
    let many = format!(r#"{{"weight_map":{{{}}}}}"#, many.join(","));
    let deep = format!(r#"{{"metadata":{}"#, "[".repeat(100_000));
    for json in [
        "",
        "[]",
        "{}",
        r#"{"weight_map":{}}"#,
        r#"{"weight_map":[]}"#,
        r#"{"weight_map":{"a":1}}"#,
        &long,
        &many,
        &deep,
    ] {
        let Err(Error::Checkpoint { why }) = index(json.as_bytes()) else { panic!("{json:.100} was accepted") };
        assert!(why.len() < 1000);
    }
}
