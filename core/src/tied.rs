//! A head that a checkpoint has although its configuration says that the head is the embedding (spec 2.1: "use it and check
//! equality"). Most such heads are the embedding once more, so their bytes are compared, by checksums of both as they come,
//! and only a head that differs gets memory of its own.

use crate::checkpoint::{Header, TensorInfo};
use crate::config::Config;
use crate::names::{EMBED, HEAD, parts};
use std::hash::{DefaultHasher, Hasher as _};

/// Checksums of the embedding and of the head, while their bytes come.
#[derive(Debug)]
pub(crate) struct TiedHead {
    /// Of each tensor that they consist of, embedding and head beside each other.
    sums: [[(String, DefaultHasher); 2]; 3],
}

impl TiedHead {
    /// Nothing where the configuration does not tie the head, or the files have none.
    pub(crate) fn of(config: &Config, headers: &[Header]) -> Option<TiedHead> {
        let has_head = headers.iter().flat_map(|header| &header.tensors).any(|tensor| tensor.name == HEAD);
        if !config.tie_word_embeddings || !has_head {
            return None;
        }
        let (embedding, head) = (parts(EMBED), parts(HEAD));
        let begun = |name: &String| {
            let mut sum = DefaultHasher::new();
            // The same bytes of another type are other numbers.
            let found = headers.iter().flat_map(|header| &header.tensors).find(|tensor| tensor.name == *name);
            sum.write(found.map_or("", |tensor| tensor.dtype.name()).as_bytes());
            (name.clone(), sum)
        };
        let sums = [0, 1, 2].map(|i| [&embedding[i], &head[i]].map(begun));
        Some(TiedHead { sums })
    }

    /// Takes bytes of any tensor, in order.
    pub(crate) fn add(&mut self, tensor: &TensorInfo, bytes: &[u8]) {
        if let Some((_, sum)) = self.sums.iter_mut().flatten().find(|(name, _)| *name == tensor.name) {
            sum.write(bytes);
        }
    }

    /// Whether both were the same bytes.
    pub(crate) fn is_the_embedding(&self) -> bool {
        self.sums.iter().all(|[(_, embedding), (_, head)]| embedding.finish() == head.finish())
    }
}
