//! Decides whether `lm_head.weight` is the embedding once more, where a checkpoint has it although its configuration
//! ties the head to the embedding (spec 2.1: "use it and check equality"). Both matrices are compared by checksums of
//! their bytes while they are loaded. Only a head that differs gets device memory.

use crate::checkpoint::{Header, TensorInfo};
use crate::config::Config;
use crate::names::{EMBED, HEAD, parts};
use std::hash::{DefaultHasher, Hasher as _};

/// Checksums of the embedding and of the head, updated as their bytes arrive.
#[derive(Debug)]
pub(crate) struct TiedHead {
    /// A name and a checksum for each tensor: the matrix, its scales and its biases; for each, embedding and head.
    sums: [[(String, DefaultHasher); 2]; 3],
}

impl TiedHead {
    /// `None` if the configuration does not tie the head, or if the files have no head.
    pub(crate) fn of(config: &Config, headers: &[Header]) -> Option<TiedHead> {
        let has_head = headers.iter().flat_map(|header| &header.tensors).any(|tensor| tensor.name == HEAD);
        if !config.tie_word_embeddings || !has_head {
            return None;
        }
        let (embedding, head) = (parts(EMBED), parts(HEAD));
        let begun = |name: &String| {
            let mut sum = DefaultHasher::new();
            // The dtype is hashed first, because the same bytes mean other numbers in another dtype.
            let found = headers.iter().flat_map(|header| &header.tensors).find(|tensor| tensor.name == *name);
            sum.write(found.map_or("", |tensor| tensor.dtype.name()).as_bytes());
            (name.clone(), sum)
        };
        let sums = [0, 1, 2].map(|i| [&embedding[i], &head[i]].map(begun));
        Some(TiedHead { sums })
    }

    /// Takes the next bytes of a tensor. Tensors other than these are ignored.
    pub(crate) fn add(&mut self, tensor: &TensorInfo, bytes: &[u8]) {
        if let Some((_, sum)) = self.sums.iter_mut().flatten().find(|(name, _)| *name == tensor.name) {
            sum.write(bytes);
        }
    }

    /// Whether embedding and head had the same bytes and dtypes.
    pub(crate) fn is_the_embedding(&self) -> bool {
        self.sums.iter().all(|[(_, embedding), (_, head)]| embedding.finish() == head.finish())
    }
}
