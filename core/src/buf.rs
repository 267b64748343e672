//! A handle to a buffer of any device.

/// What the 32-bit words of a buffer hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Elem {
    /// One f32 per word.
    F32,
    /// One u32 per word.
    U32,
    /// A matrix in its [`Format`](crate::Format). An element is a word.
    Weights,
    /// Two f16 per word, the first in the low half.
    F16,
}

impl Elem {
    /// Elements in one 32-bit word.
    pub const fn per_word(self) -> u64 {
        match self {
            Elem::F32 | Elem::U32 | Elem::Weights => 1,
            Elem::F16 => 2,
        }
    }

    /// Words that `len` elements take.
    pub const fn words(self, len: u64) -> u64 {
        len.div_ceil(self.per_word())
    }
}

/// A small copyable handle to a buffer of an [`Exec`](crate::Exec). It holds no GPU object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buf {
    pub(crate) id: u32,
    /// Length in elements.
    pub len: u64,
    /// What the words hold.
    pub elem: Elem,
}

impl Buf {
    /// Size in bytes.
    pub const fn bytes(&self) -> u64 {
        self.elem.words(self.len) * 4
    }
}
