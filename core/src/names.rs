//! The names of tensors that several modules use.

/// Embedding of the vocabulary, shape `[vocab_size, hidden_size]`.
pub(crate) const EMBED: &str = "model.embed_tokens.weight";
/// Embedding of the meta tokens, shape `[meta_tokens, hidden_size]`.
pub(crate) const META_TOKENS: &str = "model.memory_tokens";
/// The output head, shape `[vocab_size, hidden_size]`. A model with a tied head has no such tensor.
pub(crate) const HEAD: &str = "lm_head.weight";

/// The names of tensors inside a block whose shapes tell dimensions (spec 1.1, "derive").
pub(crate) mod name {
    pub(crate) const UP: &str = "up_proj.weight";
    pub(crate) const Q_NORM: &str = "q_norm.weight";
    pub(crate) const CONV: &str = "conv1d.weight";
    pub(crate) const A_LOG: &str = "A_log";
    pub(crate) const OUT: &str = "out_proj.weight";
}

/// The name of a quantised matrix's scales or biases: `x.weight` has `x.scales` and `x.biases`.
pub(crate) fn beside(name: &str, what: &str) -> String {
    format!("{}.{what}", name.strip_suffix(".weight").unwrap_or(name))
}

/// The names of the tensors that a matrix may consist of: the matrix itself, and its scales and biases if it is
/// quantised.
pub(crate) fn parts(name: &str) -> [String; 3] {
    [name.to_owned(), beside(name, "scales"), beside(name, "biases")]
}
