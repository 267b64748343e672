//! The byte-level alphabet and the bytes of every token.

/// The character that stands for each byte. Printable Latin-1 stands for itself, and the other bytes have characters
/// from U+0100 on (the alphabet of GPT-2's encoder).
pub(crate) const BYTE_CHARS: [char; 256] = {
    let mut chars = ['\0'; 256];
    let (mut b, mut next) = (0, 256);
    while b < 256 {
        let plain = matches!(b, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
        chars[b as usize] = match char::from_u32(if plain { b } else { next }) {
            Some(c) => c,
            None => panic!("below the surrogates"),
        };
        next += !plain as u32;
        b += 1;
    }
    chars
};

/// The byte of each character of the alphabet: the inverse of [`BYTE_CHARS`].
const CHAR_BYTES: [Option<u8>; 324] = {
    let mut bytes = [None; 324];
    let mut b = 0;
    while b < 256 {
        bytes[BYTE_CHARS[b] as usize] = Some(b as u8);
        b += 1;
    }
    bytes
};

/// The bytes that a token of the model stands for. A token with a character outside the alphabet stands for its own
/// text, as in the `tokenizers` crate.
pub(super) fn token_bytes(token: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = token.chars().map(|c| CHAR_BYTES.get(c as usize).copied().flatten()).collect();
    bytes.unwrap_or_else(|| token.as_bytes().to_vec())
}

/// What an id stands for.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Unused,
    Plain,
    Special,
}

/// The bytes of every id, one after the other.
pub(super) struct Pieces {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    kinds: Vec<Kind>,
}

impl Pieces {
    /// `ids` has the bytes of each id and whether it is special, or `None` if the file gives the id to no token.
    pub(super) fn new(ids: impl Iterator<Item = Option<(Vec<u8>, bool)>>) -> Pieces {
        let mut pieces = Pieces { bytes: Vec::new(), ends: Vec::new(), kinds: Vec::new() };
        for id in ids {
            pieces.kinds.push(match &id {
                None => Kind::Unused,
                Some((_, false)) => Kind::Plain,
                Some((_, true)) => Kind::Special,
            });
            pieces.bytes.extend(id.map(|(bytes, _)| bytes).unwrap_or_default());
            pieces.ends.push(pieces.bytes.len());
        }
        pieces
    }

    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    fn kind(&self, id: u32) -> Kind {
        self.kinds.get(id as usize).copied().unwrap_or(Kind::Unused)
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        self.kind(id) == Kind::Special
    }

    /// Whether the file gives this id to a token.
    pub(super) fn has(&self, id: u32) -> bool {
        self.kind(id) != Kind::Unused
    }

    /// The bytes of an id. Empty for an id without a token, and for a special token if these are skipped.
    pub(super) fn get(&self, id: u32, skip_special: bool) -> &[u8] {
        match self.kind(id) {
            Kind::Unused => &[],
            Kind::Special if skip_special => &[],
            _ => {
                let id = id as usize;
                let start = if id == 0 { 0 } else { self.ends[id - 1] };
                &self.bytes[start..self.ends[id]]
            }
        }
    }
}
